_base_ = './fishnet150.py'

# For recipes of MMSegmentation's, which freeze nothing and train the batch
# norms, synchronised between the GPUs.
backbone = dict(
    frozen_stages=-1,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    norm_eval=False)
