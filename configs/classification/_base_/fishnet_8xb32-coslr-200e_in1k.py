# The authors' better recipe: 200 cosine epochs and label smoothing.
_base_ = './fishnet_8xb32_in1k.py'

model = dict(
    head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)))

train_cfg = dict(max_epochs=200)
# T_max and end are left to the length of the training.
param_scheduler = dict(
    _delete_=True, type='CosineAnnealingLR', by_epoch=True, begin=0)
