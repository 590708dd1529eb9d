"""Checks of an op, driven by the samples of the op. `check_op(my_op)` works for a user's op too.

    >>> from minigrad.testing import check_op
    >>> print(check_op(my_op))     # what was checked; AssertionError says what is wrong, and how to see it again

These checks run for every sample, in this order:
    memory      kernels write nothing but their results: neither beside them nor into their inputs
    oracle      the definition and the kernels against an independent computation, in float64
    gradients   derivatives of order 1 and 2 against finite differences, in float64, with fused kernels and without
    fused       fused kernels against the definition, in float32; the definition in float64 says which error is allowed
    half        float16 and bfloat16 against the definition in float64, outputs and gradients
    layouts     transposed, reversed and offset operands give the same values, and inputs are not modified
    specials    inf and nan in an input
    threads     1 and 2 threads give the same bits, also where there are enough elements to share
    errors      each error sample raises its error with its message
"""
from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np

from .core import engine, own_kernels
from .core.op import Documented, Op, Primitive, registry
from .core.place import arrays, asker
from .core.shape import is_float
from .core.tensor import Tensor, new_tensor
from .devices import launch_hook
from .devices.base import Kernel
from .devices.memory import Buffer, layout, view
from .devices.native import get_num_threads, set_num_threads
from .ops import load_all
from .ops.creation import as_tensor, tensor
from .ops.dispatch import set_fused

load_all()          # every op is in the registry

_ULPS = 8           # a kernel's error may be 3 times that of the definition, plus this number of ulps

Attributes: TypeAlias = dict[str, Any]
Arguments: TypeAlias = tuple[Any, ...]


class Make:
    """Makes the tensors of samples, from a seed: `make(3, 4, low=-2, high=2)`, `make.ints(5, high=10)`,
    `make.bools(3)`.

    dtype   of the tensors that `make(...)` returns
    device  where all of them are
    """

    def __init__(self, dtype: Any = np.float64, seed: int = 0, device: str = "cpu") -> None:
        self.dtype, self.device, self.rng = np.dtype(dtype), device, np.random.default_rng(seed)

    def __call__(self, *shape: int, low: float = -2.0, high: float = 2.0, dtype: Any = None) -> Tensor:
        """Uniform numbers in [low, high), the same for float32 and float64."""
        values = np.asarray(self.rng.uniform(low, high, shape), np.float32)
        return tensor(values.astype(self.dtype if dtype is None else dtype), device=self.device)

    def ints(self, *shape: int, low: int = 0, high: int = 10) -> Tensor:
        """Whole numbers, low <= x < high, int64."""
        return tensor(np.asarray(self.rng.integers(low, high, shape)), device=self.device)

    def bools(self, *shape: int) -> Tensor:
        """True and False with equal probability."""
        return tensor(np.asarray(self.rng.integers(0, 2, shape), bool), device=self.device)


def samples_of(op: Any, dtype: Any = np.float64, device: str = "cpu") -> list[tuple[Arguments, Attributes]]:
    """The samples of the op as (arguments, attributes). AssertionError if it has none."""
    op = op_of(op)
    if op.sample_function is None:
        raise AssertionError(f"{op.name} has no samples; add `@{op.name}.samples`")
    samples = [_split(s) for s in op.sample_function(Make(dtype, device=device))]
    if not samples:
        raise AssertionError(f"{op.name} has no samples: `@{op.name}.samples` yields nothing")
    return samples


def op_of(given: Any) -> Any:
    """The op itself, of an op, its faster function or its name. ValueError if there is none."""
    found = registry.get(given, given) if isinstance(given, str) else getattr(given, "op", given)
    if not isinstance(found, Documented):
        name = getattr(given, "__qualname__", given)
        raise ValueError(f"{name!r} is no op: decorate the function with @minigrad.op")
    return found


def odd(args: Sequence[Any]) -> list[Any]:
    """The arguments, where dimensions of even size lose their last element: no vector fits an odd number of them."""
    return [tensor(_values(a)[tuple([slice(0, n - (n % 2 == 0)) for n in a.shape])]) if isinstance(a, Tensor) else a
            for a in args]


def _with_odd(op: Any, dtype: Any = np.float32) -> list[tuple[Sequence[Any], Attributes, bool]]:
    """The samples; and each once more with odd sizes, if the op is launched by names: its inputs are of one shape."""
    found: list[tuple[Sequence[Any], Attributes, bool]] = []
    for args, attrs in samples_of(op, dtype):
        found.append((args, attrs, False))
        tensors = [a for a in args if isinstance(a, Tensor)]
        if op.prepare.__module__ == own_kernels.__name__ and tensors and tensors[0].numel() and any(
                [n % 2 == 0 for n in tensors[0].shape]) and all([t.shape == tensors[0].shape for t in tensors]):
            try:
                with set_fused("off"):
                    called(op)(*odd(args), **attrs)
            except (RuntimeError, ValueError, IndexError):
                continue                                        # the definition is for even sizes
            found.append((odd(args), attrs, True))
    return found


