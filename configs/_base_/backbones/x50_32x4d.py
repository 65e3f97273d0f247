_base_ = './r50.py'

backbone = dict(
    type='ResNeXt',
    groups=32,
    base_width=4,
    init_cfg=dict(checkpoint={{_base_.pretrained.x50_32x4d}}))
