# Copyright (c) mmfishnet authors. All rights reserved.
"""The model of a config against its data, and its neck against its backbone.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope

from .problem import Problem, error, note, short, warning
from .sources import Source, find_class, setting, type_name

# Parts whose num_classes is not that of the data: proposals know one class,
# backbones have a head for pretraining that is not used, HTC's semantic branch
# and the heads of captions and queries count their own.
OTHER = ('rpn_head', 'backbone', 'semantic_head', 'teacher_config',
         'language_model', 'text_encoder', 'data_preprocessor', 'reid')
# Models whose classes are words of a text, and others that the check of heads
# would misread.
TEXT_KEYS = ('language_model', 'text_encoder', 'tokenizer')


def check_heads(model: dict, source: Source, names: Sequence[str] | None,
                scope: str | None) -> Iterator[Problem]:
    """``num_classes`` of the heads against the classes of a data set.

    Args:
        model (dict): Config of the model.
        source (Source): Data set.
        names (Sequence[str], optional): Its classes, if they are known.
        scope (str, optional): ``default_scope`` of the config.
    """
    # Of data sets that are not known, such as videos, some name more classes
    # than they use.
    unknown = source.kind is None and not source.trained
    if names is None or unknown or any(key in model for key in TEXT_KEYS):
        yield note('model', f'num_classes was not compared with {source.key}')
        return
    things = source.metainfo.get(
        'thing_classes',
        getattr(source.cls, 'METAINFO', {}).get('thing_classes'))
    panoptic = source.kind == 'panoptic' and things is not None
    count = len(things) if panoptic else len(names)
    stuff = len(names) - count
    for key, head in find_heads(model, scope):
        cls = find_class(MODELS, head.get('type'), scope)
        wanted = dict(num_classes=count)
        if 'num_things_classes' in head or 'num_stuff_classes' in head:
            wanted = dict(num_things_classes=count, num_stuff_classes=stuff)
        for name, value in wanted.items():
            given = setting(head, cls, name)
            if not isinstance(given, int) or given == value or head.get(
                    'class_agnostic'):
                continue
            default = '' if name in head else ' (its default)'
            yield error(
                f'model.{key}.{name}', f'it is {given}{default}, and '
                f'{source.key} has {value} '
                f'{"classes" if not panoptic else "of these classes"} '
                f'({short(names, 100)}). Set it to {value}, or correct '
                'metainfo.classes')


def find_heads(model, scope: str | None,
               key: str = '') -> Iterator[tuple[str, dict]]:
    """Find the heads of a model that have to know the classes.

    Args:
        model (dict): Config of a model.
        scope (str, optional): ``default_scope`` of the config.
        key (str): Where it stands. Defaults to ''.

    Yields:
        tuple[str, dict]: Key and config of each head.
    """
    if isinstance(model, (list, tuple)):
        for i, item in enumerate(model):
            yield from find_heads(item, scope, f'{key}.{i}')
    elif isinstance(model, dict):
        name = key.rpartition('.')[0] if key.split('.')[-1].isdigit() else key
        name = name.split('.')[-1]
        if 'type' in model and name.endswith('head'):
            yield key, model
        for name, value in model.items():
            if name not in OTHER or name == 'semantic_head' and isinstance(
                    value, dict) and 'num_things_classes' in value:
                yield from find_heads(
                    value, scope, f'{key}.{name}' if key else name)


def check_channels(model: dict, scope: str | None) -> Iterator[Problem]:
    """What follows the backbone against the channels that it gives.

    Args:
        model (dict): Config of the model.
        scope (str, optional): ``default_scope`` of the config.
    """
    backbone = model.get('backbone')
    if not isinstance(backbone, dict):
        return
    readers = list(_readers(model))
    if not readers:
        return
    channels = backbone_channels(backbone, scope)
    if channels is None:
        yield note('model.backbone', f'the channels of {type_name(backbone)} '
                   'are not known without running it, and were not compared '
                   f'with model.{readers[0][0]}')
        return
    for key, given, index in readers:
        several = isinstance(given, (list, tuple))
        if isinstance(index, (list, tuple)):
            wanted = [channels[i] for i in index
                      if -len(channels) <= i < len(channels)]
        elif index is None:
            wanted = channels
        else:
            wanted = channels[index:index + 1 or None]
        given_list = list(given) if several else [given]
        # YOLO's neck reads from the coarsest output on.
        if given_list not in (list(wanted), list(wanted)[::-1]):
            shown = list(wanted) if several or len(wanted) != 1 else wanted[0]
            # Some necks read the last ones only; FPN wants all.
            last = several and given_list == list(wanted)[-len(given_list):]
            yield (warning if last else error)(
                f'model.{key}', f'it is {given}, and {type_name(backbone)} '
                f'with out_indices={backbone.get("out_indices")} gives '
                f'{channels}. Set it to {shown}, or change '
                'model.backbone.out_indices')


def _readers(model: dict) -> Iterator[tuple[str, object, object]]:
    """Who reads the backbone: key, in_channels, and which outputs."""
    neck = model.get('neck')
    if isinstance(neck, (list, tuple)) and neck:
        key, neck = 'neck.0', neck[0]
    else:
        key = 'neck'
    if isinstance(neck, dict) and 'in_channels' in neck:
        given = neck['in_channels']
        # A neck with one input takes the last output.
        yield (f'{key}.in_channels', given,
               None if isinstance(given, (list, tuple)) else -1)
    elif not isinstance(neck, dict) or 'Pooling' in type_name(neck):
        head = model.get('head')
        if isinstance(head, dict) and 'in_channels' in head:
            yield 'head.in_channels', head['in_channels'], -1
    if isinstance(neck, dict):
        return
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name)
        for i, head in enumerate(
                heads if isinstance(heads, (list, tuple)) else [heads]):
            if isinstance(head, dict) and 'in_channels' in head:
                key = name if heads is head else f'{name}.{i}'
                yield (f'{key}.in_channels', head['in_channels'],
                       head.get('in_index', -1))


def backbone_channels(backbone: dict,
                      scope: str | None) -> list[int] | None:
    """Channels of a backbone's outputs.

    It is built without memory for its weights (on torch's meta device). One
    that does not say ``out_channels`` runs there on one image.

    Args:
        backbone (dict): Its config.
        scope (str, optional): ``default_scope`` of the config.

    Returns:
        list[int] | None: One number an output, or None if it cannot be told.
    """
    cfg = {k: v for k, v in backbone.items()
           if k not in ('init_cfg', 'pretrained')}
    # What a backbone of somebody else's raises here is its own affair: the
    # run will say it, and not as a matter of channels.
    try:
        with torch.device('meta'), torch.no_grad(), \
                DefaultScope.overwrite_default_scope(scope):
            module: BaseModule = MODELS.build(cfg)
            channels = getattr(module, 'out_channels', None)
            if isinstance(channels, Sequence):
                return list(channels)
            size = cfg.get('img_size', 224)
            size = size if isinstance(size, Sequence) else (size, size)
            module.eval()  # which returns nothing in MMDetection's ResNet
            outputs = module(
                torch.empty(1, cfg.get('in_channels', 3), *size))
    except Exception:
        return None
    if isinstance(outputs, torch.Tensor):
        outputs = [outputs]
    if not all(isinstance(o, torch.Tensor) and o.dim() == 4 for o in outputs):
        return None
    return [o.shape[1] for o in outputs]


def map_classes(model: dict) -> int | None:
    """Classes of a model of MMSegmentation; None if it does not say."""
    head = model.get('decode_head')
    head = head[-1] if isinstance(head, (list, tuple)) and head else head
    count = head.get('num_classes') if isinstance(head, dict) else None
    return count if isinstance(count, int) else None
