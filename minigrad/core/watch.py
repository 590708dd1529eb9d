"""The backward of one node with what surrounds it: the node's hooks, and those who watch every node.

Read `hooks.py` first. The walk comes here only while there is a hook of a node or a watcher.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .hooks import HookTable, RemovableHandle, node_hooks, node_pre_hooks
from .shape import fail


def through(table: HookTable, node: Any, gradients: Any, *outputs: Any) -> Any:
    """The gradients of a node's outputs (or inputs) after its hooks, as a list."""
    for function in table.of(node):
        returned = function(tuple(gradients), *outputs)
        if returned is not None:
            by = "register_hook" if outputs else "register_prehook"
            if not isinstance(returned, tuple):
                fail(by, "a hook must return a tuple or None", type(returned).__name__, "return (gradient,)", TypeError)
            if len(returned) != len(gradients):
                fail(by, "a hook must return as many gradients as it got", f"{len(returned)} for {len(gradients)}")
            gradients = returned
    return list(gradients)


Watcher = Callable[[Any, list, Callable[[], Any]], Any]
watchers: dict[int, Watcher] = {}           # by the ids of their handles


def watch_backward(watcher: Watcher) -> RemovableHandle:
    """Until the handle is removed, `watcher(node, gradients, run)` is called in the place of each node's backward.

    `gradients` has one for each output (None where it is not needed); the watcher returns what `run()` returns, the
    gradients of the inputs. Studies and anomaly detection use it; while nobody watches, it costs nothing.
    """
    handle = RemovableHandle(watchers)
    watchers[handle.id] = watcher
    return handle


def backward_with_hooks(node: Any, g: Any, needs: Any) -> Any:
    """The backward of a node, with its hooks before and after it, seen by those who watch."""
    several = type(g) is list
    given = through(node_pre_hooks, node, g if several else [g])
    run = partial(node.op.backward, node, given if several else given[0], needs)
    for watcher in list(watchers.values()):
        run = partial(watcher, node, given, run)
    return through(node_hooks, node, run(), tuple(given))
