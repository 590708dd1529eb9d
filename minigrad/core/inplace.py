"""In-place changes of tensors in the graph, and of their views. Read `tape.py` and `engine.py` first.

Ops are pure, and so is the graph. If x or y is in the graph, `x.add_(y)` is the pure op, recorded as always; then its
values are written into the memory of x, and x gets the node of the result. If x is a view, its base gets a node of
`slices`, which has two inputs: the base before the change, and the result that now lies where the view is. Every view
of the base that is alive then gets a new node, which begins at the base's. Nodes that were recorded before stay as they
are. If one of them saved the memory that was changed, its version counter says so, and its backward raises.

What this needs is noted where a view is made: the tensor that it is a view of (`source`), the plan that made it
(`View.plan`), and in the block of memory a weak reference to the view (`register`; `through` in ops/through.py does
the same without a call). An op that makes no view and changes nothing in place pays nothing.
"""
from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy as np

from ..devices.memory import Array, View, keep_view, views_of
from .arrays import contiguous_copy, copy_array
from .engine import functions, keep_grad
from .graph_node import node_name
from .hooks import hooks
from .modes import changed, mode, no_grad
from .shape import fail, is_float
from .tape import Edge, Node, Slot, Variable, edge_of, recorded

# what `source` is where the base is not known to the view
UNTRACKED = "no_grad"
CUSTOM = "This view was created inside a custom Function, or an input was returned as it is"


class _Untied(View):
    """The memory of `owner` with a version counter of its own."""

    __slots__ = ("version",)

    @property
    def storage(self) -> Array:
        """This array: it carries its version counter."""
        return self


def untied(array: Any, version: int) -> Array:
    """The memory of `array` with a version counter of its own (`Tensor.data`)."""
    v: Any = _Untied()
    v.layout, v.ptr, v.block, v.plan, v.version = array.layout, array.ptr, array.block, None, version
    v.owner = array.owner if isinstance(array, View) else array
    return v


# ---- which tensor is a view of which --------------------------------------------------------------------------------

def register(made: Sequence[Variable], source: Variable, plan: Any) -> None:
    """Notes that the tensors in `made` are views of `source`, which `plan` has made."""
    if not mode.grad:
        for t in made:
            untracked(t, source)
        return
    block = source.array.block
    for t in made:
        t.array.plan = plan                 # type: ignore[attr-defined]
        t.source = source
        if block.view() is not None:
            keep_view(block)
        block.view = ref(t)


def untracked(t: Variable, source: Variable) -> None:
    """Notes that `t` was made as a view of `source` without recording: it must not be changed where that is on.

    A source in the graph is not kept, because its graph would be kept with it.
    """
    t.array.plan = None                     # type: ignore[attr-defined]
    t.source = UNTRACKED if source._requires_grad else source


def base_of(t: Variable) -> Any:
    """The tensor that a view is a view of, through all views between them; None for a tensor that is no view."""
    base = _lineage(t)[0]
    return None if base is t or type(base) is str else base


def is_tracked(t: Variable) -> bool:
    """Is it no view, or one that was made with recording on? `View.plan` is None for others, and for views of them."""
    return getattr(t, "source", None) is None or t.array.plan is not None       # type: ignore[attr-defined]


class _Base:
    """A tensor that was changed in the graph, for its views. It is not kept alive: its node may lead to the views."""

    __slots__ = ("array", "tensor")

    def __init__(self, t: Variable) -> None:
        self.array, self.tensor = t.array, ref(t)


class _Link:
    """The `source` of a view whose base was changed: the base, and the plans that lead from it to the view."""

    __slots__ = ("base", "plans")

    def __init__(self, base: _Base, plans: tuple[Any, ...]) -> None:
        self.base, self.plans = base, plans

    def find(self, t: Any) -> Any:
        """The base of `t`, whose source this is. If nobody has it any more, it is made again."""
        found = self.base.tensor()
        if found is None:
            found = t.detach()
            found.array, found.node, found._requires_grad = self.base.array, t.node.inputs[0], True
            for _ in self.plans[1:] if t.node.op is not several else ():
                found.node = found.node.inputs[0]
            self.base.tensor = ref(found)
        return found


