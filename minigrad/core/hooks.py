"""Hooks on gradients: functions that the walk calls with the gradient of a node or leaf.

Here too is the check of gradients that come from outside: what a hook returns, and what is assigned to `.grad`.
"""
from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from ..devices.memory import Array, Layout
from .modes import changed
from .shape import fail

_hook_ids = itertools.count()
_LAST = float("inf")            # the key of the hook of `retain_grad`: hooks run in the order of their keys


class RemovableHandle:
    """What registering a hook returns. `remove()`, or the end of a `with` block, removes the hook."""

    def __init__(self, table: dict, emptied: Callable[[dict], None] | None = None) -> None:
        self.table, self.id, self.emptied = table, next(_hook_ids), emptied

    def remove(self) -> None:
        """Removes the hook; a second time does nothing."""
        self.table.pop(self.id, None)
        if self.emptied is not None and not self.table:
            self.emptied(self.table)
        changed()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class HookTable:
    """Hooks of one kind. The edge itself holds them, so that the garbage collector sees a hook that refers to its own
    tensor; the table knows weakly which edges have some."""

    def __init__(self) -> None:
        self.tables: dict[int, weakref.ref] = {}        # by the id of the edge; empty: the walk skips hooks

    def of(self, edge: Any) -> list[Callable]:
        """The hooks of an edge, in order of registration; that of `retain_grad` is the last."""
        if id(edge) not in self.tables:
            return []
        table = edge._hooks[self]
        return [table[key] for key in sorted(table)]

    def _table(self, edge: Any) -> dict[Any, Callable]:
        key = id(edge)
        if key not in self.tables:
            if not hasattr(edge, "_hooks"):
                edge._hooks = {}
            edge._hooks[self] = {}
            # without bytecode: Ctrl-C cannot arrive while the entry is removed, where it is ignored
            self.tables[key] = weakref.ref(edge, partial(self.tables.pop, key))
        return edge._hooks[self]

    def add(self, edge: Any, function: Callable) -> RemovableHandle:
        """Registers a hook."""
        table = self._table(edge)
        at = self.tables[id(edge)]

        def emptied(table: dict) -> None:
            self._drop(at(), table)
        handle = RemovableHandle(table, emptied)
        table[handle.id] = function
        changed()
        return handle

    def retain(self, edge: Any, function: Callable) -> None:
        """Registers the hook of `retain_grad`: one for each edge."""
        self._table(edge)[_LAST] = function

    def release(self, edge: Any) -> None:
        """Removes that hook."""
        table = edge._hooks[self]
        del table[_LAST]
        self._drop(edge, table)

    def _drop(self, edge: Any, table: dict) -> None:
        """Forgets the table of an edge if it is empty, so that walks skip hooks again."""
        if edge is not None and not table and edge._hooks.get(self) is table:
            del edge._hooks[self], self.tables[id(edge)]

    def retains(self, edge: Any) -> bool:
        """Has it such a hook?"""
        return id(edge) in self.tables and _LAST in edge._hooks[self]


hooks = HookTable()             # on the gradient of an edge: function(grad) -> grad or None
post_hooks = HookTable()        # on a leaf whose .grad was just added to: function(leaf)
node_pre_hooks = HookTable()    # before the backward of a node: function(grad_outputs) -> tuple or None
node_hooks = HookTable()        # after it: function(grad_inputs, grad_outputs) -> tuple or None


def after_hooks(edge: Any, g: Any) -> Any:
    """A gradient after the hooks of its edge."""
    for function in hooks.of(edge):
        changed = function(g)
        if changed is not None:
            g = fitting("register_hook", "what a hook returns", changed, g.array.layout)
    return g


def fitting(op: str, what: str, value: Any, layout: Layout) -> Any:
    """`value`, if it may be a gradient of what has this layout: a tensor of its shape, dtype and device."""
    if not isinstance(getattr(value, "array", None), Array):
        fail(op, f"{what} must be a tensor or None", type(value).__name__, kind=TypeError)
    have = value.array.layout
    for name in ("shape", "dtype", "device"):
        if getattr(have, name) != getattr(layout, name):
            fail(op, f"{what} must have the {name} of the tensor", [layout, have] if name != "device" else
                 [layout.device, have.device], "convert it with .to(device, dtype)" if name != "shape" else "")
    return value
