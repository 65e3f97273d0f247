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

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import networkx as nx
import torch
from torch import Tensor, nn

from mmfishnet.models import FishNet
from mmfishnet.models.built import find_tensors, image_channels, keep_modes

POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Feature:
    """A feature map between the stages of a backbone, or the image."""

    name: str
    module: str  # whose output it is; empty if it is that of no named one
    channels: int
    stride: int  # height of the image over its height


@dataclass(frozen=True)
class IsolatedConv:
    """A convolution without identity or concatenation beside it, on links
    that lead from the features ``before`` to those ``after``."""

    module: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class DirectPaths:
    """What :func:`find_direct_paths` found.

    Attributes:
        features (tuple[Feature]): In the order in which they are computed,
            the image first.
        outputs (tuple[str]): Names of those that the backbone returns.
        convs (dict[tuple[str, str], int]): Fewest convolutions to pass from
            a later to an earlier feature, for all pairs (later, earlier)
            between which there is a path. 0 is direct BP.
        isolated (tuple[IsolatedConv]): The isolated convolutions.
        weighted (tuple[str]): All modules with a convolution's or a linear
            layer's weight on the way from the image to the outputs.
    """

    features: tuple[Feature, ...]
    outputs: tuple[str, ...]
    convs: dict[tuple[str, str], int]
    isolated: tuple[IsolatedConv, ...]
    weighted: tuple[str, ...] = field(repr=False)

    def is_direct(self, later: str, earlier: str) -> bool:
        """Whether a gradient reaches ``earlier`` from ``later`` directly."""
        return self.convs.get((later, earlier)) == 0

    def direct(self) -> tuple[str, ...]:
        """The features that some output reaches directly."""
        return tuple(feature.name for feature in self.features
                     if feature.name in self.outputs or any(
                         self.is_direct(output, feature.name)
                         for output in self.outputs))


def make_image(backbone: nn.Module, size: int) -> Tensor:
    """A square image (1, C, ``size``, ``size``) of the normal distribution
    (seed 0), as the backbone takes them."""
    generator = torch.Generator().manual_seed(0)
    shape = 1, image_channels(backbone), size, size
    return torch.randn(shape, generator=generator).to(
        next(backbone.parameters()))


def find_stages(backbone: nn.Module, size: int = 64) -> dict[str, str]:
    """Choose the features to look at, name to module.

    For FishNet, the stem's and every stage's refined feature. For other
    backbones, what the outermost modules that are called return, if it is a
    feature map and the module pools or has modules of its own: ``maxpool``
    and ``layer1`` to ``layer4`` of a ResNet. They are run on an image of
    height and width ``size``.
    """
    if isinstance(backbone, FishNet):
        refined = {spec.name: f'{spec.name}.refine' for spec in backbone.specs}
        return dict(stem='stem', **refined)

    stages, running = {}, []

    def after(name, module, args, output):
        running.pop()
        whole = isinstance(module, POOLS) or any(module.children())
        if running == [backbone] and whole and isinstance(
                output, Tensor) and output.dim() == 4:
            stages[name] = name

    with ExitStack() as hooks, torch.no_grad(), \
            keep_modes(backbone, train=False):
        for name, module in backbone.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(
                lambda module, args: running.append(module)))
            hooks.enter_context(
                module.register_forward_hook(partial(after, name)))
        backbone(make_image(backbone, size))
    return stages


def _run(backbone: nn.Module, images: Tensor, stages: dict[str, str],
         zero: Iterable[str] = (), cut: Iterable[str] = ()
         ) -> tuple[list[Tensor], dict[str, Tensor], dict[Tensor, str]]:
    """Run a backbone in evaluation mode, with frozen weights in the graph.

    The parameters ``zero`` are taken for zero, and the modules ``cut`` let no
    gradient pass to their input. What comes out is returned, the features,
    and every parameter's stand-in, with its name.
    """
    modules = dict(backbone.named_modules())
    unknown = [name for name in stages.values() if name not in modules]
    if unknown:
        children = ', '.join(name for name, _ in backbone.named_children())
        raise ValueError(f'{type(backbone).__name__} has no module '
                         f'{", ".join(unknown)}; it has {children} and what '
                         'is in them.')
    # Stand-ins, so that nothing of the backbone changes.
    params = {name: param.detach() for name, param in
              backbone.named_parameters()}
    params.update((name, torch.zeros_like(params[name])) for name in zero)
    for param in params.values():
        param.requires_grad_()
    features = dict(image=images)

    def catch(name, module, args, output):
        features[name] = output

    with ExitStack() as stack:
        stack.enter_context(keep_modes(backbone, train=False))
        stack.enter_context(torch.enable_grad())
        for name, module in stages.items():
            stack.enter_context(modules[module].register_forward_hook(
                partial(catch, name)))
        for name in cut:
            stack.enter_context(modules[name].register_forward_pre_hook(
                lambda module, args: (args[0].detach(), *args[1:])))
        # Ours compute in this layout: what they return are the features
        # then, and no copies of them.
        outputs = [*find_tensors(torch.func.functional_call(
            backbone, params,
            images.contiguous(memory_format=torch.channels_last)))]
    return outputs, features, {p: name for name, p in params.items()}


