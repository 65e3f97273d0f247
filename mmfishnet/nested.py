# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from collections.abc import Iterator


def dicts_in(node) -> Iterator[dict]:
    """Find every dict of a config, at any depth.

    Args:
        node: Dict, list, tuple or anything else, which holds none.

    Yields:
        dict: ``node`` itself if it is one, then those inside.
    """
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        yield from dicts_in(child)
