"""Elementwise primitives: one kernel each, walked by a plan; broadcasting, promotion, numbers as operands.

The kernels are in native/elementwise.c and ops/elementwise.cu. Half precision is computed in float32 (core/half.py);
for other dtypes without a kernel NumPy's function runs as a launch with `out=`. The table of the primitives is in
math.py; what can be composed of them is in formula.py and activation.py.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from ..core.arrays import copy_array, written_once
from ..core.engine import functions
from ..core.half import Once, Wide, half_result, in_float32, is_constant, stored
from ..core.messages import taken
from ..core.op import Primitive, parameters, same_device
from ..core.out import How, check_target, into, targets, write
from ..core.shape import (
    BOOL,
    FLOAT32,
    INT64,
    broadcast_shapes,
    default_float,
    fail,
    is_float,
    kind_of,
    promote,
    result_type,
    scalar_type,
)
from ..core.tensor import Tensor, bump
from ..devices.base import Device, Kernel
from ..devices.launch import by_plan, launch
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, elementwise_plan, host_plan, is_half, not_half, remember
from ..devices.work import each, work
from .arguments import fits, is_number
from .convert import cast
from .dispatch import binary, constant, described, held, ternary, unary, with_number


def is_operand(*values: Any) -> bool:
    """Is each a tensor or a number?"""
    return all([is_number(v) or isinstance(v, (Tensor, np.ndarray)) for v in values])


def _with_a_tensor(op: Elementwise, inputs: tuple) -> tuple:
    """The inputs, the first a tensor where they are two numbers: `div(7, 2)` has no dimensions."""
    two = op.numbers and len(inputs) == 2 and is_number(inputs[0]) and is_number(inputs[1])
    return (functions.as_tensor(inputs[0]), inputs[1]) if two else inputs


class Elementwise(Primitive):
    """`out[i] = function(a[i], b[i], ...)` with broadcasting. What one of them is, is data:

    * `function`: NumPy's, for dtypes without a kernel; `oracle`: what tests compare with, if not `function`;
    * `result`: "same" dtype as the operands, "float" (integers are converted first) or "bool";
    * `kinds`: the dtypes it is defined for, of b(ool) i(nteger) f(loat);
    * `kernel`: the name of its kernel if not its own; `kernel_kinds`: the dtypes that have one ("size": by item size);
    * `dtypes(op, inputs, dtype) -> dtype`: the dtype of the computation, where it is not that of promotion;
    * `options(*inputs, **options)`: what further keyword arguments mean: other inputs, or the result itself;
    * `selects`: the first operand is a bool condition, of which only the shape counts for promotion;
    * `picks`: each element of the result is one of the operands', so that numbers must fit its dtype;
    * `tensors`: so many first arguments may not be numbers (operators and `call` take them); `numbers`: both may be;
    * `domain`: where samples are drawn from, for all inputs or one each; `stack`: local memory of the CUDA kernel;
    * `power`: the second operand counts factors; `writes`: into `out=` (core/out.py); `once`, `commutes`: core/half.py.
    """

    def __init__(self, name: str, function: Callable | None, inputs: str, vjps: dict[str, Callable] | None = None, *,
                 result: str = "same", kinds: str = "bif", domain: tuple = (-2.0, 2.0), oracle: Callable | None = None,
                 tensors: int = 0, kernel: str = "", kernel_kinds: str = "bif", dtypes: Callable | None = None,
                 options: Callable | None = None, selects: bool = False, picks: bool = False, power: bool = False,
                 once: Once = "", commutes: bool = False, writes: tuple[How, ...] = ("cast",), stack: int = 0,
                 numbers: bool = False, doc: str | None = None) -> None:
        super().__init__(name, self.prepare_plan, vjps, inputs.split(), doc, attributes=())
        self.function, self.result, self.kinds, self.tensors = function, result, kinds, tensors
        self.kernel_name, self.kernel_kinds, self.dtypes, self.options = kernel or name, kernel_kinds, dtypes, options
        self.selects, self.picks, self.power, self.writes = selects, selects or picks, power, writes
        self.domains = domain if isinstance(domain[0], tuple) else (domain,) * len(self.inputs)
        self.known_dtypes: dict[tuple, np.dtype] = {}           # of the computation, by the operands' layouts and types
        self.by_number: Callable[[Any, Any], Any] = with_number(self, 0)    # f(tensor, number)
        self.reflected: Callable[[Any, Any], Any] = with_number(self, 1)    # the number is the first operand
        self.call: Callable[..., Any] = described((unary, binary, ternary)[len(self.inputs) - 1](self), name, doc)
        if kernel_kinds:
            launch("ops/elementwise.cu", self.kernel_name, by_plan, stack=stack, half="f" in kernel_kinds,
                   wide="f" in kernel_kinds and len(self.inputs) == 2 and result != "bool")
            work(self.kernel_name, each(1) if kernel_kinds != "size" else None)     # that only moves elements
        self.sample_function, self.error_function = self.plain_samples, self.plain_errors
        self.oracle, self.once, self.commutes, self.numbers = oracle or function, once, commutes, numbers

    def __call__(self, *inputs: Any, out: Tensor | None = None, **named: Any) -> Tensor:
        if named:
            inputs += tuple([named.pop(n) for n in self.inputs[len(inputs):] if n in named])
        if out is not None:
            targets(self.name, out, inputs)
        if self.tensors:
            for name, t in zip(self.inputs[:self.tensors], inputs, strict=False):
                if is_number(t):
                    raise TypeError(f"[{self.name}] {name} must be a tensor; got {type(t).__name__}; use tensor({t})")
        if named:
            named = taken(self.name, named, self.keywords())
        if named and self.options is None:
            raise TypeError(f"[{self.name}] {next(iter(named))} was given twice")
        if named and len(inputs) == len(self.inputs):
            given = self._optional(inputs, named)
            if isinstance(given, Tensor):
                return given if out is None else into(self, out, given)
            inputs = given
        if len(inputs) != len(self.inputs):
            raise TypeError(f"[{self.name}] takes {len(self.inputs)} arguments ({', '.join(self.inputs)}); "
                            f"got {len(inputs)}")
        if out is not None:
            for t in inputs:                        # mostly all are alike: shapes take 1 us
                if isinstance(t, Tensor) and t.array.layout is not out.array.layout and out.array.layout.shape != \
                        broadcast_shapes(self.name, *[t.array.layout.shape for t in inputs if isinstance(t, Tensor)]):
                    break
            else:
                return self.into(out, *inputs)
        result = self.call(*inputs)
        if result is NotImplemented:
            result = self.call(*_with_a_tensor(self, inputs))
            if result is NotImplemented:
                self.refuse(inputs)
        return result if out is None else into(self, out, result)

    def keywords(self) -> list[str]:
        """The names of its arguments that may be given by keyword."""
        return [*self.inputs, *(parameters(self.options)[1] if self.options is not None else ()), "out"]

    def _optional(self, inputs: tuple, named: dict[str, Any]) -> Any:
        """What options mean: other inputs, or the result; in half precision the result, rounded once."""
        inputs = _with_a_tensor(self, inputs)
        dtype = half_result(inputs)
        if dtype is not None:
            return in_float32(self, dtype, *inputs, **named)
        return self.options(*inputs, **named)                   # type: ignore[misc]

    def refuse(self, inputs: tuple) -> NoReturn:
        """Raises because of operands that are neither tensors nor numbers."""
        raise TypeError(f"[{self.name}] arguments must be tensors or numbers, at least one a tensor; got "
                        f"{', '.join(type(i).__name__ for i in inputs)}")

    # ---- signatures ----

    def prepare_plan(self, *layouts: Layout) -> Plan:
        """Checks one signature whose dtypes agree already, and finds its kernel."""
        first, dtype = layouts[0], layouts[-1].dtype
        same_device(self.name, layouts)
        self.allow(first.dtype if is_half(first.dtype) else dtype)
        shape = first.shape if len(layouts) == 1 else broadcast_shapes(self.name, *[x.shape for x in layouts])
        out = layout(first.device, BOOL if self.result == "bool" else dtype, shape)
        why = f"no {self.name} kernel for {dtype}: NumPy"
        alike = all([x.dtype == dtype for x in layouts[self.selects:]])    # a number beside half precision is float32
        kernel = self.kernel(layouts[-1]) if alike else None
        if kernel is None and self.kernel_kinds != "size":      # kernels that only move elements take half precision
            not_half(why, *layouts)
        if kernel is not None:
            plan = Plan(None, out, f"kernel {kernel.name}", kernel, elementwise_plan(out, *layouts))
            return stored(self, plan, layouts) if is_half(dtype) and self.kernel_kinds != "size" else plan
        if self.function is None:
            fail(self.name, f"there is no kernel for {dtype} on {first.device}", layouts, kind=NotImplementedError)
        return host_plan(out, self.function, why, layouts, moves=self.kernel_kinds == "size")

    def allow(self, dtype: np.dtype) -> None:
        """Refuses a dtype that it is not defined for."""
        if kind_of(dtype) not in self.kinds:
            fix = "use ~ or logical_not(), ^ or logical_xor(), or convert" if dtype == BOOL else "convert first"
            fail(self.name, f"is not defined for {dtype} tensors", "", fix, NotImplementedError)

    def kernel(self, x: Layout) -> Kernel | None:
        """The kernel for operands of this device and dtype."""
        family = getattr(x.device.kernels, self.kernel_name)
        if self.kernel_kinds == "size":
            return family.move(x.dtype)
        return family.get(x.dtype) if kind_of(x.dtype) in self.kernel_kinds else None

    def common_dtype(self, inputs: tuple[Any, ...]) -> np.dtype:
        """The dtype of the computation: PyTorch's promotion."""
        layouts = [t.array.layout for t in inputs if isinstance(t, Tensor)]
        dtype = result_type(*layouts) if layouts else BOOL
        for t in inputs:
            if not isinstance(t, Tensor):
                dtype = promote(dtype, scalar_type(t.item() if isinstance(t, np.generic) else t, dtype))
        if self.result == "float" and not is_float(dtype):
            dtype = default_float()
        return dtype if self.dtypes is None else self.dtypes(self, inputs, dtype)

    def convert(self, inputs: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], np.dtype] | None:
        """The operands as tensors of one dtype, and the dtype that promotion gives: the result's, unless it is bool.
        None if something is neither a tensor nor a number."""
        key = (default_float(), *[t.array.layout if isinstance(t, Tensor) else type(t) for t in inputs])
        dtype = self.known_dtypes.get(key)
        if dtype is None:
            if not any([isinstance(t, Tensor) for t in inputs]) or not is_operand(*inputs):
                return None
            if any([isinstance(t, np.ndarray) for t in inputs]):
                home = next(t for t in inputs if isinstance(t, Tensor)).array.layout.device
                return self.convert(tuple([functions.as_tensor(t, None, home) if isinstance(t, np.ndarray) else t
                                           for t in inputs]))
            if self.selects:
                if isinstance(inputs[0], Tensor) and inputs[0].array.layout.dtype == np.uint8:      # an old mask
                    return self.convert((cast(inputs[0], BOOL), *inputs[1:]))
                self._check_condition(inputs[0])
            dtype = remember(self.known_dtypes, key, self.common_dtype(inputs[1:] if self.selects else inputs))
        device = next(t for t in inputs if isinstance(t, Tensor)).array.layout.device
        operands = inputs[1:] if self.selects else inputs
        # a number beside half precision is not rounded, unless the kernel only moves or compares
        wide = is_half(dtype) and self.kernel_kinds != "size" and self.result != "bool"
        number = FLOAT32 if wide else dtype
        tensors: Any = tuple([self._held(t, dtype, number, device) if not isinstance(t, Tensor) else
                              t if t.array.layout.dtype == dtype or t.array.layout.dtype == number and is_constant(t)
                              else cast(t, dtype) for t in operands])
        if any([t is None for t in tensors]):
            tensors = self._with_large_numbers(operands, dtype, number, device)
        return ((inputs[0], *tensors) if self.selects else tensors), dtype

    def _held(self, value: Any, dtype: np.dtype, number: np.dtype, device: Device) -> Tensor | None:
        """A number as a tensor of the dtype `number`; None if it does not fit that, or as an element not `dtype`."""
        if self.picks and number != dtype and held(value, dtype, device) is None:
            return None
        return held(value, number, device)

    def _with_large_numbers(self, operands: tuple[Any, ...], dtype: np.dtype, number: np.dtype,
                            device: Device) -> tuple[Tensor, ...]:
        """The operands where a number does not fit. Floats take it as infinite, and so do comparisons, whose result is
        then that of the values. Beside integers it wraps around first, as in PyTorch; a power is computed in int64."""
        floats = is_float(dtype) or self.result == "bool"
        power = self.power and dtype.itemsize < 8
        wide = dtype if is_float(dtype) else FLOAT32 if floats else INT64 if power else dtype
        number = number if is_float(dtype) else wide

        def fitted(n: Any) -> Any:
            if self.picks:
                return constant(n, dtype, device, self.name)                    # raises if it does not fit
            if floats and not fits(n, number if is_float(dtype) else dtype):
                return constant(math.copysign(math.inf, n), number, device)
            if floats or fits(n, dtype) or not -1 << 63 <= n < 1 << 64:
                return constant(n, number, device, self.name)                   # raises if it does not fit int64
            return constant((n - low) % (1 << 8 * wide.itemsize) + low, wide, device)

        low = 0 if is_float(wide) else int(np.iinfo(wide).min)
        return tuple([cast(t, wide) if isinstance(t, Tensor) else fitted(t.item() if isinstance(t, np.generic) else t)
                      for t in operands])

    def _check_condition(self, condition: Any) -> None:
        if not isinstance(condition, Tensor) or condition.array.layout.dtype != BOOL:
            got = condition.array.layout if isinstance(condition, Tensor) else type(condition).__name__
            fail(self.name, "condition must be bool", got, "compare first, e.g. x > 0")

    # ---- running ----

    def apply(self, *inputs: Any) -> Any:
        """The general path: numbers, promotion, any arity, dtypes without a kernel."""
        found = self.convert(inputs)
        if found is None:
            return NotImplemented
        tensors, dtype = found
        plan = self.plan([t.array.layout for t in tensors], {})
        out = plan.at(tensors) if type(plan) is Wide else self.finish(
            plan, tensors, self.run(plan, [t.array for t in tensors]))
        return out if self.result == "bool" else cast(out, dtype)

    def run(self, plan: Plan, arrays: list[Array]) -> Array:
        """A new array with the result."""
        if plan.kernel is None:
            return plan.fresh(*arrays)
        out = alloc(plan.layout)
        self.launch(plan, out, arrays)
        return out

    def launch(self, plan: Plan, out: Array, arrays: list[Array]) -> None:
        """Writes the result into `out`, which may be one of the operands."""
        if plan.kernel is None:
            copy_array(out, plan.run(*arrays))              # type: ignore[misc]
        else:
            plan.kernel.call(out.ptr, *[a.ptr for a in arrays], plan.walk)

    def into(self, target: Tensor, *inputs: Any, **options: Any) -> Tensor:
        """Writes the result into `target` (in place; not recorded: that is checked before)."""
        if options:
            inputs += tuple([options.pop(n) for n in self.inputs[len(inputs):] if n in options])
            options = taken(self.name + "_", options, self.keywords()[len(self.inputs):-1])
        if options:
            given = self._optional(inputs, options)
            return write(self.name + "_", target, given) if isinstance(given, Tensor) else self.into(target, *given)
        found = self.convert(inputs)
        if found is None:
            self.refuse(inputs)
        place, to = target.array, target.array.layout
        arrays = [t.array for t in found[0]]
        key = (to, *[a.layout for a in arrays])
        plan = self.plans.get(key)
        if plan is None:
            written_once(self.name + "_", to)
            plan = remember(self.plans, key, self._prepare_into(*key))
        shared = any([a.block is place.block and (a.layout is not to or a.ptr != place.ptr) for a in arrays])
        if plan.layout is to and plan.kernel is not None and not shared:
            plan.kernel.call(place.ptr, *[a.ptr for a in arrays], plan.walk)
        else:                                               # the result is made aside, then copied
            copy_array(place, self.run(self.plan(key[1:], {}), arrays))
        return bump(target)

    def saves_first(self, inputs: tuple[Any, ...]) -> bool:
        """Does the gradient of these inputs use the first one?"""
        return any([0 in self.saves.get(i, ()) and isinstance(t, Tensor) and t._requires_grad
                    for i, t in enumerate(inputs)])

    def _prepare_into(self, to: Layout, *layouts: Layout) -> Plan:
        plan = self.plan(layouts, {})
        check_target(self.name + "_", to, plan.layout, not self.writes)
        if plan.layout.dtype == to.dtype and plan.layout.device is to.device and plan.kernel is not None:
            return Plan(None, to, plan.why, plan.kernel, elementwise_plan(to, *layouts))
        return plan

    # ---- samples ----

    def plain_samples(self, make: Any) -> Iterator[tuple]:
        """Operands of several shapes, broadcasting ones and empty ones included."""
        shapes: Any = [(shape,) for shape in ((3, 5), (31,), (32,), (33,), (1,), (), (0, 4))]
        if len(self.inputs) == 2:
            shapes = (((3, 5), (3, 5)), ((31,), ()), ((4, 1), (33,)), ((2, 1, 4), (3, 1)), ((1,), (1,)), ((), ()),
                      ((0, 3), (1, 3)))
        for operands in shapes:
            yield tuple(self._draw(make, s, d) for s, d in zip(operands, self.domains, strict=True))

    def _draw(self, make: Any, shape: tuple, domain: tuple) -> Any:
        if "f" in self.kinds:
            return make(*shape, low=domain[0], high=domain[1])
        return make.ints(*shape) if "i" in self.kinds else make.bools(*shape)

    def plain_errors(self, make: Any) -> Iterator[tuple]:
        """Shapes that do not broadcast, and what is no operand."""
        if len(self.inputs) == 2:
            a, b = self._draw(make, (3, 4), self.domains[0]), self._draw(make, (5,), self.domains[1])
            yield (a, b, {}), RuntimeError, "broadcast"
        yield (*[self._draw(make, (3,), d) for d in self.domains[1:]], "two", {}), TypeError, "tensors or numbers"
