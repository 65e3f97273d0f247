_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py', './recipe_4_4.py'
]

train_dataloader = dict(batch_size=1)
