_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py', './recipe_4_4.py'
]

train_dataloader = dict(batch_size=1)