def _split(sample: Any) -> tuple[Arguments, Attributes]:
    sample = sample if isinstance(sample, tuple) else (sample,)
    return (sample[:-1], sample[-1]) if sample and isinstance(sample[-1], dict) else (sample, {})


def called(op: Any) -> Callable[..., Any]:
    """What users call for an op: the op itself, or its faster function."""
    return getattr(op, "public", op)


def _outputs(result: Any) -> list[Tensor]:
    return [t for t in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(t, Tensor)]


def _values(t: Tensor) -> np.ndarray:
    return t.numpy(force=True)


def _leaves(args: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """The arguments, where each float tensor is a new leaf that requires a gradient; and these leaves."""
    own = [a.detach().requires_grad_() if isinstance(a, Tensor) and is_float(a.dtype) else a for a in args]
    return own, [a for a in own if isinstance(a, Tensor) and a.requires_grad]


def evaluate(op: Callable[..., Any], args: Sequence[Any], attrs: Attributes,
             seed: int = 1, precision: Any = np.float32) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """The outputs, and the gradients of the float inputs for random gradients of the outputs (from `seed`), which have
    values of the dtype `precision`."""
    own, leaves = _leaves(args)
    outputs = _outputs(called(op)(*own, **attrs))
    rng = np.random.default_rng(seed)
    roots = [o for o in outputs if o.requires_grad]
    drawn = [np.asarray(rng.uniform(-1, 1, o.shape), np.float32).astype(precision) for o in roots]
    gs = [as_tensor(d.astype(o.dtype), device=o.device) for d, o in zip(drawn, roots, strict=True)]
    gradients: Sequence[Tensor | None] = [None] * len(leaves)
    if roots and leaves:
        gradients = engine.grad(roots, leaves, gs, allow_unused=True)
    return [_values(o) for o in outputs], [None if g is None else _values(g) for g in gradients]


# ---- what is wrong, and how to see it again --------------------------------------------------------------------------

class Where(str):
    """Where a value comes from, in words. `again` tells the Python that computes it, up to the index of an element."""

    again: str = ""


def _where(op: Any, sample: int, attrs: Attributes, kind: str, number: int, dtype: Any, about: str = "",
           change: str = "") -> Where:
    """The place of an output or a gradient ("output" or "gradient") of a sample; `change` is what was done to its
    `args` before."""
    where = Where(", ".join(filter(None, (f"{op.name}, sample {sample} {attrs}", about, f"{kind} {number}"))))
    which = 0 if kind == "output" else 1
    tools = ", ".join([t for t in ("evaluate", "odd", "relaid", "samples_of") if t in f"evaluate samples_of {change}"])
    where.again = _again(op, f"from minigrad.testing import {tools}; args, attrs = samples_of(OP, '{np.dtype(dtype)}')"
                             f"[{sample}]; {change}print(evaluate(OP, args, attrs)[{which}][{number}]")
    return where


def _again(op: Any, code: str) -> str:
    """Tells where code runs, in which OP stands for the op: in any Python, or else below the lines that made the op."""
    module = sys.modules.get(op.__module__)
    there = getattr(module, op.name, None)
    if module is not None and module.__name__ != "__main__" and (there is op or there is called(op)):
        return f"\n  again: from {module.__name__} import {op.name}; {code.replace('OP', op.name)}"
    if own_kernels.of_tree(op):
        return f"\n  again: from minigrad.core.op import registry; {code.replace('OP', f'registry[{op.name!r}]')}"
    made = op.definition.__code__
    return (f"\n  again, below the op {op.name} ({made.co_filename}:{made.co_firstlineno}): "
            f"{code.replace('OP', op.name)}")


def _differ(where: str, index: Sequence[Any], first: str, second: str, why: str) -> NoReturn:
    """Raises AssertionError for one element; `first` and `second` are its two values, with their names."""
    element = f"[{', '.join([str(int(i)) for i in index]) or '()'}]"
    again = f"{where.again}{element})" if isinstance(where, Where) else ""
    raise AssertionError(f"{where}, element {element}: {first}, {second}; {why}{again}")


def _first(wrong: np.ndarray) -> tuple[Any, ...]:
    """The index of the first True."""
    return np.unravel_index(int(np.flatnonzero(wrong)[0]), wrong.shape)


# ---- the checks: each takes an op, says what it checked, and raises AssertionError -----------------------------------

def _has_kernels(op: Any) -> bool:
    """Has the op kernels on the CPU?"""
    return isinstance(op, Op) and op.prepare is not None and (not op.sources or "cpu" in op.sources)


def _counted(op: Any, what: str) -> str:
    count = len(samples_of(op))
    return f"{count} sample{'' if count == 1 else 's'}: {what}"


def check_oracle(op: Any) -> str:
    """Definition and kernels against the op's reference, an independent computation in NumPy, in float64."""
    if op.oracle is None:
        return f"not checked: there is no @{op.name}.reference"
    for i, (args, attrs) in enumerate(samples_of(op)):
        with np.errstate(all="ignore"):
            want = op.oracle(*[_values(a) if isinstance(a, Tensor) else a for a in args], **attrs)
        for path in ("auto", "off"):
            with set_fused(path):
                got = _outputs(called(op)(*args, **attrs))
            for k, (g, w) in enumerate(zip(got, want if isinstance(want, tuple) else (want,), strict=False)):
                where = _where(op, i, attrs, "output", k, np.float64, f"fused {path}", _switch(path))
                _close(_values(g), np.asarray(w), 1e-9, where, "the reference gives")
    return _counted(op, "against the reference, kernels and definition, float64")


def _switch(path: str) -> str:
    """Python that chooses a path."""
    return "" if path == "auto" else f"import minigrad; minigrad.set_fused({path!r}); "


def _close(got: np.ndarray, want: np.ndarray, tolerance: float, where: str, other: str = "expected") -> None:
    """Compares relative to the largest element. Infinities and NaN must be in the same places."""
    if got.shape != want.shape:
        raise AssertionError(f"{where}: shape {got.shape}, {other} {want.shape}")
    finite = np.isfinite(want) if got.dtype.kind == "f" else np.zeros(want.shape, bool)
    same = got == want if got.dtype.kind != "f" else (got == want) | np.isnan(got) & np.isnan(want)
    wrong = np.asarray(np.where(finite, ~np.isfinite(got), ~same))
    if wrong.any():
        at = _first(wrong)
        _differ(where, at, f"got {got[at]}", f"{other} {want[at]}", "inf or nan differ" if got.dtype.kind == "f"
                else "they must be equal")
    if finite.any():
        scale = max(1.0, float(np.abs(want[finite]).max()))
        error = np.where(finite, np.abs(np.where(finite, got, 0).astype(np.float64) - np.where(finite, want, 0)), 0)
        if error.max() > tolerance * scale:
            at = np.unravel_index(int(error.argmax()), error.shape)
            _differ(where, at, f"got {got[at]}", f"{other} {want[at]}",
                    f"error {error[at]:.3g} at scale {scale:.3g}, allowed {tolerance * scale:.3g}")


def check_gradients(op: Any, orders: Sequence[int] = (1, 2)) -> str:
    """Derivatives along random directions against central differences, in float64, with fused kernels on and off."""
    count = 0
    for i, (args, attrs) in enumerate(samples_of(op)):
        _, leaves = _leaves(args)
        if not leaves or any(t.numel() == 0 for t in leaves):
            continue
        count += 1
        for path in ("auto", "off"):
            with set_fused(path):
                for order in orders:
                    _retried(op, i, args, attrs, order, path)
    return (f"{count} of {_counted(op, f'derivatives of order {_listed(orders)} against finite differences, float64')}"
            if count else "not checked: no sample has an input with a gradient")


def _listed(values: Sequence[Any]) -> str:
    return " and ".join(map(str, values))


def _retried(op: Any, sample: int, args: Sequence[Any], attrs: Attributes, order: int, path: str) -> None:
    """Tries up to four directions: one that crosses a kink (of relu, say) does not show that a derivative is wrong."""
    worst: Any = None
    for seed in range(4):
        found = directional_error(op, args, attrs, order, seed)
        if found is None or found[0] <= found[1]:
            return
        worst = found
    text = f"{op.name}, sample {sample} {attrs}, fused {path}, derivative of order {order}"
    _blame(op, sample, args, attrs, order, path, text)
    again = _again(op, f"from minigrad.testing import directional_error, samples_of; {_switch(path)}"
                       f"print(directional_error(OP, *samples_of(OP)[{sample}], order={order}, seed=3))")
    raise AssertionError(f"{text}: along a direction it differs from finite differences by {worst[0]:.3g}, "
                         f"allowed {worst[1]:.3g}{again}")


def _blame(op: Any, sample: int, args: Sequence[Any], attrs: Attributes, order: int, path: str, text: str) -> None:
    """AssertionError for the element of an input whose derivative is the worst, if one alone shows the error."""
    shapes = [a.shape if isinstance(a, Tensor) and is_float(a.dtype) else None for a in args]
    elements = [(k, at) for k, shape in enumerate(shapes) if shape is not None for at in np.ndindex(*shape)]
    worst: tuple[float, Any] = (1.0, None)
    for k, at in elements[:_BLAMED]:
        along = [None if shape is None else np.zeros(shape) for shape in shapes]
        along[k][at] = 1.0                                      # type: ignore[index]
        found = _slopes(op, args, attrs, order, 3, along=along)
        if found is not None and abs(found[0] - found[1]) > worst[0] * found[2]:
            worst = abs(found[0] - found[1]) / found[2], (k, at, along, found)
    if worst[1] is not None:
        k, at, along, (slope, numeric, allowed) = worst[1]
        index = ", ".join(map(str, at)) or "()"
        again = _again(op, f"from minigrad.testing import derivative, samples_of; {_switch(path)}"
                           f"print(derivative(OP, *samples_of(OP)[{sample}], {k}, ({index},), {order}))")
        raise AssertionError(f"{text}, input {k}, element [{index}]: backward gives {slope:.9g}, finite differences "
                             f"{numeric:.9g}; allowed {allowed:.3g}{again}")


_BLAMED = 512       # elements that are tried one by one


def derivative(function: Callable[..., Any], args: Sequence[Any], attrs: Attributes, number: int,
               index: tuple[int, ...], order: int = 1) -> tuple[float, float]:
    """The derivative of a weighted sum of the outputs by one element of an input, by backward and by central
    differences; of order 2, of a directional derivative of that sum."""
    along = [np.zeros(a.shape) if isinstance(a, Tensor) and is_float(a.dtype) else None for a in args]
    along[number][index] = 1.0                                  # type: ignore[index]
    found = _slopes(function, args, attrs, order, 3, along=along)
    if found is None:
        raise ValueError(f"it is not differentiable {order} times")
    return found[0], found[1]


def directional_error(function: Callable[..., Any], args: Sequence[Any], attrs: Attributes, order: int, seed: int = 0,
                      step: float = 1e-5) -> tuple[float, float] | None:
    """|derivative - central difference| along a random direction, and the error that is allowed, in float64.

    Order 2 is the derivative of a directional first derivative. None if the function is not differentiable so often.
    """
    found = _slopes(function, args, attrs, order, seed, step)
    return None if found is None else (abs(found[0] - found[1]) if np.isfinite(found[0]) else float("inf"), found[2])


def _slopes(function: Callable[..., Any], args: Sequence[Any], attrs: Attributes, order: int, seed: int,
            step: float = 1e-5, along: list[Any] | None = None) -> tuple[float, float, float] | None:
    """What `directional_error` compares: the derivative along a direction, the central difference, and the error that
    is allowed."""
    base = [_values(a).astype(np.float64) if isinstance(a, Tensor) and is_float(a.dtype) else a for a in args]
    rng = np.random.default_rng(seed + 10)

    def random_direction() -> list[Any]:
        return [rng.standard_normal(b.shape) if isinstance(b, np.ndarray) else None for b in base]

    direction = random_direction() if along is None else along
    inner = [random_direction() for _ in range(order - 1)]

    def value(shift: float, with_gradient: bool) -> Any:
        own = [tensor(b + shift * d, requires_grad=True) if isinstance(b, np.ndarray) else b
               for b, d in zip(base, direction, strict=True)]
        leaves = [o for o, b in zip(own, base, strict=True) if isinstance(b, np.ndarray)]
        weights = np.random.default_rng(seed + 20)
        total: Any = None
        for o in _outputs(called(function)(*own, **attrs)):
            if o.requires_grad:
                part = (o * tensor(weights.standard_normal(o.shape))).sum()      # type: ignore[operator]
                total = part if total is None else total + part
        if total is None:
            return None
        for vectors in inner:
            gs = engine.grad([total], leaves, create_graph=True, allow_unused=True)
            known = [v for v in vectors if v is not None]
            found: list[tuple[Any, Any]] = [(g, v) for g, v in zip(gs, known, strict=True) if g is not None]
            parts = [(g * tensor(v)).sum() for g, v in found]
            if not any(p.requires_grad for p in parts):
                return None
            total = parts[0]
            for p in parts[1:]:
                total = total + p
        if not with_gradient:
            return total.item()
        gs = engine.grad([total], leaves, allow_unused=True)
        shifts = [d for d in direction if d is not None]
        slopes = [float((_values(g) * d).sum()) for g, d in zip(gs, shifts, strict=True) if g is not None]
        return sum(slopes), sum(abs(s) for s in slopes)

    with np.errstate(all="ignore"):
        exact = value(0.0, True)
        if exact is None:
            return None
        up, down = value(step, False), value(-step, False)
    slope, size = exact
    numeric = (up - down) / (2 * step)
    allowed = 2e-6 * max(1.0, abs(numeric), size) + 1e-10 * max(abs(up), abs(down)) / step
    return slope, numeric, allowed if np.isfinite(slope) else 0.0


_ODD = "cut to odd sizes", "args = odd(args); "


def check_fused(op: Any) -> str:
    """Outputs and gradients of the fused kernels against the definition, in float32.

    Both are compared with the definition in float64: the error of the kernel may be 3 times that of the definition,
    plus a few ulps of the largest element. AssertionError also if no sample uses the kernels.
    """
    if not _has_kernels(op):
        return "not checked: there are no kernels for the CPU"
    narrow, wide = _with_odd(op), _with_odd(op, np.float64)
    used, reasons, i = 0, set[str](), -1
    for (args, attrs, cut), (args64, _, _) in zip(narrow, wide, strict=True):
        i += not cut
        with set_fused("auto"):
            fused = evaluate(op, args, attrs)
            used += not cut and any(type(p) is not str for p in op.plans.values())
            reasons |= {p for p in op.plans.values() if isinstance(p, str)}
        with set_fused("off"):
            plain, truth = evaluate(op, args, attrs), evaluate(op, args64, attrs)
        for kind, which in (("output", 0), ("gradient", 1)):
            for k, (a, b, c) in enumerate(zip(fused[which], plain[which], truth[which], strict=True)):
                where = _where(op, i, attrs, kind, k, np.float32, *(_ODD if cut else ()))
                if a is None or b is None or c is None:
                    if (a is None) != (b is None):
                        raise AssertionError(f"{where} is there on one path only")
                    continue
                arbitrate(a, b, c, where)
    if not used:
        raise AssertionError(f"{op.name} has fused kernels, but no sample uses them: {'; '.join(sorted(reasons))}")
    return f"{used} of {_counted(op, 'outputs and gradients of the kernels against the definition, float32')}"


def arbitrate(fused: np.ndarray, plain: np.ndarray, truth: np.ndarray, where: str) -> None:
    """AssertionError if `fused` is much farther from `truth` than `plain` is, as `check_fused` explains."""
    if fused.dtype.kind != "f" or fused.shape != plain.shape:
        _close(fused, plain, 0, where, "the definition gives")
        return
    finite = np.isfinite(truth) & np.isfinite(plain)
    wrong = np.isfinite(fused) != np.isfinite(plain)
    if wrong.any():
        at = _first(wrong)
        _differ(where, at, f"the kernel gives {fused[at]}", f"the definition {plain[at]}", "inf or nan differ")
    if not finite.any():
        return
    scale = max(1.0, float(np.abs(truth[finite]).max()))    # at least 1: a small result can be a difference of samples
    own = float(np.abs(plain[finite] - truth[finite]).max())
    error = np.abs(np.where(finite, fused, 0) - np.where(finite, truth, 0))
    allowed = 3 * own + _ULPS * float(np.finfo(np.float32).eps) * scale
    if error.max() > allowed:
        at = np.unravel_index(int(error.argmax()), error.shape)
        _differ(where, at, f"the kernel gives {fused[at]}", f"the definition {plain[at]} (in float64 {truth[at]})",
                f"the kernel's error is {error[at]:.3g}, the definition's {own:.3g}, allowed {allowed:.3g}")


def half_dtypes() -> list[np.dtype]:
    """float16, and bfloat16 where ml_dtypes is installed."""
    try:
        import ml_dtypes
    except ImportError:
        return [np.dtype(np.float16)]
    return [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


def check_half(op: Any, device: str = "cpu") -> str:
    """Outputs and gradients in half precision against the definition in float64, of the same values.

    The error of an element may be one ulp of the half type at the magnitude of that element (of a reduction: of its
    result), plus the error that float32 has there. Results are of the input's dtype; statistics, which have no
    gradient, stay in float32.
    """
    for dtype in half_dtypes():
        cases = []
        for args, attrs in samples_of(op, dtype, device):
            wide = [a.to(np.float32) if isinstance(a, Tensor) and a.dtype == dtype else a for a in args]
            double = [tensor(_values(a).astype(np.float64 if a.dtype == dtype else a.dtype))
                      if isinstance(a, Tensor) else a for a in args]
            cases.append((args, wide, double, attrs))
        with np.errstate(all="ignore"):
            halves = [(evaluate(op, args, attrs, precision=dtype), evaluate(op, wide, attrs, precision=dtype))
                      for args, wide, _, attrs in cases]
            with set_fused("off"):
                truths = [evaluate(op, double, attrs, precision=dtype) for _, _, double, attrs in cases]
            for i, ((half, single), truth) in enumerate(zip(halves, truths, strict=True)):
                told = cases[i][3].get("dtype") is not None
                own = (0,) if told else getattr(op, "nondifferentiable", ())
                for kind, which, exact in (("output", 0, own), ("gradient", 1, ())):
                    for k, (h, s, t) in enumerate(zip(half[which], single[which], truth[which], strict=True)):
                        if h is not None and s is not None and t is not None:
                            to = dtype if s.dtype == np.float32 and k not in exact else s.dtype
                            _one_ulp(h, s, t, to, _where(op, i, cases[i][3], kind, k, dtype, str(dtype)))
    return _counted(op, f"{_listed(half_dtypes())} within one ulp of the definition in float64")


def _one_ulp(half: np.ndarray, single: np.ndarray, truth: np.ndarray, dtype: np.dtype, where: str) -> None:
    """AssertionError unless `half` is of `dtype` and within one ulp of `truth`, beyond the error of `single`."""
    if half.dtype != dtype:
        raise AssertionError(f"{where}: the dtype is {half.dtype}, expected {dtype}")
    if not is_float(dtype):
        _close(half, truth, 0, where)
        return
    near = truth.astype(dtype)
    finite = np.isfinite(near.astype(np.float64)) & np.isfinite(single)
    got, want = half.astype(np.float64), truth.astype(np.float64)
    rounded = near.astype(np.float64)
    wrong = ~finite & ~((got == rounded) | np.isnan(got) & np.isnan(rounded))
    if wrong.any():
        at = _first(wrong)
        _differ(where, at, f"got {got[at]}", f"the definition gives {rounded[at]}", "inf or nan differ")
    ulp = np.abs(np.spacing(near)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        excess = np.abs(got - want) - np.abs(single.astype(np.float64) - want) - ulp
    wrong = finite & (excess > 0)
    if wrong.any():
        at = _first(wrong)
        _differ(where, at, f"got {got[at]}", f"the definition in float64 gives {want[at]}", "more than an ulp apart")


def relaid(t: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Pairs (name, tensor): the same values in other memory layouts, transposed, reversed, and offset with gaps."""
    values = _values(t)
    if values.ndim >= 2:
        yield "transposed", new_tensor(_strided(np.ascontiguousarray(values.T), lambda a: a.T), None)
    if values.ndim:
        yield "reversed", new_tensor(_strided(np.ascontiguousarray(values[::-1]), lambda a: a[::-1]), None)
        first, last = values.shape[0], values.shape[-1]
        around: tuple[int, ...] = (first * 2 + 3,)
        place: Any = (slice(2, -1, 2),)
        if values.ndim > 1:
            around = (first + 2, *values.shape[1:-1], last * 2 + 1)
            place = (slice(1, -1), ..., slice(1, None, 2))
        wide = np.full(around, np.nan if values.dtype.kind == "f" else 0, values.dtype)
        wide[place] = values
        yield "offset and spread", new_tensor(_strided(wide, lambda a: a[place]), None)


def _strided(memory: np.ndarray, cut: Callable[[np.ndarray], np.ndarray]) -> Any:
    owner = cpu_device().upload(memory)
    seen = cut(owner.np)
    size = seen.itemsize
    to = layout(owner.layout.device, seen.dtype, seen.shape, tuple(s // size for s in seen.strides))
    return view(owner, to, (seen.__array_interface__["data"][0] - owner.ptr) if seen.size else 0)


def cpu_device() -> Any:
    """The CPU as a device."""
    from .devices import open_device
    return open_device("cpu")


def check_layouts(op: Any) -> str:
    """Operands in other memory layouts give the same values, and the op does not write to its inputs."""
    for i, (args, attrs) in enumerate(samples_of(op, np.float32)):
        before = [_values(a).copy() if isinstance(a, Tensor) else None for a in args]
        want = evaluate(op, args, attrs)
        for a, kept in zip(args, before, strict=True):
            if kept is not None and not np.array_equal(_values(a), kept, equal_nan=kept.dtype.kind == "f"):
                raise AssertionError(f"{op.name}, sample {i} {attrs}: an input was modified")
        for k, a in enumerate(args):
            if not isinstance(a, Tensor):
                continue
            for name, other in relaid(a):
                got = evaluate(op, [*args[:k], other, *args[k + 1:]], attrs)
                change = f"args = [*args]; args[{k}] = dict(relaid(args[{k}]))[{name!r}]; "
                for kind, which in (("output", 0), ("gradient", 1)):
                    for j, (g, w) in enumerate(zip(got[which], want[which], strict=True)):
                        if g is not None and w is not None:
                            where = _where(op, i, attrs, kind, j, np.float32, f"argument {k} {name}", change)
                            _close(g, w, 2e-5, where, "contiguous")
    return _counted(op, "transposed, reversed, offset and spread operands; inputs are not modified")


def check_specials(op: Any) -> str:
    """With inf, -inf or nan in an input, the results of kernels and definition are finite in the same places."""
    if not _has_kernels(op):
        return "not checked: there are no kernels for the CPU"
    for i, (args, attrs) in enumerate(samples_of(op, np.float32)):
        for k, a in enumerate(args):
            if not isinstance(a, Tensor) or not is_float(a.dtype) or a.numel() < 2:
                continue
            for special in (np.inf, -np.inf, np.nan):
                values = _values(a).copy()
                values.reshape(-1)[values.size // 2] = special
                changed = [*args[:k], tensor(values), *args[k + 1:]]
                results = []
                for path in ("auto", "off"):
                    with set_fused(path):
                        results.append([_values(o) for o in _outputs(called(op)(*changed, **attrs))])
                for j, (f, p) in enumerate(zip(*results, strict=True)):
                    # an intermediate inf - inf may give nan where the other path gives inf, but never a number
                    wrong = (np.isfinite(f) != np.isfinite(p)) | (np.isinf(f) & np.isinf(p) & (f != p))
                    if wrong.any():
                        at = _first(wrong)
                        spot = ", ".join(map(str, np.unravel_index(values.size // 2, values.shape)))
                        change = (f"args[{k}][{spot}] = float('{special}'); ")
                        where = _where(op, i, attrs, "output", j, np.float32,
                                       f"{special} in argument {k} at [{spot}]", change)
                        _differ(where, at, f"the kernel gives {f[at]}", f"the definition {p[at]}",
                                "they must be finite, or infinite, in the same places")
    return _counted(op, "inf, -inf and nan in each input, kernels against the definition")


def enlarged(op: Any, args: Sequence[Any], attrs: Attributes, elements: int) -> list[Any] | None:
    """The arguments of a sample with so long a first dimension that the first tensor has that many elements: the same
    values, again and again. Tensors with the last dimensions of the first one (weights) stay as they are.

    None if it has as many, if there are tensors of other shapes or whole numbers (what they mean, only the op knows),
    and if the op refuses it.
    """
    tensors = [a for a in args if isinstance(a, Tensor)]
    shape = tensors[0].shape if tensors else ()
    if not shape or not 0 < np.prod(shape) < elements or not all([is_float(t.dtype) for t in tensors]):
        return None
    if any([t.shape != shape and t.shape != shape[len(shape) - t.ndim:] for t in tensors]):
        return None
    longer = (-(-elements // int(np.prod(shape[1:]))), *shape[1:])
    more = [tensor(np.resize(_values(a), longer), device=a.device) if isinstance(a, Tensor) and a.shape == shape else a
            for a in args]
    try:
        called(op)(*more, **attrs)
    except RuntimeError:
        return None
    return more


_SHARED = 1 << 17   # elements that threads share


def check_threads(op: Any) -> str:
    """1 and 2 threads give the same bits, for the samples, and for the first one with a long first dimension."""
    before, longer = get_num_threads(), ""
    samples: list[tuple[Sequence[Any], Attributes]] = [*samples_of(op, np.float32)]
    if _has_kernels(op):
        for args, attrs in samples:
            more = enlarged(op, args, attrs, _SHARED)
            if more is not None:
                samples.append((more, attrs))
                longer = f", one of them with {_SHARED} elements"
                break
    try:
        for i, (args, attrs) in enumerate(samples):
            results = []
            for n in (1, 2):
                set_num_threads(n)
                outputs, gradients = evaluate(op, args, attrs)
                results.append([("output", k, r) for k, r in enumerate(outputs)]
                               + [("gradient", k, r) for k, r in enumerate(gradients) if r is not None])
            for (kind, k, one), (_, _, two) in zip(*results, strict=True):
                if one.tobytes() != two.tobytes():
                    at = _first(np.asarray([a.tobytes() != b.tobytes() for a, b in zip(one.flat, two.flat, strict=True)]
                                           ).reshape(one.shape))
                    change = "import minigrad; minigrad.set_num_threads(2); "
                    _differ(_where(op, i, attrs, kind, k, np.float32, "", change), at, f"1 thread gives {one[at]}",
                            f"2 threads give {two[at]}", "the bits must be the same")
    finally:
        set_num_threads(before)
    return _counted(op, f"same bits with 1 and 2 threads{longer}")


def check_memory(op: Any) -> str:
    """Kernels write to their results only: each runs on copies of its operands in a memory of their own, with guards of
    some KB before and behind them. What it only reads keeps its bytes, too."""
    if not _has_kernels(op):
        return "not checked: there are no kernels for the CPU"
    sample = -1

    def visit(kernel: Kernel, arguments: tuple[Any, ...]) -> None:
        known = _operands(kernel, arguments, sys._getframe(1))
        copies = {array.ptr: _Guarded(array, written) for array, written in known}
        kernel.function(*[copies[a].ptr if kind in "op" and a in copies else a
                          for kind, a in zip(kernel.signature, arguments, strict=True)])
        wrong = [copy.wrong() for copy in copies.values()]
        if any(wrong):
            again = _again(op, "from minigrad.testing import check_memory; check_memory(OP)")
            raise AssertionError(f"{op.name}, sample {sample} {attrs}: {kernel.name} "
                                 f"{' and '.join(filter(None, wrong))}{again}")
        for copy in copies.values():
            copy.back()
    for args, attrs, cut in _with_odd(op):
        sample += not cut
        with launch_hook(visit):
            evaluate(op, args, attrs)
    return _counted(op, "kernels write nothing but their results")


_GUARD = 0xA5       # the bytes around operands, while a kernel runs
_WIDTH = 1 << 14    # how many of them there are on each side


def _operands(kernel: Kernel, arguments: tuple[Any, ...], frame: Any) -> list[tuple[Buffer, bool]]:
    """The arrays of a launch that have their own memory on the CPU, as far as they are known; is each written to?"""
    if kernel.name == "host":
        return []
    known, kinds = arrays(asker(frame)), dict[int, bool]()
    for kind, a in zip(kernel.signature, arguments, strict=True):
        if kind in "op" and type(known.get(a)) is Buffer and known[a].layout.contiguous:
            kinds[a] = kinds.get(a, False) or kind == "o"
    return [(known[a], written) for a, written in kinds.items()]    # type: ignore[misc]


class _Guarded:
    """A copy of an array, with guards on both sides, on which a kernel runs."""

    def __init__(self, array: Buffer, written: bool) -> None:
        self.array, self.written, size = array, written, array.layout.nbytes
        self.before = array.np.reshape(-1).view(np.uint8).copy()
        memory = np.full(size + 2 * _WIDTH + 64, _GUARD, np.uint8)
        start = _WIDTH + -(memory.ctypes.data + _WIDTH) % 64
        self.ptr = memory.ctypes.data + start
        self.inside, self.around = memory[start:start + size], (memory[:start], memory[start + size:])
        self.inside[:] = self.before

    def wrong(self) -> str:
        """What the kernel did that it must not do, or ""."""
        if any([(part != _GUARD).any() for part in self.around]):
            if self.written:
                return f"writes outside of its results {self.array.layout}: write the tail of an array by store_n"
            return f"writes outside of its results, beside its input {self.array.layout}"
        if not self.written and (self.inside != self.before).any():
            return f"writes to its input {self.array.layout}; it may write to its results only"
        return ""

    def back(self) -> None:
        """Puts what the kernel wrote in its place."""
        if self.written:
            self.array.np.reshape(-1).view(np.uint8)[:] = self.inside


def check_errors(op: Any) -> str:
    """Each error sample raises its error, with a message that matches its pattern, and is shown alone: not below a
    KeyError of a look-up that found nothing. The second time, plans and constants are known."""
    if op.error_function is None:
        return f"not checked: there are no @{op.name}.errors"
    for i, (sample, kind, pattern) in enumerate([s for s in op.error_function(Make(np.float32)) for _ in range(2)]):
        args, attrs = _split(sample)
        try:
            called(op)(*args, **attrs)
        except kind as error:
            if not re.search(pattern, str(error)):
                raise AssertionError(f"{op.name}, error sample {i // 2}: the message {str(error)!r} lacks "
                                     f"{pattern!r}") from None
            if error.__context__ is not None and not error.__suppress_context__:
                raise AssertionError(f"{op.name}, error sample {i // 2}: shown below a "
                                     f"{type(error.__context__).__name__}") from None
        else:
            raise AssertionError(f"{op.name}, error sample {i // 2}: nothing was raised, expected {kind.__name__}")
    count = len(list(op.error_function(Make(np.float32))))
    return f"{count} error sample{'' if count == 1 else 's'}: refused, with their messages"


CHECKS: dict[str, Callable[[Any], str]] = {
    "memory": check_memory, "oracle": check_oracle, "gradients": check_gradients, "fused": check_fused,
    "half": check_half, "layouts": check_layouts, "specials": check_specials, "threads": check_threads,
    "errors": check_errors,
}


@dataclass(frozen=True, repr=False)
class Checked:
    """What `check_op` checked: a line for each check, by its name. `print` shows a table."""

    op: str
    checks: dict[str, str]

    def __str__(self) -> str:
        width = max(map(len, self.checks))
        return "\n".join([f"{self.op}: all checks hold",
                          *[f"  {name:{width}}  {what}" for name, what in self.checks.items()]])

    __repr__ = __str__


def check_op(op: Op | Primitive | str) -> Checked:
    """Runs all checks of an op, or of the op of that name, and says what was checked. AssertionError for the first one
    that fails: the sample, the element, both values, and a line of Python that shows it again.

    >>> check_op(minigrad.mish)
    mish: all checks hold
      oracle     8 samples: against the reference, kernels and definition, float64
      ...
    """
    found = op_of(op)
    return Checked(found.name, {name: check(found) for name, check in CHECKS.items()})
