from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.op import Primitive
from ..core.shape import fail
from ..core.tape import mode, recorded
from ..core.tensor import Tensor, new_tensor
from ..devices import memory
from ..devices.base import Device
from ..devices.memory import Array, Buffer, Layout, alloc
from ..devices.plan import Plan, remember
from .arguments import hashable


def plain_activation(op: Any) -> Callable[..., Tensor]:
    """The hot path, as that of elementwise.py."""
    plans: Any = op.plans
    saves_output, first = op.saves_output, op.first

    def call(input: Any) -> Tensor:
        try:
            x = input.array
            plan = plans[x.layout,]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return first(input, ())
        to = plan.layout
        try:
            block = to.free.pop()
        except IndexError:
            out = alloc(to)
            ptr = out.ptr
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = ptr = block.ptr
            out.block = block
            out.version = 0
        call_kernel(ptr, x.ptr, plan.walk)
        t = _new(Tensor)
        t.array = out
        t.grad = None
        if mode.grad and input.requires_grad:
            t.node = recorded(op, (input.node or input,), to, (plan, (input,), out if saves_output else x), x.version, None, plan.attrs)
            t.requires_grad = True
            return t
        t.node = None
        t.requires_grad = False
        return t
    return call


def activation_with_numbers(op: Any) -> Callable[..., Tensor]:
    plans: Any = op.plans
    saves_output, first = op.saves_output, op.first

    def call(input: Any, *numbers: Any) -> Tensor:
        try:
            x = input.array
            key = (x.layout, *numbers)
            plan = plans[key]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return first(input, numbers)
        to = plan.layout
        out = alloc(to)
        call_kernel(out.ptr, x.ptr, plan.walk, *numbers)
        if mode.grad and input.requires_grad:
            saved = out if saves_output else x
            return new_tensor(out, recorded(op, (input.node or input,), to, (plan, (input,), saved), x.version, None, plan.attrs))
        return new_tensor(out, None)
    return call

_new = object.__new__
_PLAIN = frozenset((float, int, bool))
_ONE = (True,)
_NOT_SAVED = (None,)
_constants: dict[tuple, Tensor] = {}


def constant(value: Any, dtype: np.dtype, device: Device) -> Tensor:
    """A Python number as a 0-d tensor, one per value: never write to it."""
    key = (device, dtype, type(value), value or repr(value))        # 0.0 == -0.0, but they are two values
    found = _constants.get(key)
    if found is None:
        try:
            host = np.array(value).astype(dtype) if isinstance(value, np.generic) else np.array(value, dtype)
        except OverflowError:
            fail("constant", f"the number must fit {dtype}", repr(value))
        found = new_tensor(device.upload(host), None)
        if value == value:                                          # a NaN is found by nobody
            remember(_constants, key, found)
    return found


# ---- the hot path: one dictionary look-up decides everything that was decided before for these layouts ----------------
def unary(op: Any) -> Callable[[Any], Any]:
    plans, differentiable, keeps_out = op.plans, bool(op.rules), op.keeps_out
    saves_input = bool(op.saves.get(0))

    def call(input: Any) -> Any:
        try:
            x = input.array
            plan = plans[x.layout,]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            result = op.apply(input)
            if result is NotImplemented:
                op._refuse((input,))
            return result
        to = plan.layout
        try:
            block = to.free.pop()
        except IndexError:
            out: Any = alloc(to)
            ptr = out.ptr
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = ptr = block.ptr
            out.block = block
            out.version = 0
        call_kernel(ptr, x.ptr, plan.walk)
        t = _new(Tensor)
        t.array = out
        t.grad = None
        if differentiable and mode.grad and input.requires_grad:
            t.node = recorded(op, (input.node or input,), to, (input,) if saves_input else _NOT_SAVED,
                              x.version if saves_input else 0, out if keeps_out else None, None, _ONE)
            t.requires_grad = True
            return t
        t.node = None
        t.requires_grad = False
        return t
    return call


