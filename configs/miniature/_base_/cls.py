# Pretraining: section 4.1's recipe on drawn shapes, in one process.
_base_ = '../../classification/fishnet_shapes.py'

train_dataloader = dict(num_workers=0)
val_dataloader = dict(num_workers=0)
test_dataloader = dict(num_workers=0)
