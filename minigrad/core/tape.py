"""The tape: what it knows of a tensor (`Variable`), and its nodes. Read `shape.py` and `modes.py` first.

A `Node` is one recorded op. It has an edge for each input: the node that made the input, the leaf tensor itself, or
None where no gradient is asked for. Nodes do not refer to their outputs, and a saved output is kept as an array, which
is wrapped again when it is used. So there are no reference cycles, and dropping the loss frees the graph at once.
"""
from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from ..devices.memory import Array, Layout
from .graph_node import GraphNode

_new = object.__new__


class Variable:
    """What the tape knows of a tensor. `node` is the op that made it, None for a leaf.

    Code of this package reads and sets `_requires_grad` and `_grad`; properties of `Tensor` check what users assign.
    """

    __slots__ = {
        "array": "the array: memory, and the layout under which it is seen",
        "node": "the node of the op that made it, or None for a leaf; of several outputs, the `Slot` of this one",
        "_requires_grad": "are gradients wanted, or computed on the way to what wants them?",
        "_grad": "the gradient, a tensor of the same shape, once `backward` has filled it; else None",
        "_hooks": "its hooks, by their `HookTable`; not set where there are none",
        "source": "set for a view: the tensor that it is a view of, or a text that says why changes of it are refused; "
                  "None for a leaf that no longer requires gradients",
        "__weakref__": ""}
    array: Array
    node: Any
    _requires_grad: bool
    _grad: Any
    source: Any


# ---- the tape --------------------------------------------------------------------------------------------------------

FREED: Any = ("freed",)                 # what `saved` is after a backward pass that does not retain the graph
Edge = Any                              # Node | Slot | Variable (a leaf) | None
next_in_sequence = itertools.count(0, -1).__next__      # counts down: a heap gives the newest first


class Node(GraphNode):
    """One recorded op: how the gradient of its output becomes those of its inputs. Made by `recorded`.

    `saved` is what `op.backward` uses (afterwards FREED, unless empty), `version` the sum of its version counters,
    `layout` that of the output (a tuple for several outputs), `out` the output's array if the derivative uses it.
    `needs[i]` says that input i has an edge; `needs` is None where that was not known at recording.
    """

    __slots__ = ("op", "inputs", "saved", "version", "layout", "out", "attrs", "needs", "seq", "_hooks", "__weakref__")
    op: Any
    inputs: Sequence[Edge]
    saved: Any
    version: int
    layout: Any
    out: Array | None
    attrs: dict | None
    needs: Sequence[bool] | None
    seq: int


class Slot:
    """Output number `index` of a node with several outputs, whose backward takes a list of gradients."""

    __slots__ = ("inputs", "index", "layout", "seq", "_hooks", "__weakref__")

    def __init__(self, node: Node, index: int, layout: Layout) -> None:
        self.inputs, self.index, self.layout = (node,), index, layout
        self.seq = next_in_sequence()

    @property
    def op(self) -> Any:
        """The op of its node."""
        return self.inputs[0].op

    def as_output(self) -> tuple[Any, int]:
        """Its node and its number, as a user sees them."""
        return self.inputs[0].as_output()[0], self.index


observers: list[Callable[[Node], None]] = []        # called with each new node; append a function to subscribe


def recorded(op: Any, inputs: Sequence[Edge], layout: Any, saved: Any = (), version: int = 0, out: Array | None = None,
             attrs: dict | None = None, needs: Sequence[bool] | None = None) -> Node:
    """A new node. Every node is made here, and shown to the observers (anomaly detection is one)."""
    node = _new(Node)
    node.op, node.inputs = op, inputs               # in pairs: Python makes no tuple of two
    node.layout, node.saved = layout, saved
    node.version, node.out = version, out
    node.attrs, node.needs = attrs, needs
    node.seq = next_in_sequence()
    if observers:
        for observe in observers:
            observe(node)
    return node


locators: list[Callable[[Edge], str]] = []          # they say where a node or leaf belongs, for messages


def located(edge: Edge) -> str:
    """Where a node or leaf belongs (" of model.1 (Linear)"), by the newest locator that knows; else an empty string."""
    return next((found for locate in reversed(locators) if (found := locate(edge))), "")


def edge_of(t: Variable) -> Edge:
    """The node that made a tensor, or the tensor itself if it is a leaf."""
    return t.node if t.node is not None else t


def reachable(roots: list[Edge], stop: frozenset) -> list[Any]:
    """All nodes that lead to the roots, oldest first; the search ends at the nodes in `stop`."""
    seen = set()
    stack = [r for r in roots if not isinstance(r, Variable)]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            if node not in stop:
                stack += [e for e in node.inputs if e is not None and not isinstance(e, Variable) and e not in seen]
    return sorted(seen, key=attrgetter("seq"), reverse=True)
