_base_ = [
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    './_base_/backbones/fishnet150.py'
]

model = dict(
    # As the original has its ResNet: from stride 8 on, all of the norms fixed,
    # and frozen up to stride 4 (see fishnet150_mmdet.py).
    backbone={
        **_base_.backbone, '_delete_': True,
        'out_indices': (1, 2, 3),
        'frozen_stages': 1
    },
    neck=dict(in_channels=_base_.backbone_channels[1:]))
