_base_ = 'resnet18-gcp_8xb32-lradju_in1k.py'

# The family of Figure 4: lr = 0.1 (1 - (e - 1) / (e_f - 1))^rho in epochs e = 1 ... e_f. rho is
# `param_scheduler.power` and e_f `train_cfg.max_epochs`, where the scheduler ends by default; set
# both with --cfg-options. As they stand they are LRadju's, (rho, e_f) = (2, 50).
param_scheduler = dict(_delete_=True, type='PolyLR', power=2, eta_min=0, begin=0, by_epoch=True)
