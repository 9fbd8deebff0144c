_base_ = 'mmpretrain::_base_/datasets/cub_bs8_448.py'

# Differs from MMPretrain's in the batch, and in what iSQRT-COV's authors train on: the center of
# the image at the size of the test, flipped, and no random crop.
load = dict(type='LoadImageFromFile')
center = [
    dict(type='ResizeEdge', scale=448, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=448),
]
pack = dict(type='PackInputs')
train_pipeline = [load, *center, dict(type='RandomFlip', prob=0.5, direction='horizontal'), pack]
test_pipeline = [load, *center, pack]

train_dataloader = dict(batch_size=10, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=10, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
