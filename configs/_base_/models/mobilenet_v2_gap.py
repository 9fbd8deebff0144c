_base_ = 'mmpretrain::_base_/models/mobilenet_v2_1x.py'

# Differs from MMPretrain's in the dropout before the classifier alone, which the paper's code
# trains with. Initialization is as there: He's, fan-out, and a normal classifier of std 0.01.
model = dict(head=dict(type='DropoutLinearClsHead', dropout=0.2))
