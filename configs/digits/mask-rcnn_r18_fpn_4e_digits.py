_base_ = [
    '../_base_/models/mask-rcnn_r18_digits.py',
    '../_base_/datasets/digits_coco.py',
    '../_base_/schedules/digits_coco.py',
    '../_base_/det_runtime.py',
]

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
