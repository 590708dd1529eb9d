"""The tape: what it knows of a tensor (`Variable`), the nodes that it is made of, recording modes, hooks.

A `Node` is one recorded op. Its `inputs` are edges, one per input: the node that made the input, the leaf tensor itself, or
None where no gradient is asked for. Nodes do not refer to their outputs, and a saved output is kept as a bare array that is
wrapped again when it is needed: there are no reference cycles, and dropping the loss frees the graph at once.

`recorded` makes every node. Observers (anomaly detection, study) subscribe to it by `observers.append(function)`.
"""
from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ..devices.memory import Array, Layout

_new = object.__new__


class Variable:
    """What the tape knows of a tensor: its array, the node that made it (None for a leaf), whether it requires a gradient, and its
    gradient."""

    __slots__ = ("array", "node", "requires_grad", "grad", "__weakref__")
    array: Array
    node: Any
    requires_grad: bool
    grad: Any


# ---- modes ----------------------------------------------------------------------------------------------------------

class Mode(threading.local):
    """Switches. Each thread has its own

    * `grad`: operations are recorded;
    * `recompute`: a checkpointed block is being run again;
    * `recorder`: the active capture, or None; layers and optimisers report their use to it.

    The whole process shares (set on the class)

    * `fused`: whether fused kernels are used ("auto", "off", "require");
    * `bindings`: a counter, raised when a tensor gets other memory or a module other members; captured programs then check theirs.
    """

    grad = True
    recompute = False
    fused = "auto"
    bindings = 0
    recorder: Any = None


mode = Mode()
paused: set[int] = set()        # the threads in which recording may be off: while empty, nobody needs to read `mode.grad`


def set_recording(on: bool) -> bool:
    """Switches recording on or off in this thread, and returns what it was. `mode.grad` is set here only.

    Reading a thread-local attribute takes 40 ns, so the hot path asks `not paused or mode.grad`.
    """
    before = mode.grad
    if on is not before:
        mode.grad = on
        (paused.discard if on else paused.add)(threading.get_ident())
    return before


class set_grad_enabled:
    """Switches recording on or off: as a call, a context manager or a decorator."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = bool(enabled)
        self.before = set_recording(self.enabled)

    def __enter__(self) -> None:
        set_recording(self.enabled)

    def __exit__(self, *_: object) -> None:
        set_recording(self.before)

    def __call__(self, function: Callable) -> Callable:
        set_recording(self.before)      # a decorator: nothing to switch until the function runs
        return _decorated(lambda: set_grad_enabled(self.enabled), function)


class _Switch:
    """A mode for the length of a `with` block or of a decorated function."""

    enabled = True

    def __new__(cls, function: Callable | None = None) -> Any:
        self = super().__new__(cls)
        return self if function is None else self(function)

    def __enter__(self) -> None:
        self.before = set_recording(self.enabled)

    def __exit__(self, *_: object) -> None:
        set_recording(self.before)

    def __call__(self, function: Callable) -> Callable:
        return _decorated(type(self), function)


class no_grad(_Switch):
    """Inside, nothing is recorded."""

    enabled = False


class enable_grad(_Switch):
    """Inside, ops are recorded, also within `no_grad`."""


class inference_mode(_Switch):
    """`no_grad`; tensors made inside may still be used outside (`inference_mode(False)` records)."""

    enabled = False

    def __new__(cls, function: Callable | bool | None = None) -> Any:
        if isinstance(function, bool):
            self = super().__new__(cls)
            self.enabled = not function
            return self
        return super().__new__(cls, function)

    def __call__(self, function: Callable) -> Callable:
        return _decorated(lambda: inference_mode(not self.enabled), function)


def _decorated(switch: Callable[[], Any], function: Callable) -> Callable:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with switch():
            return function(*args, **kwargs)
    return run


def is_grad_enabled() -> bool:
    return mode.grad


# ---- the tape -------------------------------------------------------------------------------------------------------
FREED: Any = ("freed",)
Edge = Any                              # Node | Slot | Variable (a leaf) | None
next_in_sequence = itertools.count(0, -1).__next__       # counts down: a heap gives the newest first


class Node:
    """One recorded op: how to carry the gradient of its output on to its inputs. Made by `recorded`.

    `saved` is what `op.backward` asked to keep (FREED once used up), `version` the sum of the version counters of what is saved,
    `layout` that of the output (a tuple for several outputs), `out` the output's array if the op's derivative uses it. `needs[i]`
    says that input i has an edge; None where that was not known at recording.
    """

    __slots__ = ("op", "inputs", "saved", "version", "layout", "out", "attrs", "needs", "seq", "__weakref__")
    op: Any
    inputs: Sequence[Edge]
    saved: Any
    version: int
    layout: Any
    out: Array | None
    attrs: dict | None
    needs: Sequence[bool] | None
    seq: int

    @property
    def next_functions(self) -> tuple[tuple[Edge, int], ...]:
        """(node or leaf, output index) for each input, as PyTorch's `grad_fn.next_functions`."""
        return tuple((e.inputs[0], e.index) if type(e) is Slot else (e, 0) for e in self.inputs)

    def name(self) -> str:
        return f"{self.op.name}_backward"

    def __repr__(self) -> str:
        return f"<{self.name()}>"


