_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['gcp_mm'], allow_failed_imports=False)
# A run killed at any moment resumes, and ends as if it had not been: docs/guides/resuming.md
default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook'),
    epoch_seed=dict(type='EpochSeedHook'),
)
