"""The tape and the walk: nodes, recording modes, `backward`, `grad`, hooks.

A `Node` is one recorded op. Its `inputs` are edges, one per input: the node that made the input, the leaf tensor
itself, or None where no gradient is asked for. Nodes know nothing of their outputs, and a saved output is kept as a
bare array and wrapped again when it is needed: there are no cycles, and dropping the loss frees the graph at once.

The walk is a loop that takes the newest node next (`seq`): reverse order of creation is a topological order.
"""
from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from heapq import heapify, heappop, heappush
from sys import getrefcount
from typing import TYPE_CHECKING, Any

from .memory import Array, Buffer, Layout
from .shape import fail

if TYPE_CHECKING:
    from .tensor import Tensor

sequence = itertools.count(0, -1)      # counts down: a heap gives the newest first


class Mode(threading.local):
    """Switches, of each thread its own: `grad`, is the tape recording; `recompute`, does a checkpointed block run again; `recorder`, the
    capture under way, to which layers and optimisers tell that they were met. One for the process: `fused`, are kernels used ("auto",
    "off", "require"); `bindings`, counted up when a tensor gets other memory or a module other members (captured programs look again)."""

    grad = True
    recompute = False
    fused = "auto"
    bindings = 0
    recorder: Any = None


mode = Mode()


class set_grad_enabled:
    """Switches recording on or off: as a call, a context manager or a decorator."""

    def __init__(self, enabled: bool) -> None:
        self.enabled, self.before = bool(enabled), mode.grad
        mode.grad = self.enabled

    def __enter__(self) -> None:
        mode.grad = self.enabled

    def __exit__(self, *_: object) -> None:
        mode.grad = self.before

    def __call__(self, function: Callable) -> Callable:
        mode.grad = self.before         # a decorator: nothing to switch until the function runs
        return _decorated(lambda: set_grad_enabled(self.enabled), function)


class _Switch:
    """A mode for the length of a `with` block or of a decorated function."""

    enabled = True

    def __new__(cls, function: Callable | None = None) -> Any:
        self = super().__new__(cls)
        return self if function is None else self(function)

    def __enter__(self) -> None:
        self.before = mode.grad
        mode.grad = self.enabled

    def __exit__(self, *_: object) -> None:
        mode.grad = self.before

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
Edge = Any      # Node | Slot | Tensor (a leaf) | None


class Node:
    """One recorded op: how to carry the gradient of its output on to its inputs.

    `saved` is what `op.backward` asked to be kept (FREED once used up), `version` the sum of the version counters of
    what is saved, `layout` that of the output, `out` the output's array if the op's derivative uses it.
    """

    __slots__ = ("op", "inputs", "saved", "version", "layout", "out", "attrs", "needs", "seq", "__weakref__")

    def __init__(self, op: Any, inputs: Sequence[Edge], layout: Any, saved: Any = (), version: int = 0,
                 out: Array | None = None, attrs: dict | None = None) -> None:
        self.op = op
        self.inputs = inputs
        self.layout = layout
        self.saved = saved
        self.version = version
        self.out = out
        self.attrs = attrs
        self.needs: Sequence[bool] | None = None        # which inputs have an edge, where whoever recorded it knows
        self.seq = next(sequence)

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
        self.seq = next(sequence)

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


# what the core needs of ops and may not import: set by ops/__init__.py
add: Callable[[Any, Any], Any]
add_: Callable[[Any, Any], Any]
sum_to: Callable[[Any, Layout], Any]
cast: Callable[[Any, Any], Any]
clone: Callable[[Any], Any]
transfer: Callable[..., Any]
as_tensor: Callable[[Any], Any]
empty: Callable[..., Any]
ones_like: Callable[[Any], Any]
located: Callable[[Any], str] = lambda edge: ""      # noqa: E731 (where a node or leaf belongs, for messages: set by nn/module.py)

class HookTable:
    """Hooks by edge, weakly and by identity (a tensor's == is elementwise); empty, it costs the walk nothing."""

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
    """What registering a hook returns; `remove()` takes the hook away."""

    def __init__(self, table: dict) -> None:
        self.table, self.id = table, next(_hook_ids)

    def remove(self) -> None:
        self.table.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _hooked(edge: Edge, g: Tensor) -> Tensor:
    for function in hooks.of(edge):
        changed = function(g)
        if changed is not None:
            if changed.array.layout.shape != g.array.layout.shape:
                fail("register_hook", "a hook must return a gradient of the same shape", [g.array.layout, changed.array.layout])
            g = changed
    return g


def keep_grad(t: Tensor) -> None:
    """A hook that stores the gradient in `t.grad`, without keeping `t` alive."""
    reference = weakref.ref(t)

    def store(g: Tensor) -> None:
        alive = reference()
        if alive is not None:
            alive.grad = g if alive.grad is None else add(alive.grad, g)
    hooks.add(edge_of(t), store)


