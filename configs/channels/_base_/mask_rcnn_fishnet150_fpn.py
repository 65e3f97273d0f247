# For images that are not RGB, to whose channels no published weights fit:
# nothing is frozen, and group norms take the place of fixed batch norms, as
# `tools/train.py --from-scratch` has it.
_base_ = '../../mask_rcnn_fishnet150_fpn.py'

model = dict(
    data_preprocessor=dict(bgr_to_rgb=False),
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=dict(_delete_=True, type='GN', num_groups=32),
        norm_eval=False,
        init_cfg=None))
