_base_ = './resnet18_1xb64-5e_digits.py'

model = dict(
    backbone=dict(conv5='none'),
    neck=dict(type='GlobalCovariancePooling', in_channels=512, reduction=(128,)),
    head=dict(in_channels=8256),  # 128 * 129 / 2
)
