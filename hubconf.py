# Copyright (c) mmfishnet authors. All rights reserved.
"""For ``torch.hub.load``: the published networks, as timm's models are.

``torch.hub.load(REPOSITORY, 'fishnet150', pretrained=True)`` is a classifier
of ImageNet; ``features_only=True``, ``num_classes=10``, ``in_chans=1`` and
what else ``timm.create_model`` takes goes here, too.
"""
dependencies = ['mmcv', 'mmengine', 'timm', 'torch']

from mmfishnet.adapters.timm import (  # noqa: E402, F401
    fishnet99,
    fishnet150,
    fishnet201,
    fishnext150,
)
