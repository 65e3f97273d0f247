# Retrieval without training: the four features of FishNet-150, pooled by
# generalised means and concatenated, and compared by their cosines. Pictures
# lie in folders named as what they show: those of data/custom/train/CLASS/
# are searched for what is alike those of data/custom/val/CLASS/.
_base_ = ['./fishnet150_8xb32_in1k.py', '../_base_/pretrained.py']

weights = dict(type='Pretrained', checkpoint=_base_.pretrained.fishnet150)
# A batch is compared with all of the gallery at once, 19 KB a pair.
loader = dict(batch_size=8, num_workers=2, persistent_workers=False)
dataset = dict(
    type='CustomDataset', data_root='data/custom',
    pipeline=_base_.test_pipeline)
gallery = dict(
    **loader, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, data_prefix='train'))
test_dataloader = dict(
    **loader, dataset=dict(_delete_=True, **dataset, data_prefix='val'))

model = dict(
    _delete_=True,
    type='ImageToImageRetriever',
    data_preprocessor=_base_.data_preprocessor,
    image_encoder=[
        dict(type='mmfishnet.FishNet', depth=150, init_cfg=weights),
        dict(type='GeneralizedMeanPooling', p=3),
        dict(type='mmfishnet.ConcatenatedFeatures')
    ],
    prototype=gallery)

# tools/test.py has no use for this one: MMPretrain's metrics of retrieval
# want to know which pictures of the gallery are right, and a folder says a
# class. docs/classification.md has the few lines that measure it.
train_cfg = train_dataloader = optim_wrapper = None
val_cfg = val_dataloader = val_evaluator = None
test_evaluator = []
