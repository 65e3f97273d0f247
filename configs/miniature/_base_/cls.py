# Pretraining on drawn shapes, in one process with 32 images a step.
_base_ = '../../classification/fishnet_shapes.py'

train_dataloader = dict(num_workers=0)
val_dataloader = dict(num_workers=0)
test_dataloader = dict(num_workers=0)
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(max_epochs=10)
