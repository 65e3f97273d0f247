# A FishNet for a few hundred pictures and two CPU cores. The fish works at
# stride 4 for most of its multiply-adds, so its width there is what counts:
# as wide at stride 4 as at stride 32 allows, with a stem of 32 channels (16
# while at full cost, at stride 2), no level above 128, and 8 to 30 channels in
# the 3x3 convolutions at stride 4. The released widths divided by four would
# leave 4 and 8 there. It has 707,560 parameters, the pre-activation ResNet
# beside it, with 3, 4, 3 and 1 blocks, 708,688. Its weights come with the
# package: pretrained on EuroSAT, 27,000 pictures of 64x64 pixels.
small_fishnet = dict(
    type='mmfishnet.FishNet',
    init_cfg=dict(type='Pretrained', checkpoint='mmfishnet://small'),
    depth=dict(
        stem_channels=32,
        tail=(1, 1, 1),
        tail_channels=(64, 96, 128),
        bridge=1,
        body=(1, 1, 1),
        head=(1, 1, 1),
        body_transfer=(1, 1, 1),
        head_transfer=(1, 1, 1)))
small_fishnet_channels = [120, 296, 520, 648]

small_resnet = dict(
    type='mmfishnet.PreActResNet', depth=(3, 4, 3, 1), base_channels=16)
small_resnet_channels = [64, 128, 256, 512]
