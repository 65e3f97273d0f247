# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from collections import defaultdict
from copy import deepcopy

import torch
from mmengine import dist
from mmengine.hooks import Hook

from ...kinds import dicts_in, type_name
from ...registry import HOOKS, register
from ..bare import bare_model
from ..exact.place import kept_generators, seed_here


@register(HOOKS)
class ValLossHook(Hook):
    """Compute the losses of the validation data after each validation.

    They are among its metrics, as ``val_loss`` and ``val_`` and the name of
    each part, and so in the log, in trackers and in reach of ``save_best``
    and of MMEngine's ``EarlyStoppingHook``. The model is in evaluation mode:
    norms and their running statistics are those that are validated. The same
    samples are drawn every time, and the training goes on as without.

    Args:
        dataloader (dict, optional): Config of the loader. Defaults to None,
            ``val_dataloader`` of the run's config, with annotations loaded
            right after the image, as the training loads them: MMDetection and
            MMSegmentation load them after the image was resized, for
            comparing with predictions at its own size.

    Example:
        >>> custom_hooks = [dict(type='mmfishnet.ValLossHook')]
    """

    # Before MMEngine's hook notes the metrics.
    priority = 'HIGHEST'

    def __init__(self, dataloader: dict | None = None) -> None:
        self.dataloader = dataloader

    def before_train(self, runner) -> None:
        """Build the loader."""
        if runner.val_loop is None:
            self.dataloader = ()  # nothing will be validated
        elif self.dataloader is None:
            self.dataloader = val_loss_dataloader(runner.cfg)
        if isinstance(self.dataloader, dict):
            self.dataloader = runner.build_dataloader(
                self.dataloader, seed=runner.seed)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Add the losses to the metrics."""
        if metrics is None or isinstance(self.dataloader, (dict, type(None))):
            return  # not in a training
        model = bare_model(runner.model)
        model.eval()
        sums, count = defaultdict(float), 0
        with torch.no_grad(), kept_generators():
            seed_here(runner.seed)
            for batch in self.dataloader:
                data = model.data_preprocessor(batch, False)
                images = len(data['inputs'])
                losses = model(**data, mode='loss')
                for name, value in model.parse_losses(losses)[1].items():
                    sums[name] += float(value) * images
                count += images
        names = list(sums)
        total = torch.tensor([*sums.values(), count], dtype=torch.float64)
        dist.all_reduce(total)
        for name, value in zip(names, total.tolist()):
            metrics[f'val_{name}'] = value / total[-1].item()


def val_loss_dataloader(cfg: dict) -> dict:
    """Config of a loader of the validation data with the losses' targets.

    Args:
        cfg (dict): Config of a run.

    Returns:
        dict: A copy of its ``val_dataloader``, with annotations loaded as in
        ``train_dataloader`` and right after the image.
    """
    def is_named(transform: dict, *prefixes: str) -> bool:
        return type_name(transform).startswith(prefixes)

    annotations = 'LoadAnn', 'LoadPanoptic'
    loader = deepcopy(cfg['val_dataloader'])
    trained = next((node for node in dicts_in(cfg['train_dataloader'])
                    if is_named(node, *annotations)), None)
    for node in list(dicts_in(loader)):
        if 'pipeline' not in node or trained is None:
            continue
        pipeline = [
            t for t in node['pipeline'] if not is_named(t, *annotations)]
        images = [is_named(t, 'LoadImage') for t in pipeline]
        after = images.index(True) + 1 if any(images) else 0
        pipeline.insert(after, deepcopy(trained))
        node['pipeline'] = pipeline
    return loader