def binary(op: Any) -> Callable[[Any, Any], Any]:
    plans, by_number, plain = op.plans, op.by_number, _PLAIN
    a_rule, b_rule = 0 in op.rules, 1 in op.rules
    differentiable = a_rule or b_rule
    used_by_a, used_by_b = op.saves.get(0, ()), op.saves.get(1, ())
    a_needs_a, a_needs_b, b_needs_a, b_needs_b = 0 in used_by_a, 1 in used_by_a, 0 in used_by_b, 1 in used_by_b
    keeps_out = op.keeps_out

    def call(input: Any, other: Any) -> Any:
        cls = type(other)
        if cls is not Tensor and cls in plain:
            return by_number(input, other)
        try:
            x, y = input.array, other.array
            plan = plans[x.layout, y.layout]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return op.apply(input, other)
        to = plan.layout
        try:
            block = to.free.pop()
        except IndexError:
            out: Any = alloc(to)
            ptr = out.ptr
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = ptr = block.ptr
            out.block = block
            out.version = 0
        call_kernel(ptr, x.ptr, y.ptr, plan.walk)
        t = _new(Tensor)
        t.array = out
        t.grad = None
        if differentiable and mode.grad:
            ra, rb = input.requires_grad, other.requires_grad
            if ra or rb:
                version = 0
                sa = sb = None
                if (ra and a_needs_a) or (rb and b_needs_a):
                    sa = input
                    version = x.version
                if (ra and a_needs_b) or (rb and b_needs_b):
                    sb = other
                    version += y.version
                need_a, need_b = ra and a_rule, rb and b_rule
                edges = (input.node or input) if need_a else None, (other.node or other) if need_b else None
                t.node = recorded(op, edges, to, (sa, sb), version, out if keeps_out else None, None, (need_a, need_b))
                t.requires_grad = True
                return t
        t.node = None
        t.requires_grad = False
        return t
    return call


def ternary(op: Any) -> Callable[[Any, Any, Any], Any]:
    plans, plain = op.plans, _PLAIN

    def call(condition: Any, input: Any, other: Any) -> Any:
        try:
            if type(other) in plain:
                to = input.array.layout
                if to.dtype.kind != "f":
                    return op.apply(condition, input, other)
                other = constant(other, to.dtype, to.device)
            elif type(input) in plain:
                to = other.array.layout
                if to.dtype.kind != "f":
                    return op.apply(condition, input, other)
                input = constant(input, to.dtype, to.device)
            c, x, y = condition.array, input.array, other.array
            plan = plans[c.layout, x.layout, y.layout]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return op.apply(condition, input, other)
        out = alloc(plan.layout)
        call_kernel(out.ptr, c.ptr, x.ptr, y.ptr, plan.walk)
        if mode.grad and (input.requires_grad or other.requires_grad):
            return op.record((condition, input, other), out)
        return new_tensor(out, None)
    return call


def binary_in_place(op: Any) -> Callable[[Any, Any], Any]:
    """`input op= other` of two tensors, after the first time."""
    plans = op.plans

    def call(input: Any, other: Any) -> Any:
        try:
            x, y = input.array, other.array
            to = x.layout
            plan = plans[to, to, y.layout]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return op.into(input, input, other)
        if plan.layout is not to or mode.grad and (input.requires_grad or other.requires_grad) or x.block is y.block:
            return op.into(input, input, other)
        call_kernel(x.ptr, x.ptr, y.ptr, plan.walk)
        x.storage.version += 1
        return input
    return call


def with_number(op: Any, index: int) -> Callable[[Any, Any], Any]:
    """`f(tensor, number)`, the tensor being operand `index`. What a number becomes beside a layout (a constant, a plan) is
    remembered."""
    known: dict[tuple, tuple] = {}
    differentiable, keeps_out = index in op.rules, op.keeps_out
    uses = op.saves.get(index, ())
    saves_tensor, saves_number, needs = index in uses, 1 - index in uses, (index == 0, index == 1)

    def call(input: Any, number: Any) -> Any:
        try:
            x = input.array
            plan, value, address = known[x.layout, type(number), number or repr(number)]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return learn(input, number)
        to = plan.layout
        try:
            block = to.free.pop()
        except IndexError:
            out: Any = alloc(to)
            ptr = out.ptr
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = ptr = block.ptr
            out.block = block
            out.version = 0
        if index:
            call_kernel(ptr, address, x.ptr, plan.walk)
        else:
            call_kernel(ptr, x.ptr, address, plan.walk)
        t = _new(Tensor)
        t.array = out
        t.grad = None
        if differentiable and mode.grad and input.requires_grad:
            edge, saved, value = input.node or input, input if saves_tensor else None, value if saves_number else None
            t.node = recorded(op, (None, edge) if index else (edge, None), to, (value, saved) if index else (saved, value),
                              x.version if saves_tensor else 0, out if keeps_out else None, None, needs)
            t.requires_grad = True
            return t
        t.node = None
        t.requires_grad = False
        return t

    def learn(input: Any, number: Any) -> Any:
        pair = (number, input) if index else (input, number)
        out = op.apply(*pair)
        if out is not NotImplemented and type(number) in _PLAIN and number == number:
            tensors = op.convert(pair)
            plan = op.plans.get(tuple([t.array.layout for t in tensors])) if tensors else None
            if plan is not None and plan.kernel is not None and tensors[index] is input:        # type: ignore[index]
                value = tensors[1 - index]                                                      # type: ignore[index]
                remember(known, (input.array.layout, type(number), number or repr(number)), (plan, value, value.array.ptr))
        return out
    return call


