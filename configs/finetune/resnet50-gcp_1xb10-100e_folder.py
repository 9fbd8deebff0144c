_base_ = './resnet50-gcp_1xb10-100e_cub.py'

# Any images in <data_root>/{train,val}/<class>/; the number of classes is the head's num_classes.
folder = dict(_delete_=True, type='CustomDataset', data_root='data/folder')
train_dataloader = dict(dataset=dict(**folder, data_prefix='train', pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(**folder, data_prefix='val', pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
