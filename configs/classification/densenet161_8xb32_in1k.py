_base_ = [
    'mmpretrain::_base_/models/densenet/densenet161.py',
    './_base_/in1k_8xb32.py'
]