# ---- the walk -------------------------------------------------------------------------------------------------------

def _reachable(roots: list[Edge], stop: frozenset) -> list[Any]:
    """All nodes behind the roots, oldest first, not looking behind those in `stop`."""
    seen = set()
    stack = [r for r in roots if type(r) is Node or type(r) is Slot]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            if node in stop:
                continue
            for edge in node.inputs:
                if (type(edge) is Node or type(edge) is Slot) and edge not in seen:
                    stack.append(edge)
    return sorted(seen, key=_age, reverse=True)


def _age(node: Any) -> int:
    return node.seq


def _useful(order: list[Any], targets: frozenset) -> set:
    """The nodes from which a target can be reached, targets included."""
    useful = set(targets)
    for node in order:
        if node not in useful and any(e is not None and e in useful for e in node.inputs):
            useful.add(node)
    return useful


def fit(g: Tensor, to: Layout) -> Tensor:
    """A gradient in the shape and dtype of what it belongs to: broadcasting is undone here, once for all ops."""
    have = g.array.layout
    if have.shape != to.shape:
        g = sum_to(g, to)
    return g if have.dtype is to.dtype or have.dtype == to.dtype else cast(g, to.dtype)


_NOTHING: frozenset = frozenset()


def walk(roots: list[Edge], gradients: list[Any], create_graph: bool, retain_graph: bool,
         targets: list[Edge] | None = None, bounded: bool = False) -> dict[Edge, Any]:
    """Carries gradients from the roots back. Returns the gradient of each leaf, or of each target if targets are given.
    `bounded`: the walk ends at the targets, also where one lies behind another; their hooks are left to the walk around this one.

    The frontier is a heap: the newest node next, whose gradient is complete, since whatever uses it is newer still.
    """
    wanted = frozenset(targets) if targets else _NOTHING
    useful = None if targets is None else _useful(_reachable(roots, wanted if bounded else frozenset()), wanted)
    before, mode.grad = mode.grad, create_graph
    pending: dict[Edge, Any] = {}       # edge -> the gradient so far; of a node with several outputs, a list
    frontier: list[tuple[int, Any]] = []
    owned: set[Edge] = set()            # edges whose gradient lies in a buffer made here: it may be added to in place
    kept: dict[Edge, Any] = {}
    hooked = hooks.tables
    try:
        for root, g in zip(roots, gradients, strict=True):
            if g.array.layout is not root.layout:
                g = fit(g, root.layout)
            if root in pending:
                _add_to(pending, owned, root, g, create_graph)
            else:
                pending[root] = g
                if type(root) is Node or type(root) is Slot:
                    frontier.append((root.seq, root))
        if len(frontier) > 1:
            heapify(frontier)
        while frontier:
            node = heappop(frontier)[1]
            g = pending.pop(node)
            end = wanted and node in wanted
            if hooked and not (end and bounded):
                g = _hooked(node, g)
            if end:
                kept[node] = g
                if bounded or not any(e is not None and e in useful for e in node.inputs):     # type: ignore[operator]
                    continue
            if type(node) is Slot:
                parent = node.inputs[0]
                slots = pending.get(parent)
                if slots is None:
                    slots = pending[parent] = [None] * len(parent.layout)
                    heappush(frontier, (parent.seq, parent))
                slots[node.index] = g
                continue
            if node.saved is FREED:
                fail("backward", f"the graph was freed by an earlier backward(): {node.op.name}{located(node)} has nothing saved", "",
                     "pass retain_graph=True to the first backward(), or detach() what is carried over from the step before")
            edges = node.inputs
            needs = useful is None and node.needs or [e is not None and (useful is None or e in useful) for e in edges]
            for edge, result in zip(edges, node.op.backward(node, g, needs)):      # noqa: B905 (this is the hot loop)
                if result is None or edge is None:
                    continue
                if result.array.layout is not edge.layout:
                    result = fit(result, edge.layout)
                if edge in owned:
                    add_(pending[edge], result)
                elif edge in pending:
                    _add_to(pending, owned, edge, result, create_graph)
                else:
                    pending[edge] = result
                    if type(edge) is Node or type(edge) is Slot:
                        heappush(frontier, (edge.seq, edge))
            if not retain_graph:
                node.saved = FREED
                node.out = None
    finally:
        mode.grad = before
    if hooked and not bounded:
        for edge in pending:
            pending[edge] = _hooked(edge, pending[edge])
    if targets is None:
        return pending
    kept.update((e, g) for e, g in pending.items() if e in wanted)
    return kept


def _add_to(pending: dict, owned: set, edge: Edge, g: Tensor, create_graph: bool) -> None:
    """A further gradient of an edge: in place only into a buffer that the walk made."""
    if edge in owned:
        add_(pending[edge], g)
    else:
        pending[edge] = add(pending[edge], g)
        if not create_graph:
            owned.add(edge)


