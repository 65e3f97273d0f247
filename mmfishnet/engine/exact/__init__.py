# Copyright (c) mmfishnet authors. All rights reserved.
"""Runs that can be killed at any moment and go on exactly, bit for bit.

:class:`ExactRunner` is the door: MMEngine's runner, whose config, loaders,
data sets and checkpoints stay MMEngine's. This is all that it changes:

- Each step, each validation and each sample is seeded by the run's seed and
  by its place in the run (:mod:`.place`), so that no state of generators has
  to be kept. The loader is the one that the config describes; its batches
  know their place.
- MMEngine's two training loops can begin in the middle of an epoch
  (:mod:`.loops`), and do the validation that was not finished.
- Checkpoints appear whole or not at all, and MMEngine's checkpoint hook
  removes older ones after the newer is there (:mod:`.checkpoint`).
- With several processes, the running statistics of norms are averaged before
  they are validated or saved.
- SIGTERM, while it trains, ends the step and writes a checkpoint; a loss that
  spoilt the weights ends the run (:mod:`.stop`). Processes that load data
  outlive the signal by a minute, all other children obey it.
- The seed that was drawn, and no launcher, stand in the config that is left
  in the work directory.

What it does not know it leaves alone, with a line in the log that says so:
other training loops, and batches that are no lists, keep their function and
are not exact. Classes derived from MMEngine's loops and checkpoint hook are
others.
"""
from .runner import ExactRunner

__all__ = ['ExactRunner']
