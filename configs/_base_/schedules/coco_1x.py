_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

# Section 4.3 of the paper: learning rate 0.01 for a batch of 8, which is 4 GPUs with the 2 images
# each of MMDetection's data sets
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
