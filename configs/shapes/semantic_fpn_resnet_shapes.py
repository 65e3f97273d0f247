# The ResNet of as many parameters, trained as the FishNet is.
_base_ = './semantic_fpn_fishnet_shapes.py'

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.tiny_resnet,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/resnet_tiny_shapes/epoch_5.pth',
            prefix='backbone.')),
    neck=dict(in_channels=_base_.tiny_resnet_channels))
