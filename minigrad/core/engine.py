"""The backward pass: `backward`, `grad`, and the `walk` that both use. Read `tape.py` first.

The walk takes the newest node next (`seq`): the reverse order of creation is a topological order. A gradient is dropped
when it has been used. It is added to in place only if the walk made its buffer.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from sys import getrefcount
from typing import Any

from ..devices.base import Device
from ..devices.memory import Array, Buffer, Layout
from .complete import after_leaf, before_leaf, leaf_counts
from .graph_node import GradientEdge
from .hooks import after_hooks, hooks, node_hooks, node_pre_hooks, post_hooks
from .modes import mode, set_recording
from .shape import fail
from .tape import FREED, Edge, Node, Slot, Variable, edge_of, located, reachable
from .warning import warn
from .watch import backward_with_hooks, watchers


class Functions:
    """The ops that the core uses. It may not import them: `minigrad/ops/__init__.py` sets them."""

    add: Callable[[Any, Any], Any]
    accumulate: Callable[[Any, Any], None]              # target += more, in place
    sum_to: Callable[[Any, Layout], Any]                # undoes broadcasting
    cast: Callable[[Any, Any], Any]
    clone: Callable[[Any], Any]
    transfer: Callable[[Any, Device], Any]
    as_tensor: Callable[..., Any]
    empty: Callable[..., Any]
    full: Callable[[Layout, float], Any]                # a value in each element of a layout's shape
    zero_: Callable[[Any], Any]
    alias: Callable[[Any], Any]                         # the identity, as a node


functions = Functions()


def drop_grads(leaves: Iterable[Variable], set_to_none: bool) -> None:
    """`zero_grad()` of optimisers and modules: sets `.grad` to None, or to zeros. An active recording is told."""
    recorder = mode.recorder
    for leaf in leaves:
        if recorder is not None:
            (recorder.writes_grad if set_to_none else recorder.reads_grad)(leaf)
        if set_to_none:
            leaf._grad = None
        elif leaf._grad is not None:
            leaf._grad = functions.zero_(leaf._grad.detach())


def keep_grad(t: Variable) -> None:
    """Registers a hook that adds the gradient of `t` to `t.grad`; it does not keep `t` alive (`retain_grad`)."""
    reference = weakref.ref(t)

    def store(g: Variable) -> None:
        alive = reference()
        if alive is not None:
            alive._grad = functions.clone(g) if alive._grad is None else functions.add(alive._grad, g)
    hooks.retain(edge_of(t), store)


# ---- the walk --------------------------------------------------------------------------------------------------------

def _aim(roots: list[Edge], targets: frozenset, bounded: bool) -> tuple[frozenset, set]:
    """The targets; and with them the nodes whose inputs lead to one of them."""
    useful = set(targets)
    for node in reachable(roots, targets if bounded else _NOTHING):
        if node not in useful and any(e is not None and e in useful for e in node.inputs):
            useful.add(node)
    return targets, useful


def fit(g: Variable, to: Layout) -> Variable:
    """A gradient in the shape and dtype of what it belongs to: undoes broadcasting and promotion, for all ops."""
    have = g.array.layout
    if have.shape != to.shape:
        g = functions.sum_to(g, to)
    return g if have.dtype is to.dtype or have.dtype == to.dtype else functions.cast(g, to.dtype)


_NOTHING: frozenset = frozenset()


def walk(roots: list[Edge], gradients: list[Any], create_graph: bool, retain_graph: bool,
         targets: list[Edge] | None = None, bounded: bool = False,
         deposit: Callable[[Edge, Any], None] | None = None) -> dict[Edge, Any]:
    """Carries gradients from the roots to the leaves. Returns the gradient of each leaf, or of each target if given.

    `bounded`: the walk ends at the targets, even if one leads to another; their hooks are left to the walk around it.
    `deposit` takes gradients of leaves that are complete early (see `complete.py`); these are not returned then.
    """
    wanted, useful = (_NOTHING, None) if targets is None else _aim(roots, frozenset(targets), bounded)
    edge_hooks, before, after = hooks.tables, node_pre_hooks.tables, node_hooks.tables  # live: a hook may remove itself
    counts = None if bounded or not (edge_hooks or before or after or post_hooks.tables) else leaf_counts(roots, useful)
    pending: dict[Edge, Any] = {}       # edge: the gradient so far (of a node with several outputs, a list)
    frontier: list[tuple[int, Any]] = []        # a heap: the newest node is next; all that uses its output has run
    owned: set[Edge] = set()            # edges whose gradient is in a buffer made here: it may be added to in place
    kept: dict[Edge, Any] = {}          # gradients of targets and leaves that are complete
    recording = set_recording(create_graph)
    try:
        for i, root in enumerate(roots):
            if useful is None or root in useful:
                _send(root, gradients[i], pending, owned, frontier, create_graph)
        while frontier:
            node = heappop(frontier)[1]
            g = pending.pop(node)
            if edge_hooks or wanted and node in wanted:
                g, ends = _arrived(node, g, kept, wanted, useful, bounded)
                if ends:
                    continue
            if type(node) is Slot:
                _collect(node, g, pending, frontier)
                continue
            if node.saved is FREED:
                refuse_freed(node)
            edges, needs = node.inputs, node.needs
            if needs is None or useful is not None:
                needs = [e is not None and (useful is None or e in useful) for e in edges]
            run = backward_with_hooks if before or after or watchers else node.op.backward
            for edge, result in zip(edges, run(node, g, needs)):        # noqa: B905 (this is the hot loop)
                if result is None or edge is None:
                    continue
                if edge in owned and result.array.layout is edge.layout:
                    functions.accumulate(pending[edge], result)
                elif edge in pending or result.array.layout is not edge.layout:
                    _send(edge, result, pending, owned, frontier, create_graph)
                else:
                    pending[edge] = result
                    if not isinstance(edge, Variable):
                        heappush(frontier, (edge.seq, edge))
            if not retain_graph and (node.saved or node.out is not None):
                node.saved, node.out = FREED, None
            if counts is not None:
                result = g = None                           # nobody but `pending` has them then
                counts.count_down(edges, pending, kept, deposit)
        if edge_hooks and not bounded:
            pending = {edge: after_hooks(edge, g) for edge, g in pending.items()}
    finally:
        set_recording(recording)
        if counts is not None:
            counts.end()
    found = pending if targets is None else {e: g for e, g in pending.items() if e in wanted}
    return {**kept, **found} if kept else found


def _arrived(node: Any, g: Any, kept: dict[Edge, Any], wanted: frozenset, useful: set | None,
             bounded: bool) -> tuple[Any, bool]:
    """The gradient of a node after its hooks. A target's is `kept`; does the walk end there?"""
    end = node in wanted
    if not (end and bounded):
        g = after_hooks(node, g)
    if end:
        kept[node] = g
    return g, end and (bounded or not any([e in useful for e in node.inputs if e is not None]))     # type: ignore