def backward(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None], retain_graph: bool = False,
             inputs: Sequence[Tensor] | None = None, create_graph: bool = False) -> None:
    """Adds the gradients of `tensors` to `.grad` of the leaves behind them (or of `inputs`)."""
    roots, start = _starts("backward", tensors, gradients)
    targets = None if inputs is None else [edge_of(t) for t in inputs]
    taken = {id(g.array) for g in start}
    results = walk(roots, start, create_graph, retain_graph or create_graph, targets)
    recorder, hooked = mode.recorder, post_hooks.tables
    for edge, g in results.items():
        leaf = edge if inputs is None or type(edge) is not Node and type(edge) is not Slot else \
            next(t for t in inputs if edge_of(t) is edge)
        if recorder is not None:
            recorder.deposit(leaf)
        _deposit(leaf, g, create_graph, taken)
        if hooked:
            for function in post_hooks.of(leaf):
                function(leaf)


def _deposit(leaf: Tensor, g: Tensor, create_graph: bool, taken: set[int]) -> None:
    """Adds `g` to `leaf.grad`. A gradient that something else still refers to is copied: two leaves never share one."""
    if leaf.grad is not None:
        if create_graph:
            leaf.grad = add(leaf.grad, g)
        else:
            with no_grad():
                add_(leaf.grad, g)
        return
    array = g.array
    if not create_graph:
        # a hook may have kept the gradient that it was shown
        if hooks.tables or type(array) is not Buffer or id(array) in taken or getrefcount(array) > _LONE_LOCAL:
            g = clone(g.detach())
            array = g.array
    taken.add(id(array))
    leaf.grad = g


def _lone_local() -> int:
    class Probe:
        __slots__ = ("array",)
        array: Any
    probe = Probe()
    probe.array = object.__new__(Array)
    array = probe.array
    return getrefcount(array)


_LONE_LOCAL = _lone_local()     # the references an array has when one tensor and one local variable hold it


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], grad_outputs: Any = None,
         retain_graph: bool | None = None, create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, a tuple as long as `inputs`; `.grad` is left alone.

    With `create_graph=True` the gradients are recorded themselves, and may be differentiated again, to any order.
    """
    if is_grads_batched or not only_inputs:
        raise NotImplementedError("[autograd.grad] is_grads_batched is not supported; call grad once per vector" if is_grads_batched else
                                  "[autograd.grad] only_inputs=False is not supported; use backward() to fill .grad")
    outs: list[Any] = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    ins: list[Any] = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    count = 1 if grad_outputs is not None else len(outs)
    given = list(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else [grad_outputs] * count
    if len(given) != len(outs):
        fail("autograd.grad", "grad_outputs must have one entry for each output", f"{len(given)} for {len(outs)} outputs")
    if materialize_grads and allow_unused is False:
        raise ValueError("[autograd.grad] allow_unused must not be False when materialize_grads is True")
    for i, t in enumerate(ins):
        if not t.requires_grad:
            fail("autograd.grad", f"input {i} does not require a gradient", t.array.layout, "call requires_grad_() before the forward pass")
    roots, start = _starts("autograd.grad", outs, given)
    edges = [edge_of(t) for t in ins]
    found = walk(roots, start, create_graph, create_graph if retain_graph is None else retain_graph, edges)
    results = []
    for i, (t, edge) in enumerate(zip(ins, edges, strict=True)):
        g = found.get(edge)
        if g is None and materialize_grads:
            with no_grad():
                g = ones_like(t) * 0
        elif g is None and not allow_unused:
            fail("autograd.grad", f"input {i}{located(t)} was not used in computing the outputs", t.array.layout,
                 "pass allow_unused=True to get None for it")
        results.append(g)
    return tuple(results)


def edge_of(t: Tensor) -> Edge:
    return t.node if t.node is not None else t


def _starts(op: str, tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[list[Edge], list[Tensor]]:
    """The edges to start from and their gradients, checked; a scalar's missing gradient is 1."""
    if len(gradients) != len(tensors):
        fail(op, "one gradient is needed for each tensor", f"{len(gradients)} for {len(tensors)} tensors")
    roots, start = [], []
    for t, g in zip(tensors, gradients, strict=True):
        layout = t.array.layout
        if not t.requires_grad:
            fail(op, "the tensor does not require a gradient and has no graph behind it", layout,
                 "set requires_grad=True on what it is computed from, outside no_grad()")
        if g is None:
            if layout.size != 1:
                fail(op, "a gradient can be left out for a scalar only", layout, "reduce it first (loss.sum()) or pass gradient=")
            with no_grad():
                g = ones_like(t)
        elif g.array.layout.shape != layout.shape:
            fail(op, "the gradient must have the tensor's shape", [layout, g.array.layout])
        roots.append(edge_of(t))
        start.append(g)
    return roots, start
