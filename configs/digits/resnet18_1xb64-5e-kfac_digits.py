_base_ = './resnet18_1xb64-5e_digits.py'

optim_wrapper = dict(type='KFACOptimWrapper', damping=0.01, interval=10)
