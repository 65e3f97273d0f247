_base_ = './fishnet150_mmseg.py'

backbone = dict(
    depth=99, init_cfg=dict(checkpoint={{_base_.pretrained.fishnet99}}))
