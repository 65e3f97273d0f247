# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet as other libraries expect a backbone, one module a library.

Nothing here imports them: ``mmfishnet.adapters.torchvision`` needs
torchvision, and ``mmfishnet.adapters.timm`` needs timm.
"""