def quick(op: Primitive) -> Any:
    """`op(x, index, *attributes)` in one look-up."""
    names = tuple(inspect.signature(op.prepare).parameters)[2:]
    known: dict[tuple, tuple] = {}

    def call(x: Tensor, index: Tensor, *values: int) -> Tensor:
        a, i = x.array, index.array
        found = known.get((a.layout, i.layout, values))
        if found is None:
            attrs = dict(zip(names, values, strict=True))
            found = remember(known, (a.layout, i.layout, values), (op.prepare(a.layout, i.layout, **attrs), attrs))
        plan, attrs = found
        array = plan.run(a, i)
        if mode.grad and x.requires_grad:
            return new_tensor(array, recorded(op, (x.node or x, None), plan.layout, (None, index), i.version, None, attrs))
        return new_tensor(array, None)
    return call
_NOTHING: tuple = ()


def planner(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Remembers what `plan(layout, *args)` decided."""
    return lru_cache(maxsize=4096, typed=True)(plan)


class ViewPlan(Plan):
    """A plan that launches nothing: the input's memory, `offset` bytes further, under `layout`."""

    __slots__ = ("offset",)

    def __init__(self, to: Layout, offset: int) -> None:
        super().__init__(lambda x: memory.view(x, to, offset), to, "view")
        self.offset = offset


class Bound:
    """An op of one input with its attributes and the plan of one signature."""

    __slots__ = ("op", "attrs", "layout", "offset", "run", "records", "saves")

    def __init__(self, op: Primitive, attrs: dict, plan: Plan) -> None:
        self.op, self.attrs, self.layout, self.run = op, attrs, plan.layout, plan.run
        self.offset = plan.offset if isinstance(plan, ViewPlan) else None
        self.records = builtins.bool(op.rules)
        self.saves = op.keeps_out or builtins.any(op.saves.values())


def bind(op: Primitive, x: Layout, **attrs: Any) -> Bound:
    """The plan of `op` for one signature."""
    key = (x, *attrs.items())
    plan = op.plans.get(key)
    return Bound(op, attrs, remember(op.plans, key, op.prepare(x, **attrs)) if plan is None else plan)


def through(plan: Callable[..., Bound], t: Tensor, *args: Any) -> Tensor:
    """Runs what `plan(layout, *args)` decided, and records it."""
    try:
        a = t.array
        bound = plan(a.layout, *args)
    except (AttributeError, TypeError):
        bound = None                                # type: ignore[assignment]
    if bound is None:                               # an argument that cannot be a key (a list), or is wrong
        if not isinstance(t, Tensor):
            raise TypeError(f"[{plan.__name__.strip('_')}] expected a Tensor; got {type(t).__name__}")
        a = t.array
        bound = plan(a.layout, *[hashable(value) for value in args])
    offset = bound.offset
    array: Array
    if offset is None:
        array = bound.run(a)
    else:
        array = v = _new(memory.View)
        v.layout = bound.layout
        v.ptr = a.ptr + offset
        v.block = a.block
        v.owner = a.owner if type(a) is memory.View else a
    if bound.records and mode.grad and t.requires_grad:
        if bound.saves:
            return bound.op.record((t,), array, bound.attrs)
        out = _new(Tensor)
        out.node = recorded(bound.op, (t.node or t,), bound.layout, _NOTHING, 0, None, bound.attrs)
        out.requires_grad = True
    else:
        out = _new(Tensor)
        out.node = None
        out.requires_grad = False
    out.array = array
    out.grad = None
    return out
