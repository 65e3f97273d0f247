# A FishNet and a pre-activation ResNet for drawn shapes: with pooling and a
# classifier of 12 classes, 604,380 and 604,316 parameters.
tiny_fishnet = dict(
    type='mmfishnet.FishNet',
    depth=dict(
        stem_channels=16,
        tail=(1, 1, 1),
        tail_channels=(32, 64, 128),
        bridge=1,
        body=(1, 1, 1),
        head=(1, 1, 1),
        body_transfer=(1, 1, 1),
        head_transfer=(1, 1, 1)))
tiny_fishnet_channels = [80, 208, 400, 528]

tiny_resnet = dict(
    type='mmfishnet.PreActResNet', depth=(2, 2, 2, 1), base_channels=16)
tiny_resnet_channels = [64, 128, 256, 512]
