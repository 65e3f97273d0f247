_base_ = './fishnet150.py'

# For recipes of MMDetection's, which fix the statistics of all batch norms but
# train their affine, and freeze ResNet up to its stage at stride 4: in FishNet
# that is up to tail1, the stage that refines at stride 4 on the way down.
backbone = dict(frozen_stages=1, norm_cfg=dict(requires_grad=True))
