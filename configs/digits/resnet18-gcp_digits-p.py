# One perturbation of the digits: tools/test.py CONFIG CHECKPOINT. All: tools/test_robustness.py
_base_ = 'resnet18-gcp_1xb64-5e_digits.py'

test_dataloader = dict(
    batch_size=2,  # sequences of 31 frames
    dataset=dict(
        _delete_=True,
        type='ImageNetP',
        data_root='data/digits_p',
        data_prefix='gaussian_noise',
        crop_size=64,
    ),
    collate_fn=dict(type='pseudo_collate'),
)
test_evaluator = dict(_delete_=True, type='PerturbationStability')
test_cfg = dict(type='LogitsLoop')
