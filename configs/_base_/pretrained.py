# Where the ImageNet weights are: the one place that names them. FishNet's are
# fetched when they are first used, unless checkpoints/fishnet150_in1k.pth and
# the like are there (`python tools/get_weights.py NAME` puts one there). Those
# of FishNeXt were never published: train them with the configs in
# configs/classification.
pretrained = dict(
    fishnet99='mmfishnet://fishnet99',
    fishnet150='mmfishnet://fishnet150',
    fishnet201='mmfishnet://fishnet201',
    fishnext150='checkpoints/fishnext150_in1k.pth',
    fishnext229='checkpoints/fishnext229_in1k.pth',
    r50='torchvision://resnet50',
    r50_v1c='open-mmlab://resnet50_v1c',
    x50_32x4d='open-mmlab://resnext50_32x4d')
