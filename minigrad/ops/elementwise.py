"""Elementwise primitives: one kernel each, walked by a plan; broadcasting, promotion, copies and casts.

The kernels are in native/elementwise.c and ops/elementwise.cu. A dtype without a kernel goes through the same door as a
NumPy function with `out=`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import engine
from ..device import Device, Kernel
from ..engine import Node, mode
from ..memory import Array, Buffer, Layout, alloc, layout
from ..op import Primitive, remember, same_device
from ..shape import (
    BOOL,

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
_constants: dict[tuple, Tensor] = {}


class _Plan:
    """A signature with a kernel: `kernel.call(out, inputs..., walk)`."""

    __slots__ = ("kernel", "layout", "walk", "keep", "why")

    def __init__(self, kernel: Kernel | None, to: Layout, plan: Array | None, why: str) -> None:
        self.kernel, self.layout, self.keep, self.why = kernel, to, plan, why
        self.walk = plan.ptr if plan is not None else 0


def constant(value: Any, dtype: np.dtype, device: Device) -> Tensor:
    """A Python number as a 0-d tensor, one per value: never write to it."""
    key = (device, dtype, type(value), repr(value))
    found = _constants.get(key)
    if found is None:
        try:
            host = np.array(value).astype(dtype) if isinstance(value, np.generic) else np.array(value, dtype)
        except OverflowError:
            fail("constant", f"the number must fit {dtype}", repr(value))
        found = remember(_constants, key, new_tensor(device.upload(host), None))
    return found


class Elementwise(Primitive):
    """`out[i] = function(a[i], b[i], ...)` with broadcasting. `result`: "same" as the operands, "float" (integers are
    converted first) or "bool". `domain` is where the samples are drawn from."""

    def __init__(self, name: str, function: Callable, inputs: str, vjps: dict[str, Callable] | None = None, *,
                 result: str = "same", domain: tuple[float, float] = (-2.0, 2.0), doc: str | None = None) -> None:
        super().__init__(name, self._prepare, vjps, inputs.split(), doc)
        self.function, self.result, self.domain = function, result, domain
        self.call = _binary(self) if len(self.inputs) == 2 else _unary(self) if len(self.inputs) == 1 else self.apply

    def __call__(self, *inputs: Any) -> Tensor:
        if len(inputs) != len(self.inputs):
            raise TypeError(f"[{self.name}] takes {len(self.inputs)} arguments ({', '.join(self.inputs)}); got {len(inputs)}")
        out = self.call(*inputs)
        if out is NotImplemented:
            raise TypeError(f"[{self.name}] arguments must be tensors or numbers; got {', '.join(type(i).__name__ for i in inputs)}")
        return out

    @property
    def method(self) -> Callable:
        """The form that binds as a method of Tensor."""
        def method(input: Tensor, *others: Any) -> Tensor:
            return self(input, *others)
        method.__name__, method.__doc__ = self.name, self.__doc__
        return method

    def _prepare(self, *layouts: Layout) -> _Plan:
        """Checks one signature whose dtypes agree already, and finds its kernel."""
        first = layouts[0]
        same_device(self.name, layouts)
        shape = first.shape if len(layouts) == 1 else broadcast_shapes(self.name, *[x.shape for x in layouts])
        out = layout(first.device, BOOL if self.result == "bool" else layouts[-1].dtype, shape)
        kernel = self.kernel(layouts)
        if kernel is None:
            return _Plan(None, out, None, f"no {self.name} kernel for {layouts[-1].dtype}: NumPy behind the door")
        return _Plan(kernel, out, elementwise_plan(out, *layouts), f"kernel {kernel.name}")

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return getattr(layouts[0].device.kernels, self.name).get(layouts[0].dtype)

    def convert(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        """The operands as tensors of one dtype. None if something is neither a tensor nor a number."""
        tensors = [t for t in inputs if isinstance(t, Tensor)]
        if not tensors or any(not isinstance(t, (Tensor, *NUMBERS)) for t in inputs):
            if any(isinstance(t, np.ndarray) for t in inputs) and tensors:
                return self.convert(tuple(engine.as_tensor(t) if isinstance(t, np.ndarray) else t for t in inputs))
            return None
        dtype = result_type(*[t.array.layout for t in tensors])
        for t in inputs:
            if not isinstance(t, Tensor):
                dtype = promote(dtype, scalar_type(t.item() if isinstance(t, np.generic) else t, dtype))
        if self.result == "float" and not is_float(dtype):
            dtype = default_float()
        device = tensors[0].array.layout.device
        return tuple([constant(t, dtype, device) if not isinstance(t, Tensor) else
                      t if t.array.layout.dtype == dtype else cast(t, dtype) for t in inputs])

    def apply(self, *inputs: Any) -> Any:
        """The general path: numbers, promotion, any arity, dtypes without a kernel."""
        tensors = self.convert(inputs)
        if tensors is None:
            return NotImplemented
        key = tuple([t.array.layout for t in tensors])
        plan = self.plans.get(key)
        if plan is None:
            plan = remember(self.plans, key, self._prepare(*key))
        arrays = [t.array for t in tensors]
        out = alloc(plan.layout)
        self.launch(plan, out, arrays)
        if mode.grad and self.rules and any([t.requires_grad for t in tensors]):
            return self.record(tensors, out)
        return new_tensor(out, None)

    def launch(self, plan: _Plan, out: Array, arrays: list[Array]) -> None:
        if plan.kernel is None:
            plan.layout.device.host.call(self.function, out.np, *[a.np for a in arrays])
        else:
            plan.kernel.call(out.ptr, *[a.ptr for a in arrays], plan.walk)

    def into(self, target: Tensor, *inputs: Any) -> Tensor:
        """Writes the result into `target` (in place; not recorded)."""
        writable(self.name + "_", target)
        tensors = self.convert(inputs)
        if tensors is None:
            raise TypeError(f"[{self.name}_] arguments must be tensors or numbers; got {', '.join(type(i).__name__ for i in inputs)}")
        to = target.array.layout
        key = (to, *[t.array.layout for t in tensors])
        plan = self.plans.get(key)
        if plan is None:
            fresh = self._prepare(*key[1:])
            if fresh.layout.shape != to.shape:
                fail(self.name + "_", "the result must have the shape of the tensor written to", [to, fresh.layout], "broadcast the other way round")
            same = fresh.layout.dtype == to.dtype
            if same and fresh.kernel is not None:
                fresh = _Plan(fresh.kernel, to, elementwise_plan(to, *key[1:]), fresh.why)
            elif not same and is_float(fresh.layout.dtype) and not is_float(to.dtype):
                fail(self.name + "_", f"a {fresh.layout.dtype} result cannot be written into a {to.dtype} tensor", [to], "convert first")
            plan = remember(self.plans, key, fresh)
        overlap = any(t.array.layout is not to and t.array.storage is target.array.storage for t in tensors)
        if plan.layout.dtype == to.dtype and not overlap:
            self.launch(plan, target.array, [t.array for t in tensors])
        else:                           # the result is made aside, then copied
            with engine.no_grad():
                out = self.apply(*inputs)
            copy_array(target.array, out.array)
        return bump(target)


def accumulate(target: Tensor, more: Tensor) -> None:
    """target += more, for gradients of one layout: the engine's own buffers and `.grad`."""
    x, y = target.array, more.array
    plan = add.plans.get((x.layout, y.layout))
    if plan is None or plan.kernel is None or plan.layout is not x.layout:
        add.into(target, target, more)
    else:
        plan.kernel.call(x.ptr, x.ptr, y.ptr, plan.walk)
        x.storage.version += 1


