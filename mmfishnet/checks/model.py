# Copyright (c) mmfishnet authors. All rights reserved.
"""A model against its data, and its parts against each other."""
from __future__ import annotations

from collections.abc import Iterator

import torch
from mmengine.registry import MODELS
from torch import nn
from torch.overrides import TorchFunctionMode

from ..kinds import type_name
from ..words import short
from .built import Data, is_known, owner
from .problem import Problem, error, note, warning

# Parts whose num_classes is not that of the data: proposals know one class,
# backbones have a head for pretraining that is not used, HTC's semantic branch
# and the heads of captions and queries count their own.
OTHER = ('rpn_head', 'backbone', 'semantic_head', 'teacher', 'reid',
         'teacher_model', 'language_model', 'text_encoder',
         'data_preprocessor', 'tracker')
# Of torch, where channels do not fit.
WORDS = ('channel', 'shapes cannot', 'reduction dim', 'must match',
         'running_mean')
TEXT = ('language_model', 'text_encoder', 'tokenizer')


class _Numbers(TorchFunctionMode):
    """Numbers that constructors read are made, beside torch's meta device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.linspace, torch.tensor):
            kwargs.setdefault('device', 'cpu')
        return func(*args, **kwargs)


def build_shapes(cfg: dict, scope: str | None) -> nn.Module:
    """Build a model without memory for its weights (on torch's meta device).

    Args:
        cfg (dict): ``model`` of a config.
        scope (str, optional): Package whose registry is asked first.
    """
    with MODELS.switch_scope_and_registry(scope) as registry, \
            torch.device('meta'), _Numbers():
        return registry.build(cfg)


def bare(model: nn.Module) -> nn.Module:
    """The model inside wrappers for processes, views and teachers."""
    for name in ('module', 'detector', 'student', 'architecture'):
        while is_known(type(model)) and isinstance(
                getattr(model, name, None), nn.Module):
            model = getattr(model, name)
    return model


def class_head(model) -> nn.Module | None:
    """The head of MMPretrain's and MMSegmentation's models."""
    for name in ('decode_head', 'head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.ModuleList) and len(head):
            head = head[-1]
        if isinstance(head, nn.Module):
            return head
    return None


def class_count(head) -> int | None:
    """Classes that a head tells apart, or None."""
    count = getattr(head, 'num_classes', None)
    return count if isinstance(count, int) and count > 0 else None


def loss_modules(head) -> Iterator[nn.Module]:
    """The losses by which a head of MMSegmentation learns from maps."""
    losses = getattr(head, 'loss_decode', ())
    yield from losses if isinstance(losses, nn.ModuleList) else filter(
        lambda loss: isinstance(loss, nn.Module), [losses])


def find_heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The heads of MMDetection's models that have to know the classes."""
    for name, module in model.named_modules():
        *parents, last = '', *(p for p in name.split('.') if not p.isdigit())
        if last.endswith('head') and not set(parents) & set(OTHER) and (
                last not in OTHER or hasattr(module, 'num_stuff_classes')
        ) and 'RPN' not in type(module).__name__:  # also where it is all
            yield name, module


def check_heads(model: nn.Module, data: Data,
                evaluated: bool) -> Iterator[Problem]:
    """``num_classes`` of the heads against the classes of a data set.

    Args:
        model (nn.Module): Model, without wrappers.
        data (Data): Data set.
        evaluated (bool): Whether a label without class stops the evaluation.
    """
    names = data.names
    if names is None or not data.known or any(
            hasattr(model, name) for name in TEXT):
        return
    things = data.dataset.metainfo.get('thing_classes')
    panoptic = data.kind == 'panoptic' and things is not None
    count = len(things) if panoptic else len(names)
    for key, head in find_heads(model):
        wanted = dict(num_classes=count)
        if hasattr(head, 'num_things_classes'):
            wanted = dict(num_things_classes=count,
                          num_stuff_classes=len(names) - count)
        elif hasattr(head, 'num_stuff_classes'):
            wanted = dict(num_stuff_classes=len(names) - count)
        for name, value in wanted.items():
            given = getattr(head, name, None)
            if not isinstance(given, int) or given == value or getattr(
                    head, 'class_agnostic', False):
                continue
            # Those of maps and pictures are compared with the labels.
            certain = is_known(type(head)) and _is_read_as_known(
                model) and key.partition('.')[0] not in (
                    'decode_head', 'auxiliary_head', 'head') and (
                        given < value if data.trained else evaluated)
            yield (error if certain else warning)(
                f'model.{key}.{name}', f'it is {given}, and {data.key} has '
                f'{value} {"of these classes" if panoptic else "classes"} '
                f'({short(names, 100)}). Set it to {value}, or correct '
                'metainfo.classes')


def _is_read_as_known(model: nn.Module) -> bool:
    """Whether the parts of a model are used as upstream uses them."""
    return all(is_known(owner(type(model), name))
               for name in ('extract_feat', 'loss'))


def check_channels(cfg: dict, model: nn.Module) -> Iterator[Problem]:
    """What follows the backbone against the channels that it gives.

    Args:
        cfg (dict): ``model`` of the config, for the size of the picture.
        model (nn.Module): The same of :func:`build_shapes`.
    """
    backbone, size = getattr(model, 'backbone', None), 224
    settings = next((c for c in _backbones(cfg)), {})
    size = settings.get('img_size', size)
    size = size if isinstance(size, (list, tuple)) else (size, size)
    if backbone is None or type_name(settings) != type(backbone).__name__:
        return
    say = error if _is_read_as_known(model) else warning
    backbone.eval()  # which returns nothing in MMDetection's ResNet
    with torch.no_grad(), torch.device('meta'):
        try:
            outputs = backbone(torch.empty(
                1, settings.get('in_channels', 3), *size))
        except Exception:  # what it raises is its own affair
            yield note('model.backbone', 'its channels are not known without '
                       'running it, and were compared with nothing')
            return
        giver, neck = backbone, getattr(model, 'neck', None)
        if isinstance(neck, nn.Module):
            problem, outputs = _give('neck', neck, giver, outputs, say)
            if problem:
                yield problem
            if outputs is None:
                return
            giver = neck
        heads = {name: getattr(model, name, None) for name in (
            'decode_head', 'auxiliary_head', 'head', 'bbox_head', 'rpn_head')}
        several = heads['auxiliary_head']
        if isinstance(several, nn.ModuleList):
            heads.update((f'auxiliary_head.{i}', h)
                         for i, h in enumerate(several))
        for key, head in heads.items():
            # Those of a cascade read each other's results.
            if isinstance(head, nn.Module) and not isinstance(
                    head, nn.ModuleList):
                problem, _ = _give(key, head, giver, outputs, say)
                problem = problem or _check_levels(key, head, giver, outputs,
                                                   say)
                if problem:
                    yield problem


def _check_levels(key: str, head: nn.Module, giver: nn.Module, outputs,
                  say) -> Problem | None:
    """As many features as there are levels of anchors or points."""
    levels = getattr(getattr(head, 'prior_generator', None), 'num_levels',
                     None)
    if levels is None or not is_known(type(head)) or owner(
            type(head), 'forward').__name__ not in (
                'AnchorHead', 'AnchorFreeHead', 'FCOSHead') or not isinstance(
                    outputs, (list, tuple)) or len(outputs) == levels:
        return None
    return say(f'model.{key}', f'it has priors at {levels} strides, and '
               f'{type(giver).__name__} gives {len(outputs)} features. Change '
               'strides of its anchor_generator (or its own), or num_outs of '
               'model.neck')


def _backbones(cfg) -> Iterator[dict]:
    while isinstance(cfg, dict):
        if isinstance(cfg.get('backbone'), dict):
            yield cfg['backbone']
        cfg = next((cfg[k] for k in ('detector', 'module')
                    if isinstance(cfg.get(k), dict)), None)


def _give(key: str, reader: nn.Module, giver: nn.Module, outputs,
          say) -> tuple:
    """Run a part: what is wrong with its channels, and its outputs."""
    try:
        return None, reader.eval()(outputs)
    except AssertionError as fault:
        raised = fault
    except Exception as fault:
        if not any(word in str(fault) for word in WORDS):
            return None, None  # operators that need memory, other arguments
        raised = fault
    found = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    if not isinstance(found, (list, tuple)) or not all(
            isinstance(o, torch.Tensor) for o in found):
        return None, None
    channels = [o.shape[1] for o in found]
    first = reader[0] if isinstance(reader, nn.Sequential) else reader
    given = getattr(first, 'in_channels', None)
    if given is None:
        return None, None  # what it reads is not known
    several = isinstance(given, (list, tuple))
    if isinstance(raised, AssertionError) and (
            not several or len(given) == len(channels)):
        return None, None
    if (sorted(given) == sorted(channels) if several else given in channels):
        return None, None  # something else does not fit
    return say(
        f'model.{key}.in_channels', f'it is {given}, and '
        f'{type(giver).__name__} gives {channels}. Set it to these, or '
        'change model.backbone.out_indices '
        f'({type(raised).__name__}: {short(str(raised), 200)})'), None
