_base_ = '../pretrained.py'

# Section 4.4: all batch norms fixed, the convolution on the full image too
# (frozen_stages=0 is the 7x7 one; MMDetection's own configs freeze stage 1).
backbone = dict(
    type='ResNet',
    depth=50,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    frozen_stages=0,
    norm_cfg=dict(type='BN', requires_grad=False),
    norm_eval=True,
    style='pytorch',
    init_cfg=dict(type='Pretrained', checkpoint={{_base_.pretrained.r50}}))
backbone_channels = [256, 512, 1024, 2048]
