"""Leaves with hooks: their gradients are used as soon as they are complete, not when the walk has ended.

So an optimiser in a hook can free each gradient before the next is computed, and hooks run in PyTorch's order. The walk
counts for this how many edges still lead to each leaf. It does so only while some leaf has a hook. Read `watch.py`
first.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from sys import getrefcount
from threading import local
from typing import Any
from weakref import WeakSet

from .hooks import HookTable, after_hooks, hooks, node_hooks, node_pre_hooks, post_hooks
from .modes import mode
from .shape import fail
from .tape import Edge, Node, Variable, reachable
from .watch import through


class _Walks(local):
    """The walks of this thread that count, the innermost last."""

    def __init__(self) -> None:
        self.running: list[LeafCounts] = []


_walks = _Walks()
asking: WeakSet[Any] = WeakSet()    # who wants to know what a walk reaches (`autograd.graph.register_multi_grad_hook`)


def _on_leaf(table: HookTable) -> bool:
    return any([isinstance(r(), Variable) for r in list(table.tables.values())])


class LeafCounts:
    """What a walk counts: how many edges to each leaf it has still to follow. Call `end` after it.

    dependencies    that number, of the leaves whose gradient is not complete
    reaches         the edges that get a gradient, or would if no backward on the way gave None
    collected       what those who ask have collected in this walk
    """

    def __init__(self, order: Collection[Any], roots: Sequence[Edge], useful: set | None) -> None:
        self.dependencies: dict[Edge, int] = {}
        self.collected: dict[Any, Any] = {}
        reached = {*order, *roots}
        for node in order:
            if isinstance(node, Node) and (useful is None or node in useful):
                for edge in node.inputs:
                    if isinstance(edge, Variable) and (useful is None or edge in useful):
                        self.dependencies[edge] = self.dependencies.get(edge, 0) + 1
        reached.update(self.dependencies)
        self.reaches = reached if useful is None else reached & useful
        _walks.running.append(self)

    def end(self) -> None:
        """The walk has ended."""
        _walks.running.remove(self)

    def count_down(self, edges: Sequence[Edge], pending: dict[Edge, Any], kept: dict[Edge, Any],
                   deposit: Callable[[Edge, Any], None] | None) -> None:
        """The backward of a node with these edges has run. Gradients that are complete now go through the hooks of
        their leaves, and then to `deposit`, or else into `kept`."""
        for edge in edges:
            left = self.dependencies.get(edge)
            if left is None:
                continue
            if left > 1:
                self.dependencies[edge] = left - 1
                continue
            del self.dependencies[edge]
            g = pending.pop(edge, None)
            if g is None:
                continue
            if getrefcount(g) > 2 and not mode.grad:        # it is also the gradient of something that is still to come
                g = g.detach()
            g = after_hooks(edge, g)
            if deposit is None:
                kept[edge] = g
            else:
                deposit(edge, g)


def leaf_counts(roots: Sequence[Edge], useful: set | None) -> LeafCounts | None:
    """What a walk counts, if some leaf has a hook or somebody asks what walks reach."""
    if asking or post_hooks.tables or any([_on_leaf(table) for table in (hooks, node_pre_hooks, node_hooks)]):
        return LeafCounts(reachable(list(roots), frozenset()), roots, useful)
    return None


def running() -> LeafCounts | None:
    """The walk that runs in this thread, if it counts."""
    return _walks.running[-1] if _walks.running else None


def before_leaf(leaf: Variable, g: Any) -> Any:
    """A gradient after the hooks that run before the `AccumulateGrad` node of its leaf."""
    return through(node_pre_hooks, leaf, [g])[0]


def after_leaf(leaf: Variable, g: Any) -> None:
    """Calls the hooks of a leaf whose `.grad` was just added to, and those that run after its `AccumulateGrad` node."""
    for function in post_hooks.of(leaf):
        found = function(leaf)
        if found is not None and found is not leaf:         # `lambda p: p.sub_(...)` returns the leaf
            fail("register_post_accumulate_grad_hook", "hooks should return None", "", "assign to p.grad instead")
    through(node_hooks, leaf, (), (g,))