def _lineage(t: Variable) -> tuple[Any, tuple[Any, ...]]:
    """The tensor that `t` is a view of, and the plans that lead from it to `t`: none, if `t` is no view.

    If the base is not known to the view, a text says why.
    """
    plans: tuple[Any, ...] = ()
    found: Any = t
    while True:
        source = getattr(found, "source", None)
        if source is None or type(source) is str:
            return (source or found), plans
        here = (found.array.plan,) if type(source) is not _Link else source.plans
        source = source if type(source) is not _Link else source.find(found)
        if source.array.block is not t.array.block:
            return found, plans             # `data` of one of them was assigned: they share memory no longer
        found, plans = source, here + plans


def _blocked(t: Variable, base: Any, plans: tuple[Any, ...]) -> str:
    """Why a view cannot be changed in the graph, or an empty string."""
    name = f"{_output(t.node)} is a view and is being modified inplace. "
    if base is CUSTOM:
        return name + (_SEVERAL if type(t.node) is Slot else CUSTOM)
    for i, plan in enumerate(plans if type(base) is not str else (None, *plans)):
        if plan is None:
            return _NO_GRAD if i + 1 >= len(plans) else _NO_GRAD_BEFORE
        if type(plan.layout) is tuple:
            return name + _SEVERAL
    return ""


_NO_GRAD = "A view was created in no_grad mode and is being modified inplace with grad mode enabled"
_NO_GRAD_BEFORE = _NO_GRAD.replace("A view was", "This is a view of a view that was").replace("and is", "and it is")
_SEVERAL = "This view is the output of a function that returns multiple views. None of them may be changed in the graph"


def _output(node: Any) -> str:
    """Which output of which op it is, for messages."""
    return "It" if node is None else f"Output {node.index if type(node) is Slot else 0} of {node_name(node.op)}"


def involved(t: Variable, *others: Any) -> bool:
    """Is a change of `t` that uses the values of `others` one for the graph?"""
    if not mode.grad:
        return False
    if t._requires_grad:
        return True
    for o in others:
        if isinstance(o, Variable) and o._requires_grad:
            return is_float(t.array.layout.dtype)
    if type(t.array) is not View or t.array.plan is not None:
        return False
    base, _ = _lineage(t)                   # a view that was made under no_grad
    return base is UNTRACKED or type(base) is not str and base._requires_grad


def check(op: str, t: Variable) -> None:
    """Refuses the changes of tensors in the graph that have no meaning."""
    (base, plans), layout = _lineage(t), t.array.layout
    blocked = _blocked(t, base, plans)
    if blocked:
        fail(op, blocked, layout, "change a clone() of it, or move the view and the change both inside the no_grad "
             "block, or both outside")
    if t._requires_grad and base.node is None:
        what = "a leaf Variable" if base is t else "a view of a leaf Variable"
        fail(op, f"{what} that requires grad is being used in an in-place operation", layout,
             "use the out-of-place form, or wrap the change in `with no_grad()`")


# ---- changes --------------------------------------------------------------------------------------------------------

def change(op: str, t: Any, pure: Callable[[Any], Any], reads: bool = True) -> Any:
    """Replaces the values of `t` by `pure(t)`, in the graph.

    `pure` gets a stand-in for `t` before the change. If the op may save it (`reads`), the stand-in has its own memory.
    """
    check(op, t)
    old = t.detach()
    if reads:
        old.array = contiguous_copy(t.array)
    old.node, old._requires_grad = _node_before(t), t._requires_grad
    result = pure(old)
    if result.array.layout.dtype != t.array.layout.dtype:
        result = functions.cast(result, t.array.layout.dtype)
    copy_array(t.array, result.array)
    t.array.storage.version += 1            # type: ignore[misc]
    rebind(t, edge_of(result) if result._requires_grad else None, True)
    return t


def reshape(op: str, t: Any, view: Callable[[Any], Any]) -> Any:
    """Makes `t` itself `view(t)`, in the graph. What it was becomes a tensor that only its views know, `t` among them.
    A node that saved `t` raises at backward, as in PyTorch."""
    check(op, t)
    before, known = t.node, getattr(t, "source", None)
    old = _stand_in(t, before, t._requires_grad)
    if known is not None:
        old.source = known
    for v in views_of(t.array.block):
        if v.source is t:
            v.source = old
        elif type(v.source) is _Link and v.source.base.tensor() is t:
            v.source.base.tensor = ref(old)
    made = view(old)
    t.array, t.node, t.source = made.array, made.node, old
    if known is None:
        register((t,), old, made.array.plan)
    t.array.storage.version += 1            # type: ignore[misc]
    if before is not None and hooks.tables:
        _move_kept(t, before)
    changed()
    return t


