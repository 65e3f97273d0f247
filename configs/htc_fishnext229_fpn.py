# The COCO 2018 challenge's detector with FishNeXt-229 (section 4.4, 43.3 %
# mask AP on test-dev). Neither the entry's settings for it nor the stages of
# FishNeXt-229 were published: this is our reconstruction. It takes
# MMDetection's own version of the entry, made for ResNeXt-101: Hybrid Task
# Cascade with the semantic branch (which needs COCO-stuff's maps in
# data/coco/stuffthingmaps), multi-scale training, 16 GPUs with 1 image each,
# 20 epochs. Like that version it leaves out the entry's synchronised batch
# norm and guided anchoring.
_base_ = [
    'mmdet::htc/'
    'htc_x101-64x4d-dconv-c3-c5_fpn_ms-400-1400-16xb1-20e_coco.py',
    './_base_/backbones/fishnext229.py'
]

model = dict(
    # Deformable at strides 8 to 32 of the head, where ResNeXt's c3 to c5 are.
    backbone=dict(
        _delete_=True,
        dcn=dict(type='DCN', deform_groups=1),
        stage_with_dcn=('head2', 'head3'),
        **_base_.backbone),
    neck=dict(in_channels=_base_.backbone_channels))
