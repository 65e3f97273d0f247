_base_ = ['mmpretrain::_base_/models/resnet50.py', './_base_/in1k_8xb32.py']

model = dict(
    backbone=dict(_delete_=True, type='mmfishnet.PreActResNet', depth=50))
