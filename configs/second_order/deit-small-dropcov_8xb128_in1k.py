_base_ = './deit-small-sot_8xb128_in1k.py'

# Plain cross-covariances, channels dropped with the fixed probability of the authors' code, which
# drops tokens there.
model = dict(head=dict(norm='none', channel_dropout=0.2))