class Slot:
    """Output number `index` of a node with several outputs. The node then takes a list of gradients."""

    __slots__ = ("inputs", "index", "layout", "seq", "__weakref__")

    def __init__(self, node: Node, index: int, layout: Layout) -> None:
        self.inputs, self.index, self.layout = (node,), index, layout
        self.seq = next_in_sequence()

    @property
    def op(self) -> Any:
        return self.inputs[0].op

    @property
    def next_functions(self) -> tuple:
        return self.inputs[0].next_functions

    def name(self) -> str:
        return self.inputs[0].name()

    def __repr__(self) -> str:
        return repr(self.inputs[0])


observers: list[Callable[[Node], None]] = []        # called with each node as it is recorded


def recorded(op: Any, inputs: Sequence[Edge], layout: Any, saved: Any = (), version: int = 0, out: Array | None = None,
             attrs: dict | None = None, needs: Sequence[bool] | None = None) -> Node:
    """The node of one operation: the only place where nodes are made."""
    node = _new(Node)
    node.op = op
    node.inputs = inputs
    node.layout = layout
    node.saved = saved
    node.version = version
    node.out = out
    node.attrs = attrs
    node.needs = needs
    node.seq = next_in_sequence()
    if observers:
        for observe in observers:
            observe(node)
    return node


locators: list[Callable[[Edge], str]] = []          # asked where a node or leaf belongs, for messages


def located(edge: Edge) -> str:
    """Where a node or leaf belongs (" of model.1 (Linear)"), by the newest locator that knows; else empty."""
    return next((found for locate in reversed(locators) if (found := locate(edge))), "")


# ---- hooks ----------------------------------------------------------------------------------------------------------

class HookTable:
    """Hooks of edges. An edge is kept weakly and by identity, since == of tensors is elementwise. An empty table costs the walk nothing."""

    def __init__(self) -> None:
        self.tables: dict[int, tuple[weakref.ref, dict[int, Callable]]] = {}

    def of(self, edge: Edge) -> list[Callable]:
        found = self.tables.get(id(edge))
        return list(found[1].values()) if found else []

    def add(self, edge: Edge, function: Callable) -> RemovableHandle:
        key = id(edge)
        if key not in self.tables:
            self.tables[key] = (weakref.ref(edge, lambda _: self.tables.pop(key, None)), {})
        table = self.tables[key][1]
        handle = RemovableHandle(table)
        table[handle.id] = function
        return handle


hooks = HookTable()             # on the gradient of an edge: function(grad) -> grad or None
post_hooks = HookTable()        # on a leaf whose .grad was just added to: function(leaf)
_hook_ids = itertools.count()


class RemovableHandle:
    """What registering a hook returns: `remove()`, or the end of a `with` block, removes the hook."""

    def __init__(self, table: dict) -> None:
        self.table, self.id = table, next(_hook_ids)

    def remove(self) -> None:
        self.table.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def edge_of(t: Variable) -> Edge:
    """The node that made a tensor, or the leaf itself."""
    return t.node if t.node is not None else t