def _unary(op: Elementwise) -> Callable[[Any], Any]:
    plans, differentiable, keeps_out = op.plans, bool(op.rules), op.keeps_out
    saves_input = bool(op.saves.get(0))

    def call(a: Any) -> Any:
        try:
            x = a.array
            plan = plans[x.layout,]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return op.apply(a)
        out = alloc(plan.layout)
        call_kernel(out.ptr, x.ptr, plan.walk)
        if differentiable and mode.grad and a.requires_grad:
            return new_tensor(out, Node(op, (a.node or a,), plan.layout, (a,) if saves_input else (None,),
                                        x.version if saves_input else 0, out if keeps_out else None))
        return new_tensor(out, None)
    return call


def _binary(op: Elementwise) -> Callable[[Any, Any], Any]:
    """The hot path: one dictionary look-up decides everything that was decided before for these layouts."""
    plans = op.plans
    a_rule, b_rule = 0 in op.rules, 1 in op.rules
    differentiable = a_rule or b_rule
    used_by_a, used_by_b = op.saves.get(0, ()), op.saves.get(1, ())
    a_needs_a, a_needs_b, b_needs_a, b_needs_b = 0 in used_by_a, 1 in used_by_a, 0 in used_by_b, 1 in used_by_b
    keeps_out = op.keeps_out

    def call(a: Any, b: Any) -> Any:
        try:
            x, y = a.array, b.array
            plan = plans[x.layout, y.layout]
            call_kernel = plan.kernel.call
        except (AttributeError, KeyError):
            return op.apply(a, b)
        to = plan.layout
        free = to.free
        if free:
            block = free.pop()
            out = _new(Buffer)
            out.layout = to
            out.ptr = ptr = block.ptr
            out.block = block
            out.version = 0
        else:
            out = alloc(to)
            ptr = out.ptr
        call_kernel(ptr, x.ptr, y.ptr, plan.walk)
        t = _new(Tensor)
        t.array = out
        t.grad = None
        if differentiable and mode.grad:
            ra, rb = a.requires_grad, b.requires_grad
            if ra or rb:
                version = 0
                sa = sb = None
                if (ra and a_needs_a) or (rb and b_needs_a):
                    sa = a
                    version = x.version
                if (ra and a_needs_b) or (rb and b_needs_b):
                    sb = b
                    version += y.version
                t.node = Node(op, ((a.node or a) if ra and a_rule else None, (b.node or b) if rb and b_rule else None), to,
                              (sa, sb), version, out if keeps_out else None)
                t.requires_grad = True
                return t
        t.node = None
        t.requires_grad = False
        return t
    return call