def _node_before(t: Variable) -> Any:
    """The node of `t` for its value before a change. For a view it is a new one: hooks of the view are not for it."""
    base, plans = _lineage(t)
    return _viewed(base, plans) if plans and hooks.tables and t.node is not None else t.node


def _viewed(base: Variable, plans: tuple[Any, ...]) -> Any:
    """The node of a view of `base`."""
    edge = edge_of(base)
    for plan in plans:
        edge = recorded(plan.op, (edge,), plan.layout, (), 0, None, plan.attrs)
    return edge


def overwrite(op: str, t: Any, values: Array, value: Any = None) -> Any:
    """Writes `values` into `t`, broadcast and converted. In the graph they come from `value`, or else are constant."""
    recording = involved(t, value)
    if recording:
        check(op, t)
    copy_array(t.array, values)
    t.array.storage.version += 1            # type: ignore[misc]
    if recording:
        rebind(t, edge_of(value) if value is not None and value._requires_grad else None, False)
    return t


def rebind(t: Variable, edge: Edge, computed: bool = True) -> None:
    """The graph after a change of `t`: its values now come from `edge` (None: a constant).

    `computed`: the node of `edge` was made for this, so `t` may have it itself.
    """
    base, plans = _lineage(t)
    if getattr(base, "source", base) is None:
        _enlist(base)
    if not plans and computed and edge is not None:
        node = edge
    else:
        before = edge_of(base) if base._requires_grad else None
        node = recorded(slices, (before, edge), base.array.layout, (), 0, None, {"views": plans})
    moved: dict[int, Any] = {}
    _bind(base, node, moved)
    follow(base, moved)
    _release(node, moved)
    changed()


def _enlist(base: Variable) -> None:
    """Notes the views of a former leaf, which `through` did not note while changes of the leaf were refused.

    The search takes milliseconds, in a case that is rare; noting each view of a leaf would take 0.1 us, at each view.
    """
    block = base.array.block
    noted = {id(t) for t in views_of(block)}
    for t in gc.get_referrers(base):
        if isinstance(t, Variable) and getattr(t, "source", None) is base and id(t) not in noted:
            if block.view() is not None:
                keep_view(block)
            block.view = ref(t)
    del base.source


def _bind(t: Any, node: Any, moved: dict[int, Any]) -> None:
    """Gives `t` a new node; `moved` gets what it was before."""
    before = t.node
    moved[id(t)] = t, before, t._requires_grad
    t.node, t._requires_grad = node, True
    if before is not None and hooks.tables:
        _move_kept(t, before)


def _move_kept(t: Variable, before: Edge) -> None:
    """`retain_grad` of a tensor that got a new node: `.grad` is that of the new value from now on."""
    if hooks.retains(before):
        hooks.release(before)
        keep_grad(t)


def begin(leaf: Variable) -> None:
    """Lets views of a tensor that requires gradients from now on begin at it, and tells a recorder."""
    follow(leaf, {})
    if mode.recorder is not None:
        mode.recorder.begins(leaf)


def follow(base: Variable, moved: dict[int, Any]) -> None:
    """Gives the views of `base` new nodes, which begin at its node."""
    record = None
    for t in views_of(base.array.block):
        if record is not None and type(t.source) is _Link and t.source.base is record:
            plans = t.source.plans
        else:
            found, plans = _lineage(t)
            if found is not base or t is base:
                continue
            if None in plans:
                t.source = UNTRACKED            # made under no_grad: a constant for the graph
                continue
            record = record or (t.source.base if type(t.source) is _Link else _Base(base))
            t.source = _Link(record, plans)
        if any([type(plan.layout) is tuple for plan in plans]):
            of: Any = t.node
            if isinstance(of, Node) and of.op is several:
                of = of.attrs["of"]             # type: ignore[index]
            _bind(t, recorded(several, (edge_of(base),), t.array.layout, (), 0, None, {"of": of}), moved)
        else:
            _bind(t, _viewed(base, plans), moved)


