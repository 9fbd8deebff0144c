# Scenes of scikit-learn's handwritten digits with boxes and masks: python tools/make_digits.py
dataset = dict(
    type='CocoDataset',
    data_root='data/digits_coco',
    metainfo=dict(classes=tuple('0123456789')),
)
load = dict(type='LoadImageFromFile')
annotations = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train'),
        # no flip: a mirrored digit is none
        pipeline=[load, annotations, dict(type='PackDetInputs')],
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val'),
        test_mode=True,
        pipeline=[
            load,
            # PackDetInputs wants the factor that resizing would have left behind.
            dict(type='Resize', scale_factor=1.0),
            annotations,
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
val_evaluator = dict(
    type='CocoMetric',
    ann_file='data/digits_coco/annotations/instances_val.json',
    metric=['bbox', 'segm'],
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
