_base_ = './fishnext150.py'

backbone = dict(
    depth=229, init_cfg=dict(checkpoint={{_base_.pretrained.fishnext229}}))
