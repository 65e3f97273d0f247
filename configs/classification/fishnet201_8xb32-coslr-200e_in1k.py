_base_ = './_base_/fishnet_8xb32-coslr-200e_in1k.py'

model = dict(backbone=dict(depth=201))