def _send(edge: Edge, g: Any, pending: dict, owned: set, frontier: list, create_graph: bool) -> None:
    """Adds a gradient to that of an edge: in place only if the walk made its buffer."""
    if g.array.layout is not edge.layout:
        g = fit(g, edge.layout)
    if edge in owned:
        functions.accumulate(pending[edge], g)
    elif edge in pending:
        pending[edge] = functions.add(pending[edge], g)
        if not create_graph:
            owned.add(edge)
    else:
        pending[edge] = g
        if not isinstance(edge, Variable):
            heappush(frontier, (edge.seq, edge))


def _collect(slot: Slot, g: Any, pending: dict, frontier: list) -> None:
    """Puts the gradient of one output into the list of its node."""
    node = slot.inputs[0]
    gradients = pending.get(node)
    if gradients is None:
        gradients = pending[node] = [None] * len(node.layout)
        heappush(frontier, (node.seq, node))
    gradients[slot.index] = g


def refuse_freed(node: Node) -> None:
    """Raises because what a node saved was freed."""
    fail("backward", f"the graph was freed by an earlier backward(): {node.op.name}{located(node)} has nothing saved",
         "", "pass retain_graph=True to the first backward(), or detach() what comes from the step before")


def backward(tensors: Sequence[Variable], gradients: Sequence[Variable | None], retain_graph: bool | None = None,
             inputs: Variable | Sequence[Variable] | None = None, create_graph: bool = False) -> None:
    """Adds the gradients of `tensors` to `.grad` of the leaves that they are computed from, or of `inputs`.

    `gradients[i]` has the shape of `tensors[i]`; None means 1, for a scalar. Arguments as in `torch.autograd.backward`.
    """
    chosen = [] if inputs is None else _checked("backward", inputs)
    for t in chosen:
        if t.node is not None:
            keep_grad(t)                    # its hook fills .grad
    roots, start = _starts("backward", tensors, gradients)
    if create_graph:
        warn("[backward] with create_graph=True a leaf and its .grad refer to each other, a reference cycle that keeps "
             "memory; use autograd.grad, or set .grad to None afterwards")
    hooked = post_hooks.tables or node_hooks.tables or node_pre_hooks.tables
    add = _Deposit(create_graph, start).add
    results = walk(roots, start, create_graph, create_graph if retain_graph is None else retain_graph,
                   None if inputs is None else [edge_of(t) for t in chosen], deposit=add)
    before = set_recording(create_graph) if hooked or create_graph else None
    try:
        for edge, g in results.items():
            add(edge, g)
    finally:
        if before is not None:
            set_recording(before)