def find_direct_paths(backbone: nn.Module, size: int = 64,
                      stages: dict[str, str] | None = None) -> DirectPaths:
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
        DirectPaths: The result.

    Raises:
        ValueError: If there is no module of a given name, or the backbone
            uses reentrant checkpointing, which hides the graph.
    """
    stages = find_stages(backbone, size) if stages is None else stages
    image = make_image(backbone, size).requires_grad_()
    outputs, features, params = _run(backbone, image, stages)
    names = {tensor.grad_fn: name for name, tensor in features.items()}
    returned = []
    for i, output in enumerate(outputs):
        name = names.setdefault(
            output.grad_fn, f'output{i}' if len(outputs) > 1 else 'output')
        features.setdefault(name, output)
        returned.append(name)

    graph, end, weights = _read_graph(
        [*filter(None, names)], image, params)
    nodes = {name: tensor.grad_fn or end for name, tensor in features.items()}
    names = {node: name for name, node in nodes.items()}
    convs, isolated = {}, {}
    for later, start in nodes.items():
        convs.update(((later, names[node]), cost)
                     for node, cost in _fewest(graph, start).items()
                     if node in names and node is not start)
        below = _fewest(graph, start, stops=names)
        for node in {*below} & {*names} - {start}:
            earlier = names[node]
            cost = below[node]
            above = _fewest(graph.reverse(copy=False), node,
                            stops=names) if cost else {}
            for conv in {*below} & {*above} & {*weights} - {node}:
                if below[conv] + above[conv] == cost:
                    isolated.setdefault(weights[conv], set()).add(
                        (earlier, later))

    place = {name: i for i, (name, _) in enumerate(backbone.named_modules())}
    return DirectPaths(
        tuple(
            Feature(name, stages.get(name, ''), tensor.shape[1],
                    round(size / tensor.shape[2]))
            for name, tensor in features.items()), tuple(returned), convs,
        tuple(IsolatedConv(module, *(
                  tuple(name for name in nodes if name in side)
                  for side in zip(*isolated[module])))
              for module in sorted(isolated, key=place.get)),
        tuple(sorted(set(weights.values()), key=place.get)))


def measure_gradients(backbone: nn.Module, paths: DirectPaths, images: Tensor,
                      grad_outputs: list[Tensor] | None = None,
                      isolated: bool = True) -> dict[str, Tensor]:
    """Back-propagate for real, with messages or isolated convolutions off.

    Args:
        backbone (nn.Module): What was examined. It runs in evaluation mode,
            the weights of all but the isolated convolutions taken for zero.
        paths (DirectPaths): What :func:`find_direct_paths` found.
        images (Tensor): (N, C, H, W).
        grad_outputs (list[Tensor], optional): Gradients of the outputs.
            Defaults to None, for normally distributed ones (seed 0).
        isolated (bool): Whether isolated convolutions let the gradient pass;
            otherwise they only compute forwards. Defaults to True.

    Returns:
        dict[str, Tensor]: The gradient of each feature, the image included.
    """
    alone = {conv.module for conv in paths.isolated}
    outputs, features, _ = _run(
        backbone, images.clone().requires_grad_(),
        {f.name: f.module for f in paths.features if f.module},
        zero=[f'{n}.weight' for n in paths.weighted if n not in alone],
        cut=() if isolated else alone)
    tensors = {**features, **dict(zip(paths.outputs, outputs))}
    if grad_outputs is None:
        generator = torch.Generator().manual_seed(0)
        grad_outputs = [
            torch.randn(output.shape, generator=generator).to(output)
            for output in outputs
        ]
    gradients = torch.autograd.grad(
        outputs, [*tensors.values()], grad_outputs, allow_unused=True)
    return {name: torch.zeros_like(tensor) if gradient is None else gradient
            for (name, tensor), gradient in zip(tensors.items(), gradients)}


def _read_graph(roots: list, image: Tensor, params: dict[Tensor, str]
                ) -> tuple[nx.DiGraph, object, dict]:
    """Read what autograd recorded between the nodes ``roots`` and the image.

    Returns:
        tuple[DiGraph, Node, dict[Node, str]]: The graph, whose edges lead
        towards the image and have ``convs=1`` where they leave a weighted
        node, else 0; the node of the image; the weighted nodes, with the
        names of their modules.
    """
    graph, stack = nx.DiGraph(), [*roots]
    while stack:
        node = stack.pop()
        if 'CheckpointFunction' in node.name():
            raise ValueError(
                'the graph is cut by reentrant checkpointing; build the '
                'backbone with with_cp=False.')
        children = [child for child, _ in node.next_functions if child]
        stack += [child for child in children if child not in graph]
        graph.add_edges_from((node, child) for child in children)
    leaves = {node: node.variable for node in graph
              if hasattr(node, 'variable')}
    end = next(node for node, leaf in leaves.items() if leaf is image)
    # What does not carry the image carries parameters.
    carrying = nx.ancestors(graph, end) | {end}
    weights = {}
    for node in carrying:
        beside = {*graph[node]} - carrying
        beside = beside.union(*(nx.descendants(graph, n) for n in beside))
        names = [params[leaves[n]] for n in beside
                 if n in leaves and leaves[n].dim() > 1]
        if names:
            weights[node] = min(names).rpartition('.')[0]
    paths = nx.DiGraph()
    paths.add_edges_from((node, child, dict(convs=int(node in weights)))
                         for node, child in graph.subgraph(carrying).edges)
    return paths, end, weights


def _fewest(graph: nx.DiGraph, start, stops=()) -> dict:
    """Fewest convolutions to each node, not going on from ``stops``."""
    return nx.single_source_dijkstra_path_length(
        nx.subgraph_view(graph, filter_edge=lambda node, child:
                         node is start or node not in stops),
        start, weight='convs')
