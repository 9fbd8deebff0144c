_base_ = 'shufflenet_v2_gap.py'

# The paper drops the down-sampling of the last stage for ResNets alone (sections 3.2 and 4.3), as
# does its code: the map that is pooled has 7x7 positions, as under GAP.
model = dict(
    neck=dict(
        type='GlobalCovariancePooling',
        in_channels=1024,
        reduction=(256,),
        act_cfg=dict(type='ReLU6'),
        # PyTorch's own initialization of a convolution
        init_cfg=dict(
            type='Kaiming',
            layer='Conv2d',
            a=5**0.5,
            mode='fan_in',
            nonlinearity='leaky_relu',
            distribution='uniform',
        ),
    ),
    head=dict(in_channels=32896),  # 256 * 257 / 2
)
