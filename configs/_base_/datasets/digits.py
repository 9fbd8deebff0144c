# scikit-learn's handwritten digits as images: python tools/make_digits.py
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)

load = dict(type='LoadImageFromFile')
pack = dict(type='PackInputs')

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        type='CustomDataset',
        data_root='data/digits',
        data_prefix='train',
        pipeline=[load, dict(type='RandomCrop', crop_size=64, padding=4), pack],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        type='CustomDataset', data_root='data/digits', data_prefix='val', pipeline=[load, pack]
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
