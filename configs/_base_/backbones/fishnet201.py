_base_ = './fishnet150.py'

backbone = dict(
    depth=201, init_cfg=dict(checkpoint={{_base_.pretrained.fishnet201}}))
