"""Elementwise primitives: one kernel each, walked by a plan; broadcasting, promotion, copies and casts.

The kernels are in native/elementwise.c and ops/elementwise.cu. 16-bit floats are computed in float32, as PyTorch does; other
dtypes without a kernel go through the same door as a NumPy function with `out=`. What can be composed of these primitives is,
in pointwise.py and activation.py.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.arrays import cast_array, copy_array, written_once
from ..core.engine import functions
from ..core.op import Primitive, same_device
from ..core.shape import BOOL, FLOAT32, broadcast_shapes, default_float, fail, is_float, promote, result_type, scalar_type
from ..core.tape import mode
from ..core.tensor import Tensor, bump, new_tensor, writable
from ..devices.base import Kernel
from ..devices.launch import by_plan, launch
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import elementwise_plan, remember
from .convert import cast
from .dispatch import binary, constant, ternary, unary, with_number

NUMBERS = (float, int, bool, np.floating, np.integer, np.bool_)


class _Plan:
    """A signature with a kernel: `kernel.call(out, inputs..., walk)`. Without one: `wide`, the plan in float32, or NumPy."""

    __slots__ = ("kernel", "layout", "walk", "keep", "why", "wide")

    def __init__(self, kernel: Kernel | None, to: Layout, plan: Array | None, why: str, wide: _Plan | None = None) -> None:
        self.kernel, self.layout, self.keep, self.why, self.wide = kernel, to, plan, why, wide
        self.walk = plan.ptr if plan is not None else 0


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
                 stack: int = 0, doc: str | None = None) -> None:
        super().__init__(name, self._prepare, vjps, inputs.split(), doc)      # type: ignore[arg-type]
        self.function, self.result, self.kinds, self.tensors = function, result, kinds, tensors
        self.domains = domain if isinstance(domain[0], tuple) else (domain,) * len(self.inputs)
        self.dtypes: dict[tuple, np.dtype] = {}             # of the computation, by the operands' layouts and types
        self.by_number: Callable = with_number(self, 0)    # f(tensor, number)
        self.reflected: Callable = with_number(self, 1)    # f(tensor, number): the number is the first operand
        self.call = (unary, binary, ternary)[len(self.inputs) - 1](self)
        launch("ops/elementwise.cu", name, by_plan, stack=stack)
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
                return self.convert(tuple([functions.as_tensor(t) if isinstance(t, np.ndarray) else t for t in inputs]))
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


# ---- the forms that differ ---------------------------------------------------------------------------------------------
class Where(Elementwise):
    """`condition ? input : other`; the condition is bool, the others share a dtype."""

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
