_base_ = '../pretrained.py'

# Section 4.4: all batch norms fixed, the convolutions on the full image too.
backbone = dict(
    type='mmfishnet.FishNet',
    depth=150,
    out_indices=(0, 1, 2, 3),
    frozen_stages=0,
    norm_cfg=dict(type='BN', requires_grad=False),
    norm_eval=True,
    init_cfg=dict(
        type='Pretrained', checkpoint={{_base_.pretrained.fishnet150}}))
backbone_channels = [320, 832, 1600, 2112]