# So many nodes behind a change are looked through, or as many as were recorded since the last change, so that each node
# is looked at about once. Without a bound, a loop of 1,000 steps with a change each takes 15 times as long (measured).
_REACH = 64
_newest = [0]                   # `seq` of the last change


def _release(node: Any, moved: dict[int, Any]) -> None:
    """Lets nodes behind a change refer to the tensors in `moved` as they were before it.

    A node that saved one of them, and that the new value depends on, would else be in a reference cycle. It is newer
    than the node that the tensor had. What lies farther back is left to the garbage collector.
    """
    before = [old for _, old, _ in moved.values()]
    oldest = float("inf") if None in before else max([old.seq for old in before])
    reach, _newest[0] = max(_REACH, _newest[0] - node.seq), node.seq
    reached = {id(node): node}
    for found in (queue := [node]):
        if isinstance(found, Node) and type(found.saved) is tuple:
            found.saved = _as_before(found.saved, moved)
        for edge in found.inputs:
            if (isinstance(edge, (Node, Slot)) and edge.seq < oldest and id(edge) not in reached
                    and len(queue) < reach):
                reached[id(edge)] = edge
                queue.append(edge)


def _as_before(saved: tuple, moved: dict[int, Any]) -> tuple:
    """What a node saved, with the tensors of before a change."""
    changed = [_as_before(s, moved) if type(s) is tuple else _stand_in(*moved[id(s)]) if id(s) in moved else s
               for s in saved]
    return saved if all([a is b for a, b in zip(saved, changed, strict=True)]) else tuple(changed)


def _stand_in(t: Any, node: Any, wanted: bool) -> Any:
    """A tensor in the memory of `t`, with the node that it had."""
    found = t.detach()
    found.node, found._requires_grad = node, wanted
    return found


# ---- the nodes ------------------------------------------------------------------------------------------------------

def _seen(g: Any, views: Sequence[Any]) -> Any:
    """The gradient of a view, from that of its base."""
    for plan in views:
        g = plan.op.public(g, **plan.attrs)     # of a copy, where the op takes some layouts only
    return g


def _cleared(g: Any, views: Sequence[Any]) -> Any:
    """A copy of a base's gradient with zeros where the view lies."""
    if not views:
        return functions.full(g.array.layout, 0)
    out = functions.clone(g.detach())
    with no_grad():
        place = _seen(out, views)
        if place.array.block is out.array.block:
            functions.zero_(place)
        else:                               # in another memory order the reshapes among the views are copies
            count = np.arange(out.array.layout.size).reshape(out.array.layout.shape)
            places = _seen(functions.as_tensor(count).to(out.device), views)
            out.device.host.call(_clear, out.array.np, places.array.np)
    if g._requires_grad and mode.grad:
        out.node = recorded(cleared, (edge_of(g),), out.array.layout, (), 0, None, {"views": views})
        out._requires_grad = True
    return out


def _clear(places: Any, out: Any) -> None:
    out.reshape(-1)[places.reshape(-1)] = 0


class _Slices:
    """The op of a base that was changed through a view: the base before, with a value where the view lies."""

    name, node_name = "slices", "CopySlices"        # as PyTorch calls it

    def backward(self, node: Node, g: Any, needs: Sequence[bool]) -> list[Any]:
        """The gradients of the base before the change, and of the value."""
        views = node.attrs["views"]         # type: ignore[index]
        return [_cleared(g, views) if needs[0] else None, _seen(g, views) if needs[1] else None]


class _Cleared:
    """The op of `_cleared`, which is its own gradient."""

    name = "slices_cleared"

    def backward(self, node: Node, g: Any, needs: Sequence[bool]) -> list[Any]:
        """Zeros where the view lies."""
        return [_cleared(g, node.attrs["views"])]       # type: ignore[index]


class _Several:
    """The op of one of several views that one function made, after their base was changed."""

    name = "several"

    def backward(self, node: Node, g: Any, needs: Sequence[bool]) -> list[Any]:
        """Refuses, as PyTorch does."""
        of = node.attrs["of"]               # type: ignore[index]
        fail("backward", f"{_output(of)} is a view and its base or another view of its base has been modified inplace. "
             f"{_SEVERAL}", node.layout, "use it before the change, or slices instead")


slices, cleared, several = _Slices(), _Cleared(), _Several()
