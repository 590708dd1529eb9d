"""Hooks on gradients: functions that the walk calls with the gradient of a node or leaf."""
from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

_hook_ids = itertools.count()


class RemovableHandle:
    """What registering a hook returns. `remove()`, or the end of a `with` block, removes the hook."""

    def __init__(self, table: dict) -> None:
        self.table, self.id = table, next(_hook_ids)

    def remove(self) -> None:
        """Removes the hook; a second time does nothing."""
        self.table.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class HookTable:
    """Hooks of edges, which are kept weakly and found by identity (`==` of tensors is elementwise)."""

    def __init__(self) -> None:
        self.tables: dict[int, tuple[weakref.ref, dict[int, Callable]]] = {}    # empty: the walk skips hooks

    def of(self, edge: Any) -> list[Callable]:
        """The hooks of an edge, in order of registration."""
        found = self.tables.get(id(edge))
        return list(found[1].values()) if found else []

    def add(self, edge: Any, function: Callable) -> RemovableHandle:
        """Registers a hook."""
        key = id(edge)
        if key not in self.tables:
            self.tables[key] = (weakref.ref(edge, lambda _: self.tables.pop(key, None)), {})
        table = self.tables[key][1]
        handle = RemovableHandle(table)
        table[handle.id] = function
        return handle


hooks = HookTable()             # on the gradient of an edge: function(grad) -> grad or None
post_hooks = HookTable()        # on a leaf whose .grad was just added to: function(leaf)
