_base_ = './in1k_8xb32.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfishnet.FishNet', out_indices=(3, )),
    neck=dict(type='mmfishnet.FishNetScore', in_channels=2112),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1056,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5)))
