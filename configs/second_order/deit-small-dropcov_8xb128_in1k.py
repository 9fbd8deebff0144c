_base_ = './deit-small-sot_8xb128_in1k.py'

# As in the authors' code: plain cross-covariances, channels dropped with a fixed probability.
model = dict(head=dict(norm='none', channel_dropout=0.2))
