# Where the ImageNet weights lie: the one place that names them.
# `python tools/get_weights.py NAME` puts FishNet's there. Those of FishNeXt
# were never published: train them with the configs in configs/classification.
pretrained = dict(
    fishnet99='checkpoints/fishnet99_in1k.pth',
    fishnet150='checkpoints/fishnet150_in1k.pth',
    fishnet201='checkpoints/fishnet201_in1k.pth',
    fishnext150='checkpoints/fishnext150_in1k.pth',
    fishnext229='checkpoints/fishnext229_in1k.pth',
    r50='torchvision://resnet50',
    r50_v1c='open-mmlab://resnet50_v1c',
    x50_32x4d='open-mmlab://resnext50_32x4d')
