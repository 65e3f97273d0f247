# Copyright (c) mmfishnet authors. All rights reserved.
"""Direct back-propagation and isolated convolutions (sections 1 and 2).

What is examined is the graph that autograd recorded, not a description of
the network.

- A node of the graph is *weighted* if a trained tensor of two or more
  dimensions enters it: convolutions of any kind and linear layers. All else
  lets the gradient pass without mixing channels by learned weights and is
  transparent: identity, addition, concatenation, slicing, the channel
  reduction, pooling, up-sampling, activations, norms (their affine has one
  dimension) and the product with a gate, which scales a gradient. (The gate
  itself comes out of convolutions, so the way through it is not direct.)
- A path from a later feature to an earlier one is *direct* if no weighted
  node is on it. The convolutions to pass from one feature to another are the
  fewest on any path between them; 0 is direct BP.
- Two features are *linked* if a path between them meets no third one. If the
  link is direct, whatever convolutions run beside it are messages: this is
  the paper's "identity mapping or concatenation". If it is not, the
  convolutions on the link's paths with the fewest of them are *isolated*
  (section 2): the 1x1 convolution on a residual block's shortcut and not the
  three of its message, which is the longer way.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autograd_graph import AutogradGraph
from mmfishnet.models import FishNet
from mmfishnet.models.probe import image_channels, keep_modes

POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Feature:
    """A feature map between the stages of a backbone.

    Attributes:
        name (str): Its name in reports, such as 'tail1'.
        module (str): The module whose output it is; empty for the image and
            for an output that no named module returns.
        channels (int): Its channels.
        stride (int): Height of the image over its height.
    """

    name: str
    module: str
    channels: int
    stride: int


@dataclass(frozen=True)
class IsolatedConv:
    """A convolution without identity or concatenation beside it.

    Attributes:
        module (str): Name of the convolution in the backbone.
        before (tuple[str]): The features from which one link or several
            lead through it.
        after (tuple[str]): Those to which they lead.
    """

    module: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class DirectBP:
    """What :func:`examine` found.

    Attributes:
        features (tuple[Feature]): In the order in which they are computed,
            the image first.
        outputs (tuple[str]): Names of those that the backbone returns.
        convs (dict[tuple[str, str], int]): Fewest convolutions to pass from
            a later to an earlier feature, for all pairs (later, earlier)
            between which there is a path. 0 is direct BP.
        links (dict[tuple[str, str], int]): The same for pairs with a path
            that meets no third feature, along such paths.
        isolated (tuple[IsolatedConv]): The isolated convolutions.
        weighted (tuple[str]): All modules with a convolution's or a linear
            layer's weight on the way from the image to the outputs.
    """

    features: tuple[Feature, ...]
    outputs: tuple[str, ...]
    convs: dict[tuple[str, str], int]
    links: dict[tuple[str, str], int]
    isolated: tuple[IsolatedConv, ...]
    weighted: tuple[str, ...] = field(repr=False)

    def is_direct(self, later: str, earlier: str) -> bool:
        """Whether a gradient reaches ``earlier`` from ``later`` directly."""
        return self.convs.get((later, earlier)) == 0

    def direct(self) -> tuple[str, ...]:
        """The features that some output reaches directly."""
        return tuple(
            feature.name for feature in self.features
            if feature.name in self.outputs or any(
                self.is_direct(output, feature.name)
                for output in self.outputs))


@contextmanager
def _all_trained(backbone: nn.Module) -> Iterator[None]:
    """In evaluation mode, with frozen weights in the graph as well."""
    trained = {param: param.requires_grad for param in backbone.parameters()}
    with keep_modes(backbone, train=False), torch.enable_grad():
        for param in trained:
            param.requires_grad_(True)
        try:
            yield
        finally:
            for param, requires_grad in trained.items():
                param.requires_grad_(requires_grad)


def _outputs(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    # Ours compute in this layout: what they return are the features then, and
    # no copies of them.
    outputs = backbone(images.contiguous(memory_format=torch.channels_last))
    if isinstance(outputs, dict):
        outputs = outputs.values()
    return [outputs] if isinstance(outputs, Tensor) else [*outputs]


def find_stages(backbone: nn.Module, size: int = 64) -> dict[str, str]:
    """Choose the features to look at.

    For FishNet, the stem's and every stage's refined feature. For other
    backbones, what the outermost modules that are called return, if it is a
    feature map and the module pools or has modules of its own: ``maxpool``
    and ``layer1`` to ``layer4`` of a ResNet.

    Args:
        backbone (nn.Module): Takes images (N, C, H, W).
        size (int): Height and width of the image to run it on.
            Defaults to 64.

    Returns:
        dict[str, str]: Name of the feature to name of the module.
    """
    if isinstance(backbone, FishNet):
        return dict(
            stem='stem',
            **{spec.name: f'{spec.name}.refine'
               for spec in backbone.specs})

    stages, running = {}, []
    names = {module: name for name, module in backbone.named_modules()}

    def before(module, args):
        running.append(module)

    def after(module, args, output):
        running.pop()
        outermost = running == [backbone]
        whole = isinstance(module, POOLS) or any(module.children())
        if outermost and whole and isinstance(output, Tensor) \
                and output.dim() == 4:
            stages[names[module]] = names[module]

    with ExitStack() as hooks, torch.no_grad(), \
            keep_modes(backbone, train=False):
        for module in backbone.modules():
            hooks.enter_context(_removing(
                module.register_forward_pre_hook(before)))
            hooks.enter_context(_removing(module.register_forward_hook(after)))
        backbone(make_image(backbone, size))
    return stages


@contextmanager
def _removing(handle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def make_image(backbone: nn.Module, size: int) -> Tensor:
    """Draw an image from the normal distribution (seed 0).

    Args:
        backbone (nn.Module): Tells the channels, device and dtype.
        size (int): Height and width.

    Returns:
        Tensor: (1, C, ``size``, ``size``).
    """
    like = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(
        1, image_channels(backbone), size, size, generator=generator).to(like)


@contextmanager
def _caught(backbone: nn.Module, stages: dict[str, str]
            ) -> Iterator[dict[str, Tensor]]:
    """Catch the outputs of the named modules in a dict, by feature."""
    caught = {}
    modules = dict(backbone.named_modules())
    unknown = [name for name in stages.values() if name not in modules]
    if unknown:
        children = ', '.join(name for name, _ in backbone.named_children())
        raise ValueError(f'{type(backbone).__name__} has no module '
                         f'{", ".join(unknown)}; it has {children} and what '
                         'is in them.')

    def catch(name):

        def hook(module, args, output):
            caught[name] = output

        return hook

    with ExitStack() as hooks:
        for name, module in stages.items():
            hooks.enter_context(
                _removing(modules[module].register_forward_hook(catch(name))))
        yield caught


def examine(backbone: nn.Module,
            size: int = 64,
            stages: dict[str, str] | None = None) -> DirectBP:
    """Find the direct paths and the isolated convolutions of a backbone.

    Args:
        backbone (nn.Module): Takes images (N, C, H, W) and returns a feature
            map or several. It is run once, in evaluation mode.
        size (int): Height and width of the image to run it on; the result
            does not depend on it. Defaults to 64.
        stages (dict[str, str], optional): Features to look at: name to name
            of the module that returns it. Defaults to None, for
            :func:`find_stages`.

    Returns:
        DirectBP: The result.

    Raises:
        ValueError: If there is no module of a given name, or the backbone
            uses reentrant checkpointing, which hides the graph.
    """
    stages = find_stages(backbone, size) if stages is None else stages
    names = {param: name for name, param in backbone.named_parameters()}
    image = make_image(backbone, size).requires_grad_()
    with _all_trained(backbone), _caught(backbone, stages) as tensors:
        outputs = _outputs(backbone, image)
    nodes = {name: tensor.grad_fn for name, tensor in tensors.items()}

    returned = []
    for output in outputs:
        name = next((n for n, node in nodes.items() if node is output.grad_fn),
                    None)
        if name is None:
            name = f'output{len(returned)}' if len(outputs) > 1 else 'output'
            tensors[name], nodes[name] = output, output.grad_fn
        returned.append(name)

    graph = AutogradGraph([*nodes.values()], image, names)
    tensors = dict(image=image, **tensors)
    nodes = dict(image=graph.image, **nodes)
    named = {node: name for name, node in nodes.items()}
    convs, links, isolated = {}, {}, {}
    for after, start in nodes.items():
        for node, cost in graph.fewest(graph.down, start).items():
            if node in named and node is not start:
                convs[after, named[node]] = cost
        below = graph.fewest(graph.down, start, stops=named)
        for end, cost in below.items():
            if end not in named or end is start:
                continue
            links[after, named[end]] = cost
            if not cost:
                continue
            above = graph.fewest(graph.up, end, stops=named)
            for node, module in graph.weights.items():
                if (node is not end and node in below and node in above
                        and below[node] + above[node] == cost):
                    before, followers = isolated.setdefault(module, ({}, {}))
                    before[named[end]] = followers[after] = None

    place = {name: i for i, (name, _) in enumerate(backbone.named_modules())}
    weighted = sorted(set(graph.weights.values()), key=place.get)
    return DirectBP(
        features=tuple(
            Feature(name, stages.get(name, ''), tensor.shape[1],
                    round(size / tensor.shape[2]))
            for name, tensor in tensors.items()),
        outputs=tuple(returned),
        convs=convs,
        links=links,
        isolated=tuple(
            IsolatedConv(module, *map(tuple, isolated[module]))
            for module in sorted(isolated, key=place.get)),
        weighted=tuple(weighted))


def measure_gradients(backbone: nn.Module,
                      report: DirectBP,
                      images: Tensor,
                      grad_outputs: list[Tensor] | None = None,
                      messages: bool = False,
                      isolated: bool = True) -> dict[str, Tensor]:
    """Back-propagate for real, with messages or isolated convolutions off.

    Args:
        backbone (nn.Module): What was examined. It runs in evaluation mode.
        report (DirectBP): What :func:`examine` found.
        images (Tensor): (N, C, H, W).
        grad_outputs (list[Tensor], optional): Gradients of the outputs.
            Defaults to None, for normally distributed ones (seed 0).
        messages (bool): Whether convolutions that are not isolated keep
            their weights; otherwise these are zero for the time of the call.
            Defaults to False.
        isolated (bool): Whether isolated convolutions let the gradient pass;
            otherwise they only compute forwards. Defaults to True.

    Returns:
        dict[str, Tensor]: The gradient of each feature, the image included.
    """
    modules = dict(backbone.named_modules())
    alone = {conv.module for conv in report.isolated}
    stages = {f.name: f.module for f in report.features if f.module}
    images = images.clone().requires_grad_()
    with ExitStack() as stack:
        stack.enter_context(_all_trained(backbone))
        if not messages:
            stack.enter_context(
                _zeroed([
                    modules[name].weight for name in report.weighted
                    if name not in alone
                ]))
        if not isolated:
            for name in alone:
                stack.enter_context(
                    _removing(modules[name].register_forward_pre_hook(
                        lambda module, args:
                        (args[0].detach(), *args[1:]))))
        tensors = stack.enter_context(_caught(backbone, stages))
        outputs = _outputs(backbone, images)
        tensors = dict(image=images, **tensors)
        tensors.update(zip(report.outputs, outputs))
        if grad_outputs is None:
            generator = torch.Generator().manual_seed(0)
            grad_outputs = [
                torch.randn(output.shape, generator=generator).to(output)
                for output in outputs
            ]
        gradients = torch.autograd.grad(
            outputs, [*tensors.values()], grad_outputs, allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(tensors.items(), gradients)
    }


@contextmanager
def _zeroed(params: list[Tensor]) -> Iterator[None]:
    saved = [param.detach().clone() for param in params]
    try:
        with torch.no_grad():
            for param in params:
                param.zero_()
        yield
    finally:
        with torch.no_grad():
            for param, value in zip(params, saved):
                param.copy_(value)
