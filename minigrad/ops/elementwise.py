"""Elementwise primitives: one kernel each, walked by a plan; broadcasting, promotion, copies and casts.

The kernels are in native/elementwise.c and ops/elementwise.cu. 16-bit floats are computed in float32, as PyTorch does; other
dtypes without a kernel go through the same door as a NumPy function with `out=`. What can be composed of these primitives is,
in pointwise.py and activation.py.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from .. import engine
from ..device import Device, Kernel
from ..engine import Node, mode, sequence
from ..memory import Array, Buffer, Layout, alloc, layout
from ..op import Plan, Primitive, remember, same_device
from ..shape import (
    BOOL,
    FLOAT32,
    INT64,
    broadcast_shapes,
    default_float,
    elementwise_plan,
    fail,
    is_float,
    promote,
    result_type,
    scalar_type,
)
from ..tensor import Tensor, bump, new_tensor, writable

_new = object.__new__
NUMBERS = (float, int, bool, np.floating, np.integer, np.bool_)
_PLAIN = frozenset((float, int, bool))
_ONE = (True,)
_constants: dict[tuple, Tensor] = {}


class _Plan:
    """A signature with a kernel: `kernel.call(out, inputs..., walk)`. Without one: `wide`, the plan in float32, or NumPy."""

    __slots__ = ("kernel", "layout", "walk", "keep", "why", "wide")

    def __init__(self, kernel: Kernel | None, to: Layout, plan: Array | None, why: str, wide: _Plan | None = None) -> None:
        self.kernel, self.layout, self.keep, self.why, self.wide = kernel, to, plan, why, wide
        self.walk = plan.ptr if plan is not None else 0


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


def is_operand(*values: Any) -> bool:
    """Is each a tensor or a number?"""
    return all([isinstance(v, (Tensor, np.ndarray, *NUMBERS)) for v in values])


def _kind(dtype: np.dtype) -> str:
    return "f" if is_float(dtype) else "b" if dtype == BOOL else "i"


class Elementwise(Primitive):
    """`out[i] = function(a[i], b[i], ...)` with broadcasting. `result`: "same" dtype as the operands, "float" (integers are
    converted first) or "bool". `kinds` are the dtypes it is defined for: b(ool) i(nteger) f(loat). `domain` is where samples
    are drawn from, for all inputs or one each; `function` NumPy's, `oracle` what tests compare with if not `function`. The public
    function refuses numbers as its first `tensors` arguments, as PyTorch's does; the operators and `call` take them."""

    plans: dict[tuple, Any]     # type: ignore[assignment]
    call: Callable[..., Any]

    def __init__(self, name: str, function: Callable | None, inputs: str, vjps: dict[str, Callable] | None = None, *, result: str = "same",
                 kinds: str = "bif", domain: tuple = (-2.0, 2.0), oracle: Callable | None = None, tensors: int = 0,
                 doc: str | None = None) -> None:
        super().__init__(name, self._prepare, vjps, inputs.split(), doc)      # type: ignore[arg-type]
        self.function, self.result, self.kinds, self.tensors = function, result, kinds, tensors
        self.domains = domain if isinstance(domain[0], tuple) else (domain,) * len(self.inputs)
        self.dtypes: dict[tuple, np.dtype] = {}             # of the computation, by the operands' layouts and types
        self.by_number: Callable = _with_number(self, 0)    # f(tensor, number)
        self.reflected: Callable = _with_number(self, 1)    # f(tensor, number): the number is the first operand
        self.call = (_unary, _binary, _choice)[len(self.inputs) - 1](self)
        self.sample_function, self.error_function, self.oracle = self._samples, self._errors, oracle or function

    def __call__(self, *inputs: Any, out: Tensor | None = None, **named: Any) -> Tensor:
        if named:
            inputs += tuple([named.pop(n) for n in self.inputs[len(inputs):] if n in named])
        if named or len(inputs) != len(self.inputs):
            got = f"unexpected {', '.join(named)}" if named else f"got {len(inputs)}"
            raise TypeError(f"[{self.name}] takes {len(self.inputs)} arguments ({', '.join(self.inputs)}); {got}")
        if self.tensors:
            for name, t in zip(self.inputs[:self.tensors], inputs, strict=False):
                if isinstance(t, NUMBERS):
                    raise TypeError(f"[{self.name}] {name} must be a tensor; got {type(t).__name__}")
        if out is not None:
            return self.into(out, *inputs)
        result = self.call(*inputs)
        if result is NotImplemented:
            self._refuse(inputs)
        return result

    def _refuse(self, inputs: tuple) -> None:
        raise TypeError(f"[{self.name}] arguments must be tensors or numbers, at least one a tensor; got "
                        f"{', '.join(type(i).__name__ for i in inputs)}")

    @property
    def method(self) -> Callable:
        """The form that binds as a method of Tensor."""
        if len(self.inputs) == 1:
            return self.call

        def method(input: Tensor, *others: Any, **named: Any) -> Tensor:
            return self(input, *others, **named)
        method.__name__, method.__doc__ = self.name, self.__doc__
        return method

    # ---- signatures ----

    def _prepare(self, *layouts: Layout) -> _Plan:
        """Checks one signature whose dtypes agree already, and finds its kernel."""
        first, dtype = layouts[0], layouts[-1].dtype
        same_device(self.name, layouts)
        self.allow(dtype)
        shape = first.shape if len(layouts) == 1 else broadcast_shapes(self.name, *[x.shape for x in layouts])
        out = layout(first.device, BOOL if self.result == "bool" else dtype, shape)
        kernel = self.kernel(layouts)
        if kernel is not None:
            return _Plan(kernel, out, elementwise_plan(out, *layouts), f"kernel {kernel.name}")
        if is_float(dtype) and dtype.itemsize == 2:
            wide = self._prepare(*[layout(x.device, FLOAT32 if x.dtype == dtype else x.dtype, x.shape) for x in layouts])
            return _Plan(None, out, None, f"{dtype} is computed in float32", wide)
        if self.function is None:
            fail(self.name, f"there is no kernel for {dtype} on {first.device}", layouts, kind=NotImplementedError)
        return _Plan(None, out, None, f"no {self.name} kernel for {dtype}: NumPy behind the door")

    def allow(self, dtype: np.dtype) -> None:
        if _kind(dtype) not in self.kinds:
            fix = "use ~ or logical_not() and ^ or logical_xor() on masks, or convert" if dtype == BOOL else "convert first"
            fail(self.name, f"is not defined for {dtype} tensors", "", fix, NotImplementedError)

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return getattr(layouts[0].device.kernels, self.name).get(layouts[0].dtype)

    def common_dtype(self, inputs: tuple[Any, ...]) -> np.dtype:
        """The dtype of the computation: PyTorch's promotion."""
        dtype = result_type(*[t.array.layout for t in inputs if isinstance(t, Tensor)])
        for t in inputs:
            if not isinstance(t, Tensor):
                dtype = promote(dtype, scalar_type(t.item() if isinstance(t, np.generic) else t, dtype))
        return default_float() if self.result == "float" and not is_float(dtype) else dtype

    def convert(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        """The operands as tensors of one dtype. None if something is neither a tensor nor a number."""
        key = (default_float(), *[t.array.layout if isinstance(t, Tensor) else type(t) for t in inputs])
        dtype = self.dtypes.get(key)
        if dtype is None:
            if not any([isinstance(t, Tensor) for t in inputs]) or not is_operand(*inputs):
                return None
            if any([isinstance(t, np.ndarray) for t in inputs]):
                return self.convert(tuple([engine.as_tensor(t) if isinstance(t, np.ndarray) else t for t in inputs]))
            dtype = remember(self.dtypes, key, self.common_dtype(inputs))
        device = next(t for t in inputs if isinstance(t, Tensor)).array.layout.device
        return tuple([constant(t, dtype, device) if not isinstance(t, Tensor) else
                      t if t.array.layout.dtype == dtype else cast(t, dtype) for t in inputs])

    # ---- running ----

    def apply(self, *inputs: Any) -> Any:
        """The general path: numbers, promotion, any arity, dtypes without a kernel."""
        tensors = self.convert(inputs)
        if tensors is None:
            return NotImplemented
        key = tuple([t.array.layout for t in tensors])
        plan = self.plans.get(key)
        if plan is None:
            plan = remember(self.plans, key, self._prepare(*key))
        out = alloc(plan.layout)
        self.launch(plan, out, [t.array for t in tensors])
        if mode.grad and self.rules and any([t.requires_grad for t in tensors]):
            return self.record(tensors, out)
        return new_tensor(out, None)

    def launch(self, plan: _Plan, out: Array, arrays: list[Array]) -> None:
        if plan.kernel is not None:
            plan.kernel.call(out.ptr, *[a.ptr for a in arrays], plan.walk)
        elif plan.wide is not None:
            narrow = arrays[-1].layout.dtype
            wide = alloc(plan.wide.layout)
            self.launch(plan.wide, wide, [cast_array(a, FLOAT32) if a.layout.dtype == narrow else a for a in arrays])
            copy_array(out, wide)
        else:
            plan.layout.device.host.call(self.function, out.np, *[a.np for a in arrays])

    def into(self, target: Tensor, *inputs: Any) -> Tensor:
        """Writes the result into `target` (in place; not recorded)."""
        if mode.grad:
            for t in (target, *inputs):
                if isinstance(t, Tensor):
                    writable(self.name + "_", t)
        tensors = self.convert(inputs)
        if tensors is None:
            self._refuse(inputs)
        to = target.array.layout
        key = (to, *[t.array.layout for t in tensors])      # type: ignore[union-attr]
        plan = self.plans.get(key)
        if plan is None:
            written_once(self.name + "_", to)
            plan = remember(self.plans, key, self._prepare_into(*key))
        place = target.array
        arrays = [t.array for t in tensors]                 # type: ignore[union-attr]
        if plan.layout is to and not any([a.storage is place.storage and (a.layout is not to or a.ptr != place.ptr) for a in arrays]):
            self.launch(plan, target.array, arrays)
        else:                           # the result is made aside, then copied
            aside = alloc(layout(to.device, plan.layout.dtype, to.shape))
            self.launch(self._prepare(*key[1:]), aside, arrays)
            copy_array(target.array, aside)
        return bump(target)

    def _prepare_into(self, to: Layout, *layouts: Layout) -> _Plan:
        plan = self._prepare(*layouts)
        have = plan.layout
        if have.shape != to.shape:
            fail(self.name + "_", "the result must have the shape of the tensor written to", [to, have], "use the out-of-place form")
        if "bif".index(_kind(have.dtype)) > "bif".index(_kind(to.dtype)):
            fail(self.name + "_", f"a {have.dtype} result cannot be written into a {to.dtype} tensor", to, "convert first")
        if have.dtype == to.dtype and have.device is to.device and plan.kernel is not None:
            return _Plan(plan.kernel, to, elementwise_plan(to, *layouts), plan.why)
        return plan

    # ---- samples ----

    def _samples(self, make: Any) -> Iterator[tuple]:
        shapes: tuple = ((3, 5), (31,), (32,), (33,), (1,), (), (0, 4))
        if len(self.inputs) == 2:
            shapes = (((3, 5), (3, 5)), ((31,), ()), ((4, 1), (33,)), ((2, 1, 4), (3, 1)), ((1,), (1,)), ((), ()), ((0, 3), (1, 3)))
        for shape in shapes:
            yield tuple(self._draw(make, s, d) for s, d in zip(shape if len(self.inputs) == 2 else (shape,), self.domains, strict=True))

    def _draw(self, make: Any, shape: tuple, domain: tuple) -> Any:
        if "f" in self.kinds:
            return make(*shape, low=domain[0], high=domain[1])
        return make.ints(*shape) if "i" in self.kinds else make.bools(*shape)

    def _errors(self, make: Any) -> Iterator[tuple]:
        if len(self.inputs) == 2:
            yield (self._draw(make, (3, 4), self.domains[0]), self._draw(make, (5,), self.domains[1]), {}), RuntimeError, "broadcast"
            yield (self._draw(make, (3,), self.domains[0]), "two", {}), TypeError, "tensors or numbers"
        else:
            yield ("two", {}), TypeError, "tensors or numbers"


def written_once(op: str, to: Layout) -> None:
    """Refuses to write where several elements lie on one another (an expanded tensor, overlapping windows)."""
    span = sum([(n - 1) * (s if s > 0 else -s) for n, s in zip(to.shape, to.strides, strict=True)]) + 1
    if not to.contiguous and to.size > span:
        fail(op, "several elements of the tensor written to share one place in memory", to, "write into a clone() of it")


def accumulate(target: Tensor, more: Tensor) -> None:
    """target += more, for gradients of one layout: the engine's own buffers and `.grad`."""
    x, y = target.array, more.array
    key = x.layout, y.layout
    plan = add.plans.get(key)
    if plan is None:
        plan = remember(add.plans, key, add._prepare(*key))
    if plan.kernel is None or plan.layout is not x.layout:
        add.into(target, target, more)
    else:
        plan.kernel.call(x.ptr, x.ptr, y.ptr, plan.walk)
        (x if type(x) is Buffer else x.storage).version += 1      # type: ignore[misc]


# ---- the hot path: one dictionary look-up decides everything that was decided before for these layouts ----------------

def _unary(op: Elementwise) -> Callable[[Any], Any]:
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
            t.node = node = _new(Node)       # attribute by attribute: a call of Node takes 80 ns more
            node.op = op
            node.inputs = (input.node or input,)
            node.needs = _ONE
            node.layout = to
            node.saved = (input,) if saves_input else (None,)
            node.version = x.version if saves_input else 0
            node.out = out if keeps_out else None
            node.attrs = None
            node.seq = next(sequence)
            t.requires_grad = True
            return t
        t.node = None
        t.requires_grad = False
        return t
    return call


def _binary(op: Elementwise) -> Callable[[Any, Any], Any]:
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
                t.node = node = _new(Node)       # attribute by attribute: a call of Node takes 80 ns more
                node.op = op
                node.needs = need_a, need_b = ra and a_rule, rb and b_rule
                node.inputs = (input.node or input) if need_a else None, (other.node or other) if need_b else None
                node.layout = to
                node.saved = sa, sb
                node.version = version
                node.out = out if keeps_out else None
                node.attrs = None
                node.seq = next(sequence)
                t.requires_grad = True
                return t
        t.node = None
        t.requires_grad = False
        return t
    return call


def _choice(op: Elementwise) -> Callable[[Any, Any, Any], Any]:
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


def _in_place(op: Elementwise) -> Callable[[Any, Any], Any]:
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


def _with_number(op: Elementwise, index: int) -> Callable[[Any, Any], Any]:
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
            t.node = node = _new(Node)       # attribute by attribute: a call of Node takes 80 ns more
            node.op = op
            node.inputs = (None, edge) if index else (edge, None)
            node.needs = needs
            node.layout = to
            node.saved = (value, saved) if index else (saved, value)
            node.version = x.version if saves_tensor else 0
            node.out = out if keeps_out else None
            node.attrs = None
            node.seq = next(sequence)
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


# ---- the forms that differ ---------------------------------------------------------------------------------------------

class Where(Elementwise):
    """`condition ? input : other`; the condition is bool, the others share a dtype."""

    def __call__(self, condition: Any, *inputs: Any, **named: Any) -> Any:      # type: ignore[override]
        if not inputs and not named:
            from .index import nonzero
            return nonzero(condition, as_tuple=True)
        return super().__call__(condition, *inputs, **named)

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return layouts[0].device.kernels.where.move(layouts[1].dtype)

    def common_dtype(self, inputs: tuple[Any, ...]) -> np.dtype:
        if any([isinstance(t, Tensor) for t in inputs]):
            return super().common_dtype(inputs)
        types = [scalar_type(t, BOOL) for t in inputs]
        return promote(*types)

    def convert(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        condition, a, b = inputs
        if not isinstance(condition, Tensor) or not is_operand(a, b):
            return None
        if condition.array.layout.dtype != BOOL:
            fail("where", "condition must be bool", condition.array.layout, "compare first, e.g. x > 0")
        if not isinstance(a, Tensor) and not isinstance(b, Tensor):
            dtype, device = self.common_dtype((a, b)), condition.array.layout.device
            return condition, constant(a, dtype, device), constant(b, dtype, device)
        pair = super().convert((a, b))
        return None if pair is None else (condition, *pair)

    def _samples(self, make: Any) -> Iterator[tuple]:
        yield make.bools(3, 5), make(3, 5), make(3, 5)
        yield make.bools(33), make(4, 33), make(4, 1)
        yield make.bools(3, 1), make(1), make(5)
        yield make.bools(0, 2), make(2), make()

    def _errors(self, make: Any) -> Iterator[tuple]:
        yield (make(3), make(3), make(3), {}), RuntimeError, "condition must be bool"
        yield (make.bools(3), make(4), make(3), {}), RuntimeError, "broadcast"


class Move(Elementwise):
    """`copy`: the kernel goes by item size."""

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return getattr(layouts[0].device.kernels, self.name).move(layouts[0].dtype)


class Logical(Elementwise):
    """Truth values: operands of other dtypes are compared with 0 first."""

    def convert(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        tensors = super().convert(inputs)
        return None if tensors is None else tuple([cast(t, BOOL) for t in tensors])


class Bitwise(Elementwise):
    """Integers bit by bit (NumPy behind the door), bools by the kernel of the logical function."""

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return getattr(layouts[0].device.kernels, self.name.replace("bitwise", "logical")).get(BOOL) if layouts[0].dtype == BOOL else None


class Division(Elementwise):
    """Whole-number division of integers looks for a zero divisor first, and so runs NumPy's function behind the door."""

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return super().kernel(layouts) if is_float(layouts[0].dtype) else None

    def _samples(self, make: Any) -> Iterator[tuple]:
        yield from super()._samples(make)
        yield make.ints(3, 5) - 5, make.ints(5) + 1

    def _errors(self, make: Any) -> Iterator[tuple]:
        yield from super()._errors(make)
        yield (make.ints(3), 0, {}), RuntimeError, "ZeroDivisionError"


def _whole(function: Callable) -> Callable:
    """A NumPy division that refuses zero divisors of integers."""
    def run(a: Any, b: Any, out: Any) -> None:
        if b.dtype.kind in "iu" and (b == 0).any():
            fail(function.__name__, "ZeroDivisionError: an integer was divided by zero", "", "use floats, or where()")
        function(a, b, out=out)
    return run


def _keeps_integers(function: Callable) -> Callable:
    """A rounding function, the identity on integers."""
    def run(a: Any, out: Any) -> None:
        np.copyto(out, a) if a.dtype.kind in "iub" else function(a, out=out)
    return run


def _integer_power(a: Any, b: Any, out: Any) -> None:
    """Negative powers of integers are 0, but of 1 and -1."""
    if a.dtype.kind not in "iu":
        np.power(a, b, out=out)
        return
    negative = b < 0
    sign = np.where((a == -1) & (b % 2 != 0), -1, np.where(np.abs(a) == 1, 1, 0))
    np.copyto(out, np.where(negative, sign, np.power(a, np.where(negative, 0, b))), casting="unsafe")


def _scipy(name: str) -> Callable:
    """An oracle for tests; nothing else needs SciPy."""
    def oracle(*arrays: Any) -> Any:
        import scipy.special
        return getattr(scipy.special, name)(*arrays)
    return oracle


# ---- the primitives: gradients are those of the formula; at kinks, PyTorch's choice ------------------------------------

def zeros_of(g: Tensor) -> Tensor:
    """Zeros like `g`: the gradient of what is constant wherever it has one."""
    to = g.array.layout
    out = alloc(layout(to.device, to.dtype, to.shape))
    copy_array(out, constant(0, to.dtype, to.device).array)
    return new_tensor(out, None)


def _half_where_equal(g: Tensor, a: Tensor, b: Tensor, below: Callable) -> Tensor:
    """The gradient of maximum or minimum in `a`: none where it lost, half in a tie."""
    return where(below(a, b), 0.0, where(eq(a, b), mul(g, 0.5), g))


def _power_rule(g: Tensor, input: Tensor, exponent: Tensor) -> Tensor:
    return where(eq(exponent, 0), 0.0, mul(g, mul(exponent, pow(input, sub(exponent, 1)))))


def _exponent_rule(g: Tensor, input: Tensor, exponent: Tensor, out: Tensor) -> Tensor:
    flat = logical_and(eq(input, 0), ge(exponent, 0))           # 0^b is constant in b; 0 log 0 is not what is meant
    return where(flat, 0.0, mul(g, mul(out, log(where(flat, 1.0, input)))))


def _atan2_rule(g: Tensor, numerator: Tensor, input: Tensor, other: Tensor) -> Tensor:
    norm = add(square(input), square(other))
    return mul(g, div(numerator, where(eq(norm, 0), 1.0, norm)))        # 0 at the origin


_POSITIVE, _WHOLE, _INSIDE = (0.1, 4.0), (0.2, 3.0), (-0.9, 0.9)
_LN2, _LN10, _2_SQRTPI = math.log(2), math.log(10), 2 / math.sqrt(math.pi)


class Scaled(Elementwise):
    """`input + alpha * other`, or minus."""

    def __call__(self, input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:      # type: ignore[override]
        return super().__call__(input, other if type(alpha) is int and alpha == 1 else self.scaled(input, other, alpha), out=out)

    def into(self, target: Tensor, input: Any, other: Any, *, alpha: Any = 1) -> Tensor:      # type: ignore[override]
        return super().into(target, input, other if type(alpha) is int and alpha == 1 else self.scaled(input, other, alpha))

    def scaled(self, input: Any, other: Any, alpha: Any) -> Any:
        real = any([isinstance(t, float) or isinstance(t, Tensor) and is_float(t.dtype) for t in (input, other)])
        if isinstance(alpha, float) and not real:
            fail(self.name, "alpha must be a whole number for integer tensors", alpha, "convert the tensors with .float()")
        return mul(other, alpha) if isinstance(other, Tensor) else other * alpha


class Difference(Scaled):
    """`input - alpha * other`, which is not for masks."""

    def common_dtype(self, inputs: tuple[Any, ...]) -> np.dtype:
        for t in inputs:
            self.allow(t.array.layout.dtype if isinstance(t, Tensor) else BOOL if isinstance(t, (bool, np.bool_)) else FLOAT32)
        return super().common_dtype(inputs)


class Square(Elementwise):
    """The square of a mask is an integer."""

    def common_dtype(self, inputs: tuple[Any, ...]) -> np.dtype:
        dtype = super().common_dtype(inputs)
        return INT64 if dtype == BOOL else dtype


class Quotient(Elementwise):
    """`input / other`; `rounding_mode` "floor" or "trunc" rounds, keeps integers integers, and has gradient 0."""

    def __call__(self, input: Any, other: Any, *, rounding_mode: str | None = None,      # type: ignore[override]
                 out: Tensor | None = None) -> Tensor:
        if rounding_mode is None:
            return super().__call__(input, other, out=out)
        result = self.rounded(input, other, rounding_mode)
        return result if out is None else copy.into(out, result)

    def into(self, target: Tensor, input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:      # type: ignore[override]
        if rounding_mode is None:
            return super().into(target, input, other)
        return copy.into(target, self.rounded(input, other, rounding_mode))

    def rounded(self, input: Any, other: Any, mode: str) -> Tensor:
        if mode == "floor":
            return floor_divide(input, other)
        if mode != "trunc":
            fail("div", "rounding_mode must be None, 'trunc' or 'floor'", repr(mode))
        if any([is_float(t.dtype) if isinstance(t, Tensor) else isinstance(t, float) for t in (input, other)]):
            return trunc(div(input, other))
        return floor_divide(sub(input, fmod.call(input, other)), other)


add = Scaled("add", np.add, "input other", {"input": lambda g: g, "other": lambda g: g}, doc="input + alpha * other")
sub = Difference("sub", np.subtract, "input other", {"input": lambda g: g, "other": lambda g: neg(g)}, kinds="if",
                 doc="input - alpha * other")
mul: Elementwise = Elementwise("mul", np.multiply, "input other",
                               {"input": lambda g, other: mul.call(g, other), "other": lambda g, input: mul.call(g, input)},
                               doc="input * other")
div: Elementwise = Quotient("div", np.true_divide, "input other", {"input": lambda g, other: div(g, other),
                                                      "other": lambda g, other, out: neg(div(mul(g, out), other))},
                  result="float", domain=((-2.0, 2.0), _POSITIVE), doc="input / other")
neg: Elementwise = Elementwise("neg", np.negative, "input", {"input": lambda g: neg(g)}, kinds="if", doc="-input")
abs = Elementwise("abs", np.absolute, "input", {"input": lambda g, input: mul(g, sign(input))}, kinds="if", doc="|input|; gradient 0 at 0.")
sign: Elementwise = Elementwise("sign", lambda a, out: np.copyto(out, a) if a.dtype == BOOL else np.sign(a, out=out), "input",
                   {"input": lambda g: zeros_of(g)}, oracle=lambda a: np.where(np.isnan(a), 0, np.sign(a)),
                   doc="-1, 0 or 1, as input is negative, zero or positive; 0 for NaN.")
square = Square("square", np.square, "input", {"input": lambda g, input: mul(g, mul(input, 2.0))}, kinds="if", doc="input^2")
reciprocal = Elementwise("reciprocal", np.reciprocal, "input", {"input": lambda g, out: neg(mul(g, square(out)))}, result="float",
                         domain=_POSITIVE, doc="1 / input")
maximum = Elementwise("maximum", np.maximum, "input other", {"input": lambda g, input, other: _half_where_equal(g, input, other, lt),
                                                             "other": lambda g, input, other: _half_where_equal(g, other, input, lt)},
                      tensors=2, doc="The larger; NaN if one is. Ties share the gradient.")
minimum = Elementwise("minimum", np.minimum, "input other", {"input": lambda g, input, other: _half_where_equal(g, input, other, gt),
                                                             "other": lambda g, input, other: _half_where_equal(g, other, input, gt)},
                      tensors=2, doc="The smaller; NaN if one is. Ties share the gradient.")
floor_divide = Division("floor_divide", _whole(np.floor_divide), "input other",
                        {"input": lambda g: zeros_of(g), "other": lambda g: zeros_of(g)}, kinds="if",
                        domain=((-9.0, 9.0), _WHOLE), oracle=np.floor_divide, doc="floor(input / other)")
remainder = Division("remainder", _whole(np.remainder), "input other",
                     {"input": lambda g: g, "other": lambda g, input, other: neg(mul(g, floor_divide(input, other)))},
                     kinds="if", domain=((-9.0, 9.0), _WHOLE), oracle=np.remainder, doc="input - floor(input / other) * other")
fmod = Division("fmod", _whole(np.fmod), "input other",
                {"input": lambda g: g, "other": lambda g, input, other: neg(mul(g, trunc(div(input, other))))},
                kinds="if", domain=((-9.0, 9.0), _WHOLE), oracle=np.fmod, tensors=1, doc="input - trunc(input / other) * other")
pow = Elementwise("pow", _integer_power, "input exponent", {"input": _power_rule, "exponent": _exponent_rule}, kinds="if",
                  domain=(_POSITIVE, (-2.0, 2.0)), oracle=np.power, doc="input^exponent")
atan2 = Elementwise("atan2", np.arctan2, "input other", {"input": lambda g, input, other: _atan2_rule(g, other, input, other),
                                                         "other": lambda g, input, other: neg(_atan2_rule(g, input, input, other))},
                    result="float", tensors=2, doc="The angle of the point (other, input).")


def _real(name: str, function: Callable | None, vjp: Callable, domain: tuple, oracle: Callable | None, doc: str) -> Elementwise:
    """A function of one real number; integers become floats."""
    return Elementwise(name, function, "input", {"input": vjp}, result="float", domain=domain, oracle=oracle, doc=doc)


exp = _real("exp", np.exp, lambda g, out: mul.call(g, out), (-2, 2), None, "e^input")
exp2 = _real("exp2", np.exp2, lambda g, out: mul(g, mul(out, _LN2)), (-2, 2), None, "2^input")
expm1 = _real("expm1", np.expm1, lambda g, input: mul(g, exp(input)), (-2, 2), None, "e^input - 1, accurate near 0.")
log = _real("log", np.log, lambda g, input: div(g, input), _POSITIVE, None, "Natural logarithm.")
log2 = _real("log2", np.log2, lambda g, input: div(g, mul(input, _LN2)), _POSITIVE, None, "Logarithm to base 2.")
log10 = _real("log10", np.log10, lambda g, input: div(g, mul(input, _LN10)), _POSITIVE, None, "Logarithm to base 10.")
log1p = _real("log1p", np.log1p, lambda g, input: div(g, add(input, 1.0)), (-0.9, 4), None, "log(1 + input), accurate near 0.")
sqrt = _real("sqrt", np.sqrt, lambda g, out: div(mul(g, 0.5), out), _POSITIVE, None, "Square root.")
rsqrt = _real("rsqrt", None, lambda g, out: mul(mul(g, -0.5), mul(out, square(out))), _POSITIVE, lambda a: 1 / np.sqrt(a),
              "1 / sqrt(input)")
sin = _real("sin", np.sin, lambda g, input: mul(g, cos(input)), (-4, 4), None, "Sine.")
cos: Elementwise = _real("cos", np.cos, lambda g, input: neg(mul(g, sin(input))), (-4, 4), None, "Cosine.")
tan = _real("tan", np.tan, lambda g, out: mul(g, add(square(out), 1.0)), (-1.4, 1.4), None, "Tangent.")
asin = _real("asin", np.arcsin, lambda g, input: mul(g, rsqrt(sub(1.0, square(input)))), _INSIDE, None, "Inverse sine.")
acos = _real("acos", np.arccos, lambda g, input: neg(mul(g, rsqrt(sub(1.0, square(input))))), _INSIDE, None, "Inverse cosine.")
atan = _real("atan", np.arctan, lambda g, input: div(g, add(square(input), 1.0)), (-4, 4), None, "Inverse tangent.")
sinh = _real("sinh", np.sinh, lambda g, input: mul(g, cosh(input)), (-2, 2), None, "Hyperbolic sine.")
cosh: Elementwise = _real("cosh", np.cosh, lambda g, input: mul(g, sinh(input)), (-2, 2), None, "Hyperbolic cosine.")
tanh = _real("tanh", np.tanh, lambda g, out: mul(g, sub(1.0, square(out))), (-2, 2), None, "Hyperbolic tangent.")
asinh = _real("asinh", np.arcsinh, lambda g, input: mul(g, rsqrt(add(square(input), 1.0))), (-4, 4), None, "Inverse hyperbolic sine.")
acosh = _real("acosh", np.arccosh, lambda g, input: mul(g, rsqrt(sub(square(input), 1.0))), (1.1, 4), None, "Inverse hyperbolic cosine.")
atanh = _real("atanh", np.arctanh, lambda g, input: div(g, sub(1.0, square(input))), _INSIDE, None, "Inverse hyperbolic tangent.")
sigmoid = _real("sigmoid", None, lambda g, out: mul(g, mul(out, sub(1.0, out))), (-4, 4), _scipy("expit"), "1 / (1 + e^-input)")
erf = _real("erf", None, lambda g, input: mul(g, mul(exp(neg(square(input))), _2_SQRTPI)), (-2, 2), _scipy("erf"), "Error function.")
erfc = _real("erfc", None, lambda g, input: mul(g, mul(exp(neg(square(input))), -_2_SQRTPI)), (-2, 2), _scipy("erfc"), "1 - erf(input)")
erfinv = _real("erfinv", None, lambda g, out: mul(g, mul(exp(square(out)), 1 / _2_SQRTPI)), _INSIDE, _scipy("erfinv"),
               "Inverse error function.")
lgamma = _real("lgamma", None, lambda g, input: mul(g, digamma(input)), _POSITIVE, _scipy("gammaln"), "log |gamma(input)|")
digamma: Elementwise = _real("digamma", None, lambda g, input: mul(g, polygamma(1, input)), _POSITIVE, _scipy("digamma"),
                             "Derivative of lgamma.")


def _steps(name: str, function: Callable, doc: str) -> Elementwise:
    """A function that is constant between its jumps."""
    return Elementwise(name, _keeps_integers(function), "input", {"input": lambda g: zeros_of(g)}, kinds="if", domain=(-4, 4),
                       oracle=function, doc=doc)


floor = _steps("floor", np.floor, "The largest whole number not above.")
ceil = _steps("ceil", np.ceil, "The smallest whole number not below.")
trunc: Elementwise = _steps("trunc", np.trunc, "The whole part.")
rint = _steps("round", np.rint, "The nearest whole number; halves to the even one.")

eq = Elementwise("eq", np.equal, "input other", result="bool", tensors=1, doc="input == other")
ne = Elementwise("ne", np.not_equal, "input other", result="bool", tensors=1, doc="input != other")
lt: Elementwise = Elementwise("lt", np.less, "input other", result="bool", tensors=1, doc="input < other")
le = Elementwise("le", np.less_equal, "input other", result="bool", tensors=1, doc="input <= other")
gt: Elementwise = Elementwise("gt", np.greater, "input other", result="bool", tensors=1, doc="input > other")
ge = Elementwise("ge", np.greater_equal, "input other", result="bool", tensors=1, doc="input >= other")
isnan = Elementwise("isnan", np.isnan, "input", result="bool", doc="Is it NaN?")
isinf = Elementwise("isinf", np.isinf, "input", result="bool", doc="Is it infinite?")
isfinite = Elementwise("isfinite", np.isfinite, "input", result="bool", doc="Is it neither infinite nor NaN?")
logical_and = Logical("logical_and", np.logical_and, "input other", result="bool", tensors=2, doc="Are both nonzero?")
logical_or = Logical("logical_or", np.logical_or, "input other", result="bool", tensors=2, doc="Is one nonzero?")
logical_xor = Logical("logical_xor", np.logical_xor, "input other", result="bool", tensors=2, doc="Is exactly one nonzero?")
logical_not = Logical("logical_not", np.logical_not, "input", result="bool", doc="Is it zero?")
bitwise_and = Bitwise("bitwise_and", np.bitwise_and, "input other", kinds="bi", doc="input & other")
bitwise_or = Bitwise("bitwise_or", np.bitwise_or, "input other", kinds="bi", doc="input | other")
bitwise_xor = Bitwise("bitwise_xor", np.bitwise_xor, "input other", kinds="bi", doc="input ^ other")
bitwise_not = Bitwise("bitwise_not", np.invert, "input", kinds="bi", doc="~input")
bitwise_left_shift = Bitwise("bitwise_left_shift", np.left_shift, "input other", kinds="i", doc="input << other")
bitwise_right_shift = Bitwise("bitwise_right_shift", np.right_shift, "input other", kinds="i", doc="input >> other")
where: Where = Where("where", lambda c, a, b, out: np.copyto(out, np.where(c, a, b)), "condition input other",
              {"input": lambda g, condition: where(condition, g, 0.0), "other": lambda g, condition: where(condition, 0.0, g)},
              oracle=np.where, doc="condition ? input : other")
copy = Move("copy", lambda a, out: np.copyto(out, a), "input", {"input": lambda g: g}, oracle=np.array, doc="A contiguous copy.")


# ---- powers by a number, and the derivatives of digamma ----------------------------------------------------------------

def _prepare_power(input: Layout, *, exponent: float) -> Plan:
    """input^exponent, the exponent a number; cubes and inverse squares are products, which are faster"""
    value = constant(exponent, input.dtype, input.device).array
    plan = pow._prepare(input, value.layout)
    out = plan.layout
    squares = square._prepare(input)
    after = mul._prepare(out, input) if exponent == 3 else reciprocal._prepare(out)

    def run(x: Array) -> Array:
        y = alloc(out)
        if exponent == 3 or exponent == -2:
            square.launch(squares, y, [x])
            (mul if exponent == 3 else reciprocal).launch(after, y, [y, x] if exponent == 3 else [y])
        else:
            pow.launch(plan, y, [x, value])
        return y
    return Plan(run, out, plan.why)


def _power_by_number(input: Any, exponent: Any) -> Any:
    if not isinstance(input, Tensor):
        return NotImplemented
    if not is_float(input.array.layout.dtype):
        if not isinstance(exponent, float):
            if exponent < 0:
                fail("pow", "Integers to negative integer powers are not allowed", [input.array.layout, exponent], "convert with .float()")
            return pow.apply(input, exponent)
        input = cast(input, default_float())
    short = _SHORT_POWERS.get(exponent)
    return short(input) if short is not None else _power(input, exponent=float(exponent))


_power = Primitive("power", _prepare_power, {
    "input": lambda g, input, exponent: mul(g, mul(_power_by_number(input, exponent - 1), exponent)) if exponent else zeros_of(g)})
_SHORT_POWERS: dict[float, Callable] = {1: copy, 2: square, 0.5: sqrt, -0.5: rsqrt, -1: reciprocal}
pow.by_number = _power_by_number
pow.call = _binary(pow)


@_power.samples
def _power_samples(make: Any) -> Iterator[tuple]:
    for exponent in (0.0, 1.5, 3.0, 4.0, -2.0, -3.0):
        yield make(3, 5, low=0.1, high=3), {"exponent": exponent}
    yield make(33), {"exponent": 5.0}
    yield make(0, 4), {"exponent": 2.5}


_power.reference(lambda a, *, exponent: a ** exponent)


def _polygamma_host(n: int, x: Any, out: Any) -> None:
    """psi_n(x) = (-1)^(n+1) n! sum_k (x + k)^-(n+1): the first terms, and the Euler-Maclaurin formula for the rest. Below 1/2,
    psi_n(1 - x) (-1)^n - psi_n(x) = d^n/dx^n pi cot(pi x), a polynomial in cot."""
    x = np.asarray(x, np.float64)
    low = x < 0.5
    a, s = np.where(low, 1 - x, x), n + 1
    total = np.zeros_like(a)
    for _ in range(12 + n):
        total += a ** -s
        a = a + 1
    total += a ** (1 - s) / (s - 1) + 0.5 * a ** -s
    factor = s * a ** (-s - 1)
    for j, b in enumerate((1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)):
        total += b * factor
        factor = factor * (s + 2 * j + 1) * (s + 2 * j + 2) * a ** -2.0
    value = (-1) ** s * math.factorial(n) * total
    pole = low & (x == np.floor(x))
    slope = np.polynomial.Polynomial([0, math.pi])
    for _ in range(n):
        slope = slope.deriv() * np.polynomial.Polynomial([-math.pi, 0, -math.pi])
    tangent = np.tan(math.pi * (x - np.floor(x)))
    value = np.where(low, (-1) ** n * value - slope(1 / tangent), value)
    np.copyto(out, np.where(pole, (-1) ** s * math.inf, value), casting="same_kind")


def _prepare_polygamma(input: Layout, *, n: int) -> Plan:
    """The nth derivative of digamma."""
    out = layout(input.device, input.dtype, input.shape)

    def run(x: Array) -> Array:
        y = alloc(out)
        input.device.host.call(partial(_polygamma_host, n), y.np, x.np)
        return y
    return Plan(run, out, "NumPy behind the door")


_polygamma: Primitive = Primitive("polygamma", _prepare_polygamma, {"input": lambda g, input, n: mul(g, _polygamma(input, n=n + 1))})


def polygamma(n: int, input: Tensor) -> Tensor:
    """The nth derivative of digamma (n = 0: digamma itself)."""
    if n < 0:
        fail("polygamma", "n must not be negative", n)
    if not is_float(input.array.layout.dtype):
        input = cast(input, default_float())
    return _polygamma(input, n=n) if n else digamma(input)


@_polygamma.samples
def _polygamma_samples(make: Any) -> Iterator[tuple]:
    for n in (1, 2, 3):
        yield make(3, 5, low=0.1, high=4), {"n": n}
    yield make(0, 4), {"n": 1}


_polygamma.reference(lambda a, *, n: _scipy("polygamma")(n, a))


# ---- casts and copies -------------------------------------------------------------------------------------------------

_CASTS = {np.dtype(t): n for t, n in (("float32", "cast_f32"), ("float64", "cast_f64"), ("int32", "cast_i32"), ("int64", "cast_i64"),
                                      ("bool", "cast_u8"))}


def _prepare_cast(input: Layout, *, dtype: np.dtype) -> Plan:
    """The values in another dtype."""
    out = layout(input.device, dtype, input.shape)
    kernel = getattr(input.device.kernels, _CASTS[dtype]).get(input.dtype) if dtype in _CASTS else None
    if kernel is None:
        def run_host(x: Array) -> Array:
            y = alloc(out)
            input.device.host.call(_cast_host, y.np, x.np)
            return y
        return Plan(run_host, out, f"no cast kernel from {input.dtype} to {dtype}: NumPy behind the door")
    plan = elementwise_plan(out, input)

    def run(x: Array) -> Array:
        y = alloc(out)
        kernel.call(y.ptr, x.ptr, plan.ptr)
        return y
    return Plan(run, out, f"kernel {kernel.name}")


def _cast_host(a: Any, out: Any) -> None:
    out[...] = a.astype(out.dtype)


_cast = Primitive("cast", _prepare_cast, {"input": lambda g: g}, doc="The values in another dtype.")      # the engine casts back


def cast(t: Tensor, dtype: Any) -> Tensor:
    """`t` in another dtype (itself if it has it already). The gradient is cast back."""
    dtype = np.dtype(dtype)
    return t if t.array.layout.dtype == dtype else _cast(t, dtype=dtype)


@_cast.samples
def _cast_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), {"dtype": np.dtype("float64")}
    yield make.ints(33), {"dtype": np.dtype("float32")}
    yield make.ints(4, 3), {"dtype": np.dtype("int32")}
    yield make.bools(0, 3), {"dtype": np.dtype("int64")}


_cast.reference(lambda a, *, dtype: a.astype(dtype))


def cast_array(array: Array, dtype: np.dtype) -> Array:
    """The values in another dtype, outside the graph."""
    key = (array.layout, ("dtype", dtype))
    plan = _cast.plans.get(key)
    return (plan or remember(_cast.plans, key, _prepare_cast(array.layout, dtype=dtype))).run(array)


def contiguous_copy(array: Array) -> Array:
    """A contiguous copy, outside the graph."""
    out = alloc(layout(array.layout.device, array.layout.dtype, array.layout.shape))
    copy_array(out, array)
    return out


def copy_array(to: Array, source: Array) -> None:
    """Copies values between arrays of one device, broadcasting and converting as needed."""
    if to.layout.size == 0:
        return
    if source.layout.dtype != to.layout.dtype:
        source = cast_array(source, to.layout.dtype)
    key = ("into", to.layout, source.layout)
    plan: Any = copy.plans.get(key)
    if plan is None:
        if broadcast_shapes("copy_", to.layout.shape, source.layout.shape) != to.layout.shape:
            fail("copy_", "the source must broadcast to the target's shape", [to.layout, source.layout])
        written_once("copy_", to.layout)
        kernel = copy.kernel((to.layout,))
        plan = remember(copy.plans, key, _Plan(kernel, to.layout, elementwise_plan(to.layout, source.layout) if kernel else None, "copy"))
    if source.storage is to.storage and (source.layout is not to.layout or source.ptr != to.ptr):
        fresh = alloc(layout(source.layout.device, source.layout.dtype, source.layout.shape))     # they may overlap
        copy_array(fresh, source)
        return copy_array(to, fresh)
    copy.launch(plan, to, [source])


# ---- in place ----------------------------------------------------------------------------------------------------------

def in_place(name: str, function: Any) -> Callable:
    """The method `name_`: writes into its first argument what `function` computes; not recorded."""
    if isinstance(function, Elementwise):
        binary = _in_place(function) if len(function.inputs) == 2 else None

        def method(input: Tensor, *others: Any, **options: Any) -> Tensor:
            if options or binary is None:
                return function.into(input, input, *others, **options)
            return binary(input, *others)
    else:
        def method(input: Tensor, *others: Any, **options: Any) -> Tensor:
            for t in (input, *others) if mode.grad else ():
                if isinstance(t, Tensor):
                    writable(name + "_", t)
            return copy.into(input, function(input, *others, **options))
    method.__name__, method.__doc__ = name + "_", f"`{name}`, written into the tensor itself; not differentiable."
    return method


__all__ = ["abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_left_shift", "bitwise_not",
           "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "cos", "cosh", "digamma", "div", "eq", "erf", "erfc", "erfinv",
           "exp", "exp2", "expm1", "floor", "floor_divide", "fmod", "ge", "gt", "isfinite", "isinf", "isnan", "le", "lgamma", "log",
           "log10", "log1p", "log2", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "maximum", "minimum", "mul", "ne",
           "neg", "polygamma", "pow", "reciprocal", "remainder", "rsqrt", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan",
           "trunc", "where"]
INPLACE = frozenset(__all__) - {"where", "polygamma", "isnan", "isinf", "isfinite", "maximum", "minimum"}