class _Deposit:
    """Adds gradients to `.grad` of leaves. One that something else may refer to is copied first: its array is in
    `taken`, or hooks are given gradients, which they may keep."""

    __slots__ = ("create_graph", "recorder", "copies", "taken")

    def __init__(self, create_graph: bool, start: list[Variable]) -> None:
        self.create_graph, self.recorder = create_graph, mode.recorder
        self.copies = bool(hooks.tables or node_hooks.tables or node_pre_hooks.tables)  # they may be removed meanwhile
        self.taken: set[int] = set()
        for g in start:
            self.taken.add(id(g.array))

    def add(self, leaf: Any, g: Any) -> None:
        """Adds `g` to `leaf.grad`; nothing for a node, or for a leaf that no longer asks for gradients."""
        if not isinstance(leaf, Variable) or leaf.node is not None or not leaf._requires_grad:
            return
        if self.recorder is not None:
            self.recorder.reads_grad(leaf)
        if node_pre_hooks.tables:
            g = before_leaf(leaf, g)
        if leaf._grad is None:
            array, own = g.array, g
            if self.create_graph:
                own = functions.clone(g)
            elif self.copies or type(array) is not Buffer or id(array) in self.taken or getrefcount(array) > _LONE:
                own = functions.clone(_outside(g))
            self.taken.add(id(own.array))
            leaf._grad = own
        elif self.create_graph:
            leaf._grad = functions.add(leaf._grad, g)
        else:
            functions.accumulate(_outside(leaf._grad), _outside(g))
        if post_hooks.tables or node_hooks.tables:
            after_leaf(leaf, g)


def _outside(g: Any) -> Any:
    """The gradient on the same memory, outside the graph."""
    return g.detach() if g._requires_grad else g


def _count_lone() -> int:
    holder = Variable()
    array = holder.array = object.__new__(Array)
    return getrefcount(array)


_LONE = _count_lone()       # the getrefcount of an array that only one tensor and one local variable refer to


