"""Views and primitives of one input: planners, and `through`, which runs and records what they decided.

Read `dispatch.py` first. `through` makes arrays and tensors without a call of `view`, `new_tensor` or `register`:
measured, as there.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import ref

from ..core.half import Wide
from ..core.inplace import is_tracked, untracked
from ..core.modes import mode, paused
from ..core.op import Primitive
from ..core.tape import recorded
from ..core.tensor import Tensor, new_tensor
from ..devices.memory import Array, Layout, View, keep_view
from ..devices.plan import Plan
from .arguments import hashable

_new = object.__new__
_NOTHING: tuple = ()


def planner(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Remembers what `plan(layout, *args)` decided. 2, 2.0 and True are different arguments."""
    return lru_cache(maxsize=4096, typed=True)(plan)


def exact_planner(plan: Callable[..., Any]) -> Callable[..., Any]:
    """The same for arguments whose types are known to be right: the look-up takes 40 ns less."""
    return lru_cache(maxsize=4096)(plan)


def bind(op: Primitive, x: Layout, **attrs: Any) -> Plan:
    """The plan of `op` for one signature."""
    return op.plan((x,), attrs)


def _computed(plan: Plan, t: Tensor, array: Array) -> Tensor:
    """What a plan made of one tensor, recorded."""
    op = plan.op
    if not (t._requires_grad and op.records and (not paused or mode.grad)):
        return new_tensor(array, None)
    if op.keeps:
        return op.record(plan, (t,), array)
    return new_tensor(array, recorded(op, (t.node or t,), plan.layout, _NOTHING, 0, None, plan.attrs))


def through(decide: Callable[..., Plan], t: Tensor, *args: Any) -> Tensor:
    """Runs the plan that `decide(layout, *args)` gives, and records it. A view is noted, as `register` does."""
    try:
        a = t.array
        count = len(args)               # a call with a star takes 70 ns more
        plan = (decide(a.layout, args[0]) if count == 1 else decide(a.layout) if not count else
                decide(a.layout, args[0], args[1]) if count == 2 else decide(a.layout, *args))
        op, offset = plan.op, plan.offset
    except (AttributeError, TypeError):
        plan = None                                 # type: ignore[assignment]
    if plan is None:                                # half precision; an argument that cannot be a key, or is wrong
        if not isinstance(t, Tensor):
            raise TypeError(f"[{decide.__name__.strip('_')}] expected a Tensor; got {type(t).__name__}")
        a = t.array
        plan = decide(a.layout, *[hashable(value) for value in args])
        if type(plan) is Wide:
            return plan.at((t,), plan.attrs)
        op, offset = plan.op, plan.offset
    if offset is None:
        return _computed(plan, t, plan.run(a))      # type: ignore[misc]
    v = View()
    v.layout = plan.layout
    v.ptr = a.ptr + offset
    v.block = block = a.block
    if type(a) is View:
        v.owner = a.owner
        v.plan = plan if a.plan is not None or is_tracked(t) else None
    else:
        v.owner = a
        v.plan = plan
    out = _new(Tensor)
    out.array = v
    out._grad = None
    if t._requires_grad and (not paused or mode.grad):
        out.node = recorded(op, (t.node or t,), plan.layout, _NOTHING, 0, None, plan.attrs)
        out._requires_grad = True
        out.source = t
        if t.node is None and v.owner is a:         # a leaf, whose changes are refused; see `_enlist` in inplace.py
            return out
    else:
        out.node = None
        out._requires_grad = False
        if paused and not mode.grad:
            untracked(out, t)
            return out
        out.source = t
    if block.view() is not None:
        keep_view(block)
    block.view = ref(out)
    return out


def indexed(op: Primitive) -> Callable[..., Tensor]:
    """`op(x, index, *attributes)` in one look-up, for a primitive that saves its index."""
    plans, names = op.plans, op.attributes

    def call(x: Tensor, index: Tensor, *values: int) -> Tensor:
        a, i = x.array, index.array
        plan = plans.get((a.layout, i.layout, *values))
        if plan is None:
            plan = op.plan((a.layout, i.layout), dict(zip(names, values, strict=True)))
        array = plan.run(a, i)                      # type: ignore[misc]
        if x._requires_grad and (not paused or mode.grad):
            edges = (x.node or x, None)
            return new_tensor(array, recorded(op, edges, plan.layout, (None, index), i.version, None, plan.attrs))
        return new_tensor(array, None)
    return call
