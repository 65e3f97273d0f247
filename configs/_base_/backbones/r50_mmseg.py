_base_ = '../pretrained.py'

# What MMSegmentation's recipes have: a ResNet-50 with a stem of three 3x3
# convolutions, as FishNet's. The rest of it stays as they say.
backbone = dict(
    init_cfg=dict(type='Pretrained', checkpoint={{_base_.pretrained.r50_v1c}}))
