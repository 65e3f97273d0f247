_base_ = './fishnet150.py'

backbone = dict(
    type='mmfishnet.FishNeXt',
    init_cfg=dict(checkpoint={{_base_.pretrained.fishnext150}}))
