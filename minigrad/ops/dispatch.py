"""The hot path: one dictionary look-up decides everything that an earlier call decided for the same layouts.

The functions below make the closures that users call. They make tensors without `new_tensor`, and a kernel takes the
block that it writes to from its pool (`Plan.launch`): measured, that is worth 130 ns of the 1,600 ns of an operation.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any

import numpy as np

from ..core.half import constants
from ..core.messages import not_a_tensor
from ..core.modes import changed, mode, paused
from ..core.op import Op, complete
from ..core.own_kernels import ops
from ..core.shape import fail
from ..core.tape import recorded
from ..core.tensor import Tensor, new_tensor
from ..devices.base import Device
from ..devices.memory import Buffer, View, alloc
from ..devices.plan import remember
from .arguments import fits, is_number, must_fit

_new = object.__new__
_PLAIN = frozenset((float, int, bool))
_ONE = (True,)
_NOTHING: tuple = ()
_constants: dict[tuple, Tensor] = {}


def held(value: Any, dtype: np.dtype, device: Device) -> Tensor | None:
    """A Python number as a 0-d tensor, one per value: never write to it. None if `dtype` cannot hold the number."""
    key = (device, dtype, type(value), value or repr(value))        # 0.0 == -0.0, but they are two values
    found = _constants.get(key)
    if found is None:
        number = value.item() if isinstance(value, np.generic) else value
        if not fits(number, dtype):
            return None
        found = new_tensor(device.upload(np.array(int(number) if dtype.kind in "iu" else number, dtype)), None)
        constants[id(found)] = found
        if value == value:                                          # a NaN is not equal to itself: no key
            remember(_constants, key, found)
    return found


def constant(value: Any, dtype: np.dtype, device: Device, op: str = "constant") -> Tensor:
    """The same, for a number that is to be stored: TypeError if it is no number, RuntimeError if it does not fit."""
    if not is_number(value):
        fail(op, "the value must be a number", type(value).__name__, kind=TypeError)
    found = held(value, dtype, device)
    if found is None:
        must_fit(op, value.item() if isinstance(value, np.generic) else value, dtype)
    return found        # type: ignore[return-value]


def described(call: Callable, name: str, doc: str | None, shown: Any = None) -> Callable:
    """The function with the name, text and signature that `help` shows."""
    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    if shown is not None:
        call.__signature__ = shown          # type: ignore[attr-defined]
    return call


# ---- elementwise primitives ---------------------------------------------------------------------------------------

def unary(op: Any) -> Callable[[Any], Any]:
    plans, differentiable, keeps_out = op.plans, bool(op.rules), 0 in op.out_for
    saves_input = bool(op.saves.get(0))

    def call(input: Any) -> Any:
        try:
            x = input.array
            plan = plans[x.layout,]
            launch = plan.launch
        except (AttributeError, KeyError):
            launch = None
        if launch is None:                      # outside of the handler: an error then is not shown below a KeyError
            result = op.apply(input)
            if result is NotImplemented:
                op.refuse((input,))
            return result
        to = plan.layout
        block = launch(x.ptr)
        if block is None:
            out: Any = alloc(to)
            plan.kernel.call(out.ptr, x.ptr, plan.walk)
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = block.ptr
            out.block = block
            out.version = 0
        t = _new(Tensor)
        t.array = out
        t._grad = None
        if differentiable and input._requires_grad and (not paused or mode.grad):
            t.node = recorded(op, (input.node or input,), to, (input,) if saves_input else _NOTHING,
                              x.version if saves_input else 0, out if keeps_out else None, None, _ONE)
            t._requires_grad = True
            return t
        t.node = None
        t._requires_grad = False
        return t
    return call


def binary(op: Any) -> Callable[[Any, Any], Any]:
    plans, by_number, plain = op.plans, op.by_number, _PLAIN
    a_rule, b_rule, out_for_a, out_for_b = 0 in op.rules, 1 in op.rules, 0 in op.out_for, 1 in op.out_for
    differentiable, keeps_out = a_rule or b_rule, out_for_a or out_for_b
    used_by_a, used_by_b = op.saves.get(0, ()), op.saves.get(1, ())
    a_needs_a, a_needs_b, b_needs_a, b_needs_b = 0 in used_by_a, 1 in used_by_a, 0 in used_by_b, 1 in used_by_b

    def call(input: Any, other: Any) -> Any:
        cls = type(other)
        if cls is not Tensor and cls in plain:
            return by_number(input, other)
        try:
            x, y = input.array, other.array
            plan = plans[x.layout, y.layout]
            launch = plan.launch
        except (AttributeError, KeyError):
            launch = None
        if launch is None:
            return op.apply(input, other)
        to = plan.layout
        block = launch(x.ptr, y.ptr)
        if block is None:
            out: Any = alloc(to)
            plan.kernel.call(out.ptr, x.ptr, y.ptr, plan.walk)
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = block.ptr
            out.block = block
            out.version = 0
        t = _new(Tensor)
        t.array = out
        t._grad = None
        if differentiable:
            ra, rb = input._requires_grad, other._requires_grad
            if (ra or rb) and (not paused or mode.grad):
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
                saved = _NOTHING if sa is None and sb is None else (sa, sb)
                kept = out if keeps_out and (need_a and out_for_a or need_b and out_for_b) else None
                t.node = recorded(op, edges, to, saved, version, kept, None, (need_a, need_b))
                t._requires_grad = True
                return t
        t.node = None
        t._requires_grad = False
        return t
    return call


def ternary(op: Any) -> Callable[[Any, Any, Any], Any]:
    plans, plain = op.plans, _PLAIN

    def call(condition: Any, input: Any, other: Any) -> Any:
        try:
            if type(other) in plain and (to := input.array.layout).dtype.kind == "f":
                other = constant(other, to.dtype, to.device, op.name)
            elif type(input) in plain and (to := other.array.layout).dtype.kind == "f":
                input = constant(input, to.dtype, to.device, op.name)
            c, x, y = condition.array, input.array, other.array
            plan = plans[c.layout, x.layout, y.layout]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            call_kernel = None
        if call_kernel is None:
            return op.apply(condition, input, other)
        out = alloc(plan.layout)
        call_kernel(out.ptr, c.ptr, x.ptr, y.ptr, plan.walk)
        if (input._requires_grad or other._requires_grad) and (not paused or mode.grad):
            return op.record(plan, (condition, input, other), out)
        return new_tensor(out, None)
    return call


def binary_in_place(op: Any, general: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """`input op= other` outside the graph, after the first time; else `general`."""
    plans, refuses = op.plans, op.power                     # negative powers of integers

    def call(input: Any, other: Any) -> Any:
        number = other
        try:
            x = input.array
            to = x.layout
            whole = to.dtype.kind == "i" and type(other) is int and (other >= 0 or not refuses)
            if whole or type(other) in (int, float) and to.dtype.char in "fd":
                other = held(other, to.dtype, to.device)            # None if it does not fit
            y = other.array
            plan = plans[to, to, y.layout]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            call_kernel = None
        if call_kernel is None:
            return general(input, number)
        if (plan.layout is not to or (input._requires_grad or other._requires_grad) and mode.grad or x.block is y.block
                or type(x) is View and x.plan is None):
            return general(input, number)
        call_kernel(x.ptr, x.ptr, y.ptr, plan.walk)
        x.storage.version += 1
        return input
    return call


def _learner(op: Any, index: int, known: dict[tuple, tuple]) -> Callable[[Any, Any], Any]:
    """The first call of `with_number` for a layout and a number: it runs the general path and fills `known`."""
    def learn(input: Any, number: Any) -> Any:
        pair = (number, input) if index else (input, number)
        if index and not isinstance(input, Tensor):         # Tensor.__radd__(2, t)
            raise not_a_tensor(op.name, "self", input)
        out = op.apply(*pair)
        if out is not NotImplemented and type(number) in _PLAIN and number == number:
            tensors = op.convert(pair)[0]
            plan = op.plans.get(tuple([t.array.layout for t in tensors]))
            if plan is not None and plan.kernel is not None and tensors[index] is input:
                value = tensors[1 - index]
                key = (input.array.layout, type(number), number or repr(number))
                remember(known, key, (plan, value, value.array.ptr))
        return out
    return learn


def with_number(op: Any, index: int) -> Callable[[Any, Any], Any]:
    """`f(tensor, number)`, where the tensor is operand `index`. What a number becomes beside a layout (a constant and a
    plan) is remembered."""
    known: dict[tuple, tuple] = {}
    learn = _learner(op, index, known)
    differentiable, keeps_out = index in op.rules, index in op.out_for
    uses = op.saves.get(index, ())
    saves_tensor, saves_number, needs = index in uses, 1 - index in uses, (index == 0, index == 1)

    def call(input: Any, number: Any) -> Any:
        try:
            x = input.array
            plan, value, address = known[x.layout, type(number), number or repr(number)]
            launch = plan.launch
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):     # the last three: arrays, tensors
            launch = None
        if launch is None:
            return learn(input, number)
        to = plan.layout
        a, b = (address, x.ptr) if index else (x.ptr, address)
        block = launch(a, b)
        if block is None:
            out: Any = alloc(to)
            plan.kernel.call(out.ptr, a, b, plan.walk)
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = block.ptr
            out.block = block
            out.version = 0
        t = _new(Tensor)
        t.array = out
        t._grad = None
        if differentiable and input._requires_grad and (not paused or mode.grad):
            edge, version = input.node or input, x.version if saves_tensor else 0
            saved = _NOTHING
            if saves_tensor or saves_number:
                kept, value = input if saves_tensor else None, value if saves_number else None
                saved = (value, kept) if index else (kept, value)
            edges = (None, edge) if index else (edge, None)
            t.node = recorded(op, edges, to, saved, version, out if keeps_out else None, None, needs)
            t._requires_grad = True
            return t
        t.node = None
        t._requires_grad = False
        return t
    return call


# ---- activations --------------------------------------------------------------------------------------------------

INPUT, OUTPUT, BOTH = "input", "output", "both"


def activation(op: Op, saves: str) -> Callable[[Any], Tensor]:
    """The call of a composite of one tensor whose kernel is walked by a plan."""
    plans: Any = op.plans

    @wraps(op.definition)
    def call(input: Any) -> Tensor:
        try:
            x = input.array
            plan = plans[x.layout,]
            launch = plan.launch
        except (AttributeError, KeyError):
            launch = None
        if launch is None:
            return op(input)
        to = plan.layout
        block = launch(x.ptr)
        if block is None:
            out = alloc(to)
            plan.kernel.call(out.ptr, x.ptr, plan.walk)
        else:
            out = _new(Buffer)
            out.layout = to
            out.ptr = block.ptr
            out.block = block
            out.version = 0
        t = _new(Tensor)
        t.array = out
        t._grad = None
        if input._requires_grad and (not paused or mode.grad):
            saved = plan, (input,), x if saves == INPUT else out if saves == OUTPUT else (out, [x, x.version])
            t.node = recorded(op, (input.node or input,), to, saved, x.version, None, plan.attrs)
            t._requires_grad = True
            return t
        t.node = None
        t._requires_grad = False
        return t
    return call


def activation_with_numbers(op: Op, saves: str) -> Callable[..., Tensor]:
    """The same for a composite of one tensor and some numbers, which may be given by position or by name."""
    plans: Any = op.plans
    names, count = op.attributes, len(op.attributes)

    @wraps(op.definition)
    def call(input: Any, *numbers: Any, **named: Any) -> Tensor:
        if named or len(numbers) != count:
            given = dict(zip(names, numbers, strict=False))
            if len(numbers) > count or given.keys() & named.keys():
                raise TypeError(f"[{op.name}] takes a tensor and ({', '.join(names)}); got {[*numbers, *named]}")
            attrs = complete(op.name, names, op.defaults, {**given, **named})
            numbers = tuple([attrs[n] for n in names])
        try:
            x = input.array
            key = (x.layout, *numbers)
            if 0.0 in numbers:
                key = (*key, *[repr(n) for n in numbers if not n])      # as in `Op.__call__`
            plan = plans[key]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError, TypeError):
            call_kernel = None
        if call_kernel is None:
            return op(input, **dict(zip(names, numbers, strict=True)))
        to = plan.layout
        out = alloc(to)
        call_kernel(out.ptr, x.ptr, plan.walk, *numbers)
        if input._requires_grad and (not paused or mode.grad):
            saved = plan, (input,), x if saves == INPUT else out if saves == OUTPUT else (out, [x, x.version])
            return new_tensor(out, recorded(op, (input.node or input,), to, saved, x.version, None, plan.attrs))
        return new_tensor(out, None)
    shown = signature(op.definition)
    either = [p.replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for p in shown.parameters.values()]
    call.__signature__ = shown.replace(parameters=either)       # type: ignore[attr-defined]
    return call


# ---- which path composites take -----------------------------------------------------------------------------------

class set_fused:
    """Which path composites take: "auto" (kernels where they apply), "off" (definitions), "require" (raise where no
    kernel applies). As a call, or for the length of a `with` block."""

    def __init__(self, choice: str) -> None:
        if choice not in ("auto", "off", "require"):
            raise ValueError(f"[set_fused] expected 'auto', 'off' or 'require'; got {choice!r}")
        self.before = mode.fused
        self._set(choice)

    @staticmethod
    def _set(choice: str) -> None:
        type(mode).fused = choice
        for known in list(ops):
            known.plans.clear()
        changed()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._set(self.before)