class Where(Elementwise):
    """`condition ? a : b`; the condition is bool, a and b share a dtype."""

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return layouts[0].device.kernels.where.move(layouts[1].dtype)

    def convert(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        condition, a, b = inputs
        if not isinstance(condition, Tensor):
            return None
        if condition.array.layout.dtype != BOOL:
            fail("where", "condition must be bool", condition.array.layout, "compare first, e.g. x > 0")
        if not isinstance(a, Tensor) and not isinstance(b, Tensor):
            dtype = promote(scalar_type(a, BOOL) if not isinstance(a, bool) else BOOL, scalar_type(b, BOOL) if not isinstance(b, bool) else BOOL)
            device = condition.array.layout.device
            a, b = constant(a, dtype, device), constant(b, dtype, device)
        pair = super().convert((a, b))
        return None if pair is None else (condition, *pair)


class Move(Elementwise):
    """`copy`: the kernel goes by item size."""

    def kernel(self, layouts: tuple[Layout, ...]) -> Kernel | None:
        return getattr(layouts[0].device.kernels, self.name).move(layouts[0].dtype)


class Logical(Elementwise):
    """Truth values: operands of other dtypes are compared with 0 first."""

    def convert(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        tensors = super().convert(inputs)
        return None if tensors is None else tuple([t if t.dtype == BOOL else cast(t, BOOL) for t in tensors])


# ---- the primitives: gradients are those of the formula; at kinks, PyTorch's choice -----------------------------------

add = Elementwise("add", np.add, "a b", {"a": lambda g: g, "b": lambda g: g}, doc="a + b")
sub = Elementwise("sub", np.subtract, "a b", {"a": lambda g: g, "b": lambda g: neg(g)}, doc="a - b")
mul = Elementwise("mul", np.multiply, "a b", {"a": lambda g, b: mul(g, b), "b": lambda g, a: mul(g, a)}, doc="a * b")
div = Elementwise("div", np.true_divide, "a b", {"a": lambda g, b: div(g, b), "b": lambda g, b, out: neg(div(mul(g, out), b))},
                  result="float", doc="a / b")
neg = Elementwise("neg", np.negative, "a", {"a": lambda g: neg(g)}, doc="-a")
exp = Elementwise("exp", np.exp, "a", {"a": lambda g, out: mul(g, out)}, result="float", doc="e^a")
sqrt = Elementwise("sqrt", np.sqrt, "a", {"a": lambda g, out: div(mul(g, 0.5), out)}, result="float", domain=(0.1, 4.0), doc="Square root.")
rsqrt = Elementwise("rsqrt", lambda a, out: np.true_divide(1, np.sqrt(a), out=out), "a",
                    {"a": lambda g, out: mul(mul(g, -0.5), mul(out, mul(out, out)))}, result="float", domain=(0.1, 4.0), doc="1 / sqrt(a)")
where = Where("where", lambda c, a, b, out: np.copyto(out, np.where(c, a, b)), "condition a b",
              {"a": lambda g, condition: where(condition, g, 0.0), "b": lambda g, condition: where(condition, 0.0, g)},
              doc="condition ? a : b")
copy = Move("copy", lambda a, out: np.copyto(out, a), "a", {"a": lambda g: g}, doc="A contiguous copy.")


# ---- casts and copies -------------------------------------------------------------------------------------------------

_CASTS = {np.dtype(t): n for t, n in (("float32", "cast_f32"), ("float64", "cast_f64"), ("int32", "cast_i32"), ("int64", "cast_i64"), ("bool", "cast_u8"))}


def _prepare_cast(a: Layout, *, dtype: np.dtype) -> Any:
    from ..op import Plan
    out = layout(a.device, dtype, a.shape)
    kernel = getattr(a.device.kernels, _CASTS[dtype]).get(a.dtype) if dtype in _CASTS else None
    if kernel is None:
        def run_host(x: Array) -> Array:
            y = alloc(out)
            a.device.host.call(_cast_host, y.np, x.np)
            return y
        return Plan(run_host, out, f"no cast kernel from {a.dtype} to {dtype}")
    plan = elementwise_plan(out, a)

    def run(x: Array) -> Array:
        y = alloc(out)
        kernel.call(y.ptr, x.ptr, plan.ptr)
        return y
    return Plan(run, out, f"kernel {kernel.name}")


def _cast_host(a: Any, out: Any) -> None:
    out[...] = a.astype(out.dtype)


_cast = Primitive("cast", _prepare_cast, {"a": lambda g: g}, ["a"], doc="The values in another dtype.")


def cast(t: Tensor, dtype: Any) -> Tensor:
    """`t` in another dtype (itself if it has it already). The gradient is cast back."""
    dtype = np.dtype(dtype)
    return t if t.array.layout.dtype == dtype else _cast(t, dtype=dtype)


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
        source = _cast.prepare(source.layout, dtype=to.layout.dtype).run(source)
    key = ("into", to.layout, source.layout)
    plan: Any = copy.plans.get(key)
    if plan is None:
        if broadcast_shapes("copy_", to.layout.shape, source.layout.shape) != to.layout.shape:
            fail("copy_", "the source must broadcast to the target's shape", [to.layout, source.layout])
        kernel = copy.kernel((to.layout,))
        plan = remember(copy.plans, key, _Plan(kernel, to.layout, elementwise_plan(to.layout, source.layout) if kernel else None, "copy"))
    if source.storage is to.storage and source.layout is not to.layout:
        fresh = alloc(layout(source.layout.device, source.layout.dtype, source.layout.shape))     # they may overlap
        copy_array(fresh, source)
        return copy_array(to, fresh)
    copy.launch(plan, to, [source])


# ---- how functions become methods (ops/__init__.py) -------------------------------------------------------------------

def is_operand(*values: Any) -> bool:
    """Is each a tensor or a number?"""
    return all([isinstance(v, (Tensor, np.ndarray, *NUMBERS)) for v in values])


def in_place(name: str, function: Any) -> Callable:
    """The method `name_`: writes into its first argument what `function` computes; not recorded."""
    if isinstance(function, Elementwise):
        def method(input: Tensor, *others: Any) -> Tensor:
            return function.into(input, input, *others)
    else:
        def method(input: Tensor, *args: Any, **options: Any) -> Tensor:
            writable(name + "_", input)
            with engine.no_grad():
                out = function(input, *args, **options)
            copy_array(input.array, out.array)
            return bump(input)
    method.__name__ = name + "_"
    return method


__all__ = ["add", "sub", "mul", "div", "neg", "exp", "sqrt", "rsqrt", "where"]
INPLACE = frozenset(__all__) - {"where"}
METHODS: dict[str, Callable] = {}
