"""Half precision: float16 and bfloat16 are read and written, arithmetic runs in float32 and rounds once.

Read `shape.py` and `devices/plan.py` first. An op without kernels for half precision runs on float32 copies of its
inputs, and its result is rounded: a `Wide` plan stands for such a signature. The casts are recorded like any other op,
so the derivative runs in float32 as well and rounds once. What an op calls inside sees float32 only.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Literal, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from ..devices.base import TYPE_SUFFIX, Family, Kernel, NoKernel
from ..devices.memory import Array, Layout, alloc, halves_seen, layout
from ..devices.plan import Plan, elementwise_plan, is_half
from .arrays import cast_array
from .engine import functions
from .modes import mode
from .shape import FLOAT32, default_float, is_float, result_type
from .tensor import Tensor, new_tensor

Function = TypeVar("Function", bound=Callable[..., Any])


class Wide(Plan):
    """The plan of a signature with half precision: `op` runs on float32 copies, and its result is rounded to `dtype`.

    `exact`: the outputs that stay as they were computed. `direct`: the plan of a kernel that reads and writes half
    precision; it runs what is not recorded, since the derivative would round at each of its ops. `turned`: the op runs
    with its operands in the other order, for which it has a kernel. `run` and `offset` are not set: the fast paths,
    which read them, fail there, and look at what kind of plan they have only then.
    """

    __slots__ = ("dtype", "exact", "direct", "turned")

    def __init__(self, op: Any, dtype: np.dtype, why: str, to: Layout | None = None, attrs: dict | None = None,
                 exact: tuple[int, ...] = (), direct: Plan | None = None, turned: bool = False) -> None:
        self.op, self.dtype, self.layout, self.attrs, self.exact, self.direct = op, dtype, to, attrs, exact, direct
        self.turned = turned
        self.why = f"{dtype} is computed in float32{': ' + why if why else ''}"
        self.kernel, self.table, self.walk = None, None, 0

    def at(self, inputs: Iterable[Any], attrs: Any = None) -> Any:
        """The result for these tensors, recorded if need be."""
        inputs = tuple(inputs)
        if self.turned:
            return self.op(*inputs[::-1])
        if self.direct is not None and not (mode.grad and any([t._requires_grad for t in inputs])):
            out = alloc(self.direct.layout)
            self.direct.kernel.call(out.ptr, *[t.array.ptr for t in inputs], self.direct.walk)
            return new_tensor(out, None)
        return rounded(self.op(*map(widened, inputs), **(attrs or {})), self.dtype, self.exact)

    def fresh(self, *arrays: Array) -> Any:
        inputs = [new_tensor(a, None) for a in arrays]
        return (self.at(inputs, self.attrs) if not self.turned else
                rounded(self.op(*map(widened, inputs)), self.dtype)).array


# where the derivatives of an elementwise op round once, as they are written: nowhere, beside a number, there and where
# nothing is broadcast, or everywhere
Once = Literal["", "number", "alike", "always"]
constants: WeakValueDictionary[int, Tensor] = WeakValueDictionary()     # numbers of the program as tensors, by their id


def is_constant(t: Tensor) -> bool:
    """Is it a number of the program, as a tensor?"""
    return constants.get(id(t)) is t


def beside_number(op: Any, layouts: Sequence[Layout]) -> Kernel | None:
    """The kernel of an elementwise op for a tensor of half precision and a number, which is float32."""
    x, number = layouts[0], layouts[-1]
    if len(layouts) != 2 or not is_half(x.dtype) or number.dtype != FLOAT32 or number.ndim:
        return None
    family: Family = getattr(x.device.kernels, getattr(op, "kernel_name", op.name))
    return family.member(TYPE_SUFFIX.get(x.dtype, "") + "w")


def stored(op: Any, plan: Plan, layouts: Sequence[Layout]) -> Plan:
    """The plan of an elementwise kernel, also if it reads and writes half precision; raises NoKernel where the
    derivative would round more than once (see `wide_plan`)."""
    alike = op.once == "alike" and all([x.shape == plan.layout.shape for x in layouts])
    if op.rules and not alike and op.once != "always":
        raise NoKernel(f"{plan.why}: its derivative runs in float32", plan)
    return plan


def wide_plan(op: Any, layouts: Sequence[Layout], attrs: dict, reason: Exception) -> Plan:
    """The plan of a primitive that has no kernel for these dtypes, for `reason`; raises that if no input is of half
    precision. A second argument of `reason` is the plan of a kernel for what is not recorded."""
    found = [x.dtype for x in layouts if is_half(x.dtype)]
    if not found:
        raise reason
    direct, kernel = reason.args[1] if len(reason.args) > 1 else None, beside_number(op, layouts)
    if kernel is not None:
        out = layout(layouts[0].device, found[0], layouts[0].shape)
        direct = Plan(None, out, f"kernel {kernel.name}", kernel, elementwise_plan(out, *layouts), attrs=attrs)
        if getattr(op, "once", ""):                         # which an `Elementwise` has
            return direct
    inside = op.plan([layout(x.device, FLOAT32, x.shape) if is_half(x.dtype) else x for x in layouts], attrs)
    made = inside.layout
    to = layout(made.device, found[0], made.shape) if is_float(made.dtype) else made
    turned = getattr(op, "commutes", False) and beside_number(op, layouts[::-1]) is not None
    return Wide(op, found[0], inside.why, to, attrs, direct=direct, turned=turned)


def half_result(inputs: Iterable[Any]) -> np.dtype | None:
    """The dtype to which a function of such inputs rounds; None if no tensor among them is of half precision."""
    given = [t.array.layout for t in inputs if isinstance(t, Tensor)]
    return result_type(*given) if any([is_half(x.dtype) for x in given]) else None


def unrounded(x: Layout, shape: tuple[int, ...]) -> Layout:
    """The layout of what kernels keep of x unrounded (sums, statistics): float32 for half precision, else x's dtype."""
    return layout(x.device, FLOAT32 if is_half(x.dtype) else x.dtype, shape)


