# Copyright (c) mmfishnet authors. All rights reserved.
"""How long loaders and data sets are, of which some are streams."""
from __future__ import annotations


def length_of(items) -> int | None:
    """Batches of a loader, or samples of a data set; None of a stream, whose
    end nobody knows."""
    try:
        return len(items)
    except TypeError:
        return None
