# Copyright (c) mmfishnet authors. All rights reserved.
"""The graph that autograd recorded, from the outputs to the image."""
from __future__ import annotations

from collections import deque

from torch import Tensor


class AutogradGraph:
    """The part of autograd's graph between the image and the outputs.

    Args:
        roots (list[Node]): Nodes of the outputs.
        image (Tensor): The leaf at which paths end.
        names (dict[Tensor, str]): Names of the parameters.
    """

    def __init__(self, roots: list, image: Tensor,
                 names: dict[Tensor, str]) -> None:
        children, order = {}, []
        stack = [(root, False) for root in roots]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in children:
                if 'CheckpointFunction' in node.name():
                    raise ValueError(
                        'the graph is cut by reentrant checkpointing; build '
                        'the backbone with with_cp=False.')
                children[node] = [n for n, _ in node.next_functions if n]
                stack.append((node, True))
                stack.extend((child, False) for child in children[node])

        # In post-order, so that what enters a node is known before it.
        self.image = None
        carries, params = {}, {}
        for node in order:
            leaf = getattr(node, 'variable', None)
            if leaf is image:
                self.image = node
            carries[node] = leaf is image or any(
                carries[child] for child in children[node])
            params[node] = [] if leaf is None or leaf is image else [leaf]
            if not carries[node]:
                params[node] += [
                    p for child in children[node] for p in params[child]
                ]
        self.weights, self.down, self.up = {}, {}, {}
        for node in order:
            if not carries[node]:
                continue
            weights = [
                names[p] for child in children[node] if not carries[child]
                for p in params[child] if p.dim() > 1
            ]
            if weights:
                self.weights[node] = weights[0].rpartition('.')[0]
            self.up.setdefault(node, [])
            self.down[node] = [(child, len(weights) > 0)
                               for child in children[node] if carries[child]]
            for child, weighted in self.down[node]:
                self.up[child].append((node, weighted))

    @staticmethod
    def fewest(edges: dict, start, stops=()) -> dict:
        """Fewest weighted nodes to each node (0-1 breadth-first search).

        Args:
            edges (dict): ``down`` or ``up``; leaving a weighted node
                downwards, or entering it upwards, counts one.
            start (Node): Where to start.
            stops (Container[Node]): Nodes not to go on from.

        Returns:
            dict: From node to number.
        """
        best, queue = {start: 0}, deque([start])
        while queue:
            node = queue.popleft()
            if node in stops and node is not start:
                continue
            for other, weighted in edges[node]:
                cost = best[node] + weighted
                if cost < best.get(other, cost + 1):
                    best[other] = cost
                    (queue.append if weighted else queue.appendleft)(other)
        return best