def grad(outputs: Variable | Sequence[Variable], inputs: Variable | Sequence[Variable], grad_outputs: Any = None,
         retain_graph: bool | None = None, create_graph: bool = False, only_inputs: bool = True,
         allow_unused: bool | None = None, materialize_grads: bool = False) -> tuple[Any, ...]:
    """`minigrad.autograd.grad`, which says what it does, without batches."""
    if not only_inputs:
        raise NotImplementedError("[autograd.grad] only_inputs=False is not supported; use backward() to fill .grad")
    outs: list[Any] = listed(outputs)
    ins: list[Any] = _checked("autograd.grad", inputs)
    count = 1 if grad_outputs is not None else len(outs)
    given = [grad_outputs] * count if grad_outputs is None or isinstance(grad_outputs, Variable) else list(grad_outputs)
    if len(given) != len(outs):
        fail("autograd.grad", "grad_outputs must have one entry for each output",
             f"{len(given)} for {len(outs)} outputs")
    if materialize_grads and allow_unused is False:
        raise ValueError("[autograd.grad] allow_unused must not be False when materialize_grads is True")
    roots, start = _starts("autograd.grad", outs, given)
    edges = [edge_of(t) for t in ins]
    found = walk(roots, start, create_graph, create_graph if retain_graph is None else retain_graph, edges)
    results = []
    for i, edge in enumerate(edges):
        g = found.get(edge)
        if g is None and materialize_grads:
            g = functions.full(edge.layout, 0).requires_grad_(create_graph)
        elif g is None and not allow_unused:
            fail("autograd.grad", f"input {i}{located(edge)} was not used in computing the outputs", edge.layout,
                 "pass allow_unused=True to get None for it")
        results.append(g)
    return tuple(results)


def listed(given: Any) -> list[Any]:
    """One or several tensors, or `GradientEdge`s, as a list; in place of an edge, what the tape knows of its tensor."""
    several = [given] if isinstance(given, (Variable, GradientEdge)) else given
    return [_at(t.edge()) if isinstance(t, GradientEdge) else t for t in several]


def _at(edge: Edge) -> Variable:
    """A leaf; or for a node a variable without an array, so that every op refuses it."""
    if isinstance(edge, Variable):
        return edge
    t = Variable()
    t.node, t._requires_grad, t._grad = edge, True, None
    return t


def _checked(op: str, inputs: Any) -> list[Any]:
    """The `inputs` of `grad` or `backward`; RuntimeError if there is none, or one that does not require a gradient."""
    inputs = listed(inputs)
    if not inputs:
        fail(op, "inputs cannot be empty")
    for i, t in enumerate(inputs):
        if not isinstance(t, Variable):
            fail(op, f"input {i} must be a tensor", type(t).__name__)
        if not t._requires_grad:
            fail(op, f"input {i} does not require a gradient", edge_of(t).layout,
                 "call requires_grad_() before the forward pass")
    return inputs


def _starts(op: str, tensors: Sequence[Variable],
            gradients: Sequence[Variable | None]) -> tuple[list[Edge], list[Variable]]:
    """The edges to start from and their gradients, checked; the gradient of a scalar is 1 if it is None."""
    if len(gradients) != len(tensors):
        fail(op, "one gradient is needed for each tensor", f"{len(gradients)} for {len(tensors)} tensors")
    roots, start = [], []
    for i, t in enumerate(tensors):
        g, edge = gradients[i], edge_of(t)
        layout = edge.layout
        if not t._requires_grad:
            fail(op, "the tensor does not require a gradient and has no graph behind it", layout,
                 "set requires_grad=True on what it is computed from, outside no_grad()")
        if g is None:
            if layout.size != 1:
                fail(op, "a gradient can be left out for a scalar only", layout,
                     "reduce it first (loss.sum()) or pass gradient=")
            g = functions.full(layout, 1)
        elif not isinstance(g, Variable):
            fail(op, "gradients can be tensors or None", type(g).__name__, kind=TypeError)
        elif g.array.layout.shape != layout.shape:
            fail(op, "the gradient must have the tensor's shape", [layout, g.array.layout])
        roots.append(edge)
        start.append(g)
    return roots, start
