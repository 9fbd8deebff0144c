_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256.py'

# LRnorm (Table 3 of the paper): lr = 0.1 * 0.1^floor((e - 1) / 30) in epochs e = 1 ... 100, which
# is MMPretrain's own.
