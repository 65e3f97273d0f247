# Copyright (c) mmfishnet authors. All rights reserved.
"""Stage tables: residual blocks of each stage and of each transfer.

:func:`mmfishnet.wiring.check_arch` says what a table may hold.
"""
from __future__ import annotations

# The authors' released models.
FISHNET = {
    99:
    dict(
        tail=(2, 2, 6),
        bridge=2,
        body=(1, 1, 1),
        head=(1, 2, 2),
        body_transfer=(1, 1, 1),
        head_transfer=(1, 1, 4)),
    150:
    dict(
        tail=(2, 4, 8),
        bridge=4,
        body=(2, 2, 2),
        head=(2, 2, 4),
        body_transfer=(2, 2, 2),
        head_transfer=(2, 2, 4)),
    201:
    dict(
        tail=(3, 4, 12),
        bridge=4,
        body=(2, 2, 2),
        head=(2, 3, 10),
        body_transfer=(2, 2, 2),
        head_transfer=(2, 2, 9)),
}

FISHNEXT = {
    150:
    FISHNET[150],
    # The challenge's; never published. 72 residual blocks, so that the
    # convolutions are 229, see FishNeXt.
    229:
    dict(
        tail=(3, 4, 18),
        bridge=4,
        body=(2, 2, 2),
        head=(2, 3, 11),
        body_transfer=(2, 2, 2),
        head_transfer=(2, 2, 11)),
}
