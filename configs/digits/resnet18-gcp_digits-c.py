# One corruption of the digits: tools/test.py CONFIG CHECKPOINT. All: tools/test_robustness.py
_base_ = 'resnet18-gcp_1xb64-5e_digits.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageNetC',
        data_root='data/digits_c',
        data_prefix='gaussian_noise/3',
        crop_size=64,
    ),
    collate_fn=dict(type='pseudo_collate'),
)
test_evaluator = dict(_delete_=True, type='CorruptionError')
test_cfg = dict(type='LogitsLoop')
