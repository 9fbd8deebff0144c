# The network that the robustness metrics are normalized by; its weights are torchvision's:
# docs/guides/robustness.md
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64.py', '../_base_/cls_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(type='AlexNet', num_classes=1000),
    head=dict(type='ClsHead'),
)
