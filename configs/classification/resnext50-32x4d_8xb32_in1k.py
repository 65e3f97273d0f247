_base_ = [
    'mmpretrain::_base_/models/resnext50_32x4d.py', './_base_/in1k_8xb32.py'
]