def rounded_array(made: Array, dtype: np.dtype) -> Array:
    """What a kernel made `unrounded`, in the dtype of its op."""
    return cast_array(made, dtype) if made.layout.dtype is not dtype else made


def widened(t: Any) -> Any:
    """A tensor of half precision as float32; anything else as it is."""
    return functions.cast(t, FLOAT32) if isinstance(t, Tensor) and is_half(t.array.layout.dtype) else t


def rounded(made: Any, dtype: np.dtype, exact: tuple[int, ...] = ()) -> Any:
    """A result (a tensor, or a tuple of them) with its floats in `dtype`, but for the outputs in `exact`."""
    if isinstance(made, tuple):
        parts = [t if i in exact else rounded(t, dtype) for i, t in enumerate(made)]
        return type(made)(*parts) if hasattr(made, "_fields") else tuple(parts)
    return functions.cast(made, dtype) if isinstance(made, Tensor) and is_float(made.array.layout.dtype) else made


def in_float32(function: Callable[..., Any], dtype: np.dtype, /, *inputs: Any, **attrs: Any) -> Any:
    """`function(*inputs, **attrs)` on float32 copies, rounded to `dtype`, or to the dtype in `attrs`, to which such a
    function converts its inputs first."""
    if (asked := attrs.get("dtype")) is not None and is_float(np.dtype(asked)):
        dtype = np.dtype(asked)
        if is_half(dtype):
            attrs, inputs = {**attrs, "dtype": None}, tuple([rounded(t, dtype) for t in inputs])
    return rounded(function(*map(widened, inputs), **{n: widened(v) for n, v in attrs.items()}), dtype)


def narrowed(made: Tensor, like: Tensor) -> Tensor:
    """A result in the dtype of the tensor `like` if that is of half precision, else as it is."""
    dtype = like.array.layout.dtype
    return rounded(made, dtype) if is_half(dtype) else made


def finfo(dtype: Any = None) -> Any:
    """The limits of a float dtype (`eps`, `max`, `min`, `tiny`, `bits`, ...), as `numpy.finfo` gives them; of bfloat16
    too. Without `dtype`, those of the default float dtype."""
    of = default_float() if dtype is None else np.dtype(dtype)
    if of.isbuiltin != 2:
        return np.finfo(of)
    import ml_dtypes
    return ml_dtypes.finfo(of)


# ---- autocast: `minigrad/amp.py` -------------------------------------------------------------------------------------

# The ops and functions that cast their inputs under autocast: to which dtype, by the type of device; None stands for
# that of the thread.
autocasts: dict[Any, dict[str, np.dtype | None]] = {}
casting: dict[Any, dict[str, np.dtype | None]] = {}     # the same while autocast is on in some thread, else empty
_rounding: dict[Any, tuple[int, ...]] = {}       # those that round their results to the dtype of the block, but some


def autocast_to_half(function: Function) -> Function:
    """Decorates an op, or a function that `rounds_once`: under autocast its inputs are cast to the dtype of the block.
    So it is for products, as in PyTorch."""
    autocasts[function] = {"cpu": None, "cuda": None}
    return function


def autocast_results(function: Function, exact: tuple[int, ...] = ()) -> Function:
    """The same for products that have no kernel of half precision, as in recurrent layers: they run in float32 without
    rounding what they get, and round their results, but for those in `exact`, to the dtype of the block."""
    _rounding[function] = exact
    return autocast_to_float32(function)


def autocast_to_float32(function: Function) -> Function:
    """The same for what runs in float32 under autocast: losses and `prod`."""
    autocasts[function] = {"cpu": FLOAT32, "cuda": FLOAT32}
    return function


def autocast_to_float32_on_gpu(function: Function) -> Function:
    """The same for what PyTorch runs in float32 on a GPU alone: the softmax family and norms."""
    autocasts[function] = {"cuda": FLOAT32}
    return function


def call_cast(function: Callable[..., Any], inputs: Iterable[Any], attrs: dict) -> Any:
    """`function(*inputs, **attrs)` with inputs in the dtype that `casting` has for their device, float64 and integers
    excepted; autocast is off inside."""
    before, to = mode.autocast, casting[function]
    on = dict(before)

    def own(t: Any) -> Any:
        have = t.array.layout if isinstance(t, Tensor) else None
        if have is None or have.device.type not in on or have.device.type not in to:
            return t
        fixed = to[have.device.type]
        dtype = on[have.device.type] if fixed is None else fixed
        return functions.cast(t, dtype) if have.dtype == FLOAT32 or is_half(have.dtype) else t
    mode.autocast = None
    try:
        given = [own(t) for t in inputs]
        made = function(*given, **attrs)
        first = given[0].array.layout if function in _rounding else None
        if first is None or first.dtype != FLOAT32 or first.device.type not in on:
            return made
        return rounded(made, on[first.device.type], _rounding[function])
    finally:
        mode.autocast = before


def rounds_once(function: Function) -> Function:
    """Decorates a function of several ops: with inputs of half precision it is computed in float32 and rounded once."""
    @wraps(function)
    def call(*inputs: Any, **attrs: Any) -> Any:
        if casting and mode.autocast is not None and call in casting:
            return call_cast(call, inputs, attrs)
        if halves_seen and "out" not in attrs:              # such a function calls itself without it
            dtype = half_result((*inputs, *attrs.values()))
            if dtype is not None:
                return in_float32(function, dtype, *inputs, **attrs)
        return function(*inputs, **attrs)
    return call         # type: ignore[return-value]
