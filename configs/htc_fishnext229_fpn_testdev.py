# Writes what COCO's test-dev server takes, as {outfile_prefix}.bbox.json and
# {outfile_prefix}.segm.json. `tools/test.py --tta` merges the scales with
# which the entry was tested, each with its mirror image.
_base_ = './htc_fishnext229_fpn.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]
test_dataloader = dict(
    dataset=dict(
        ann_file='annotations/image_info_test-dev2017.json',
        data_prefix=dict(img='test2017/'),
        pipeline=test_pipeline))
test_evaluator = dict(
    format_only=True,
    ann_file='data/coco/annotations/image_info_test-dev2017.json',
    outfile_prefix='work_dirs/htc_fishnext229_fpn_testdev/results')

custom_imports = dict(imports=['mmfishnet.engine.tta'])
tta_model = dict(
    type='mmfishnet.MaskTTAModel',
    tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[
            dict(type='Resize', scale=scale, keep_ratio=True)
            for scale in [(900, 600), (1200, 800), (1500, 1000), (1800, 1200),
                          (2100, 1400)]
        ], [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)],
                    [
                        dict(
                            type='PackDetInputs',
                            meta_keys=('img_id', 'img_path', 'ori_shape',
                                       'img_shape', 'scale_factor', 'flip',
                                       'flip_direction'))
                    ]])
]
