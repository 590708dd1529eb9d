"""`gradcheck` and `gradgradcheck` compare derivatives with finite differences."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..core.engine import grad
from ..core.modes import enable_grad, no_grad
from ..core.shape import is_float
from ..core.tensor import Tensor
from ..ops.creation import as_tensor, ones_like

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


Func: TypeAlias = Callable[..., Any]                # of tensors, to a tensor or several
Inputs: TypeAlias = Tensor | Sequence[Any]


class GradcheckError(RuntimeError):
    """The derivative by autograd differs from the one by finite differences, or a computation is not repeatable."""


def _unsupported(name: str, **options: Any) -> None:
    for option, value in options.items():
        if value:
            raise NotImplementedError(f"[{name}] {option}=True is not supported: there is neither forward mode nor "
                                      "batching of gradients, and tensors are dense")


def gradcheck(func: Func, inputs: Inputs, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
              raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True,
              check_grad_dtypes: bool = False, check_batched_grad: bool = False,
              check_batched_forward_grad: bool = False, check_forward_ad: bool = False, check_backward_ad: bool = True,
              fast_mode: bool = False, masked: bool | None = None) -> bool:
    """Compares the Jacobian of `func` with central differences, (f(x + eps) - f(x - eps)) / (2 eps), entry by entry.

    func                  takes the inputs, returns a tensor or several
    inputs                a tensor or several; those that require gradients are checked, and should be float64
    eps                   the step of the differences
    atol, rtol            an entry is right if |analytical - numerical| <= atol + rtol |numerical|
    raise_exception       raises GradcheckError if an entry is wrong; with False, returns False instead
    nondet_tol            how far two computations of the outputs, or of the derivative, may differ
    check_undefined_grad  backward must also work if only one of several outputs gets a gradient
    check_grad_dtypes     gradients must have the dtype of their inputs
    fast_mode             compares u J v for one random u and v instead of all entries
    check_backward_ad     must stay True, else ValueError; the other options must stay False: NotImplementedError

    Returns True if all entries are right. ValueError if no input requires a gradient.

        x = minigrad.randn(3, dtype=minigrad.float64, requires_grad=True)
        gradcheck(lambda x: (x * x).sum(), x)       # True
    """
    _unsupported("gradcheck", check_batched_grad=check_batched_grad,
                 check_batched_forward_grad=check_batched_forward_grad, check_forward_ad=check_forward_ad,
                 masked=masked)
    if not check_backward_ad:
        raise ValueError("[gradcheck] check_backward_ad=False leaves nothing to check: there is no forward mode")
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
    try:
        if not checked:
            raise ValueError("[gradcheck] at least one input must require a gradient; got none; "
                             "pass requires_grad=True")
        for i in checked:
            if args[i].dtype != np.float64:
                warnings.warn(f"[gradcheck] input {i} is {args[i].dtype}: differences need float64, "
                              "and the check may fail without it", stacklevel=2)
        compare = _compare_fast if fast_mode else _compare
        compare(func, args, checked, eps, atol, rtol, nondet_tol)
        if check_grad_dtypes or check_undefined_grad:
            _check_gradients(func, args, checked, check_grad_dtypes, check_undefined_grad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _twice(func: Func, args: tuple[Any, ...], nondet_tol: float) -> list[Tensor]:
    """The outputs of `func`; GradcheckError if a second run gives others."""
    outputs = _float_outputs(func(*args))
    again = _float_outputs(func(*args))
    for k, (first, second) in enumerate(zip(outputs, again, strict=True)):
        if first.numel() and float(np.abs(first.numpy(force=True) - second.numpy(force=True)).max()) > nondet_tol:
            raise GradcheckError(f"[gradcheck] output {k} is not the same when computed twice")
    return outputs


def _compare(func: Func, args: tuple[Any, ...], checked: list[int], eps: float, atol: float, rtol: float,
             nondet_tol: float) -> None:
    for k, out in enumerate(_twice(func, args, nondet_tol)):
        wanted = [args[i] for i in checked]
        analytical, again = _jacobian_rows(out, wanted), _jacobian_rows(out, wanted)
        for column, i in enumerate(checked):
            got = analytical[column]
            if got.size and float(np.nan_to_num(np.abs(got - again[column])).max()) > nondet_tol:
                raise GradcheckError(f"[gradcheck] the gradient of output {k} with respect to input {i} is not the "
                                     "same when computed twice")
            numerical = _numerical(func, args, i, k, eps)
            wrong = ~(np.abs(got - numerical) <= atol + rtol * np.abs(numerical))
            if wrong.any():
                row, col = np.argwhere(wrong)[0]
                raise GradcheckError(f"[gradcheck] output {k}, element {row}, with respect to input {i}, element "
                                     f"{col}: analytical {got[row, col]:.6g}, numerical {numerical[row, col]:.6g}")


def _compare_fast(func: Func, args: tuple[Any, ...], checked: list[int], eps: float, atol: float, rtol: float,
                  nondet_tol: float) -> None:
    rng = np.random.default_rng(0)
    for k, out in enumerate(_twice(func, args, nondet_tol)):
        u = rng.standard_normal(tuple(out.shape))
        for i in checked:
            v = rng.standard_normal(tuple(args[i].shape))
            g: Tensor | None = None
            if out.requires_grad:
                seed = as_tensor(u.astype(out.dtype)).to(out.device)
                g = grad([out], [args[i]], [seed], retain_graph=True, allow_unused=True)[0]
            analytical = 0.0 if g is None else float((g.numpy(force=True) * v).sum())
            ends = [_moved(func, args, i, k, args[i].numpy(force=True) + sign * eps * v) for sign in (1, -1)]
            numerical = float(((ends[0] - ends[1]) / (2 * eps) * u.reshape(-1)).sum())
            scale = max(1.0, float(np.abs(u).sum()) * float(np.abs(v).sum()) / max(u.size, v.size, 1))
            if not abs(analytical - numerical) <= atol * scale + rtol * abs(numerical):
                raise GradcheckError(f"[gradcheck] output {k} with respect to input {i}, along random directions: "
                                     f"analytical {analytical:.6g}, numerical {numerical:.6g}; "
                                     "fast_mode=False finds the entry")


def _check_gradients(func: Func, args: tuple[Any, ...], checked: list[int], dtypes: bool, undefined: bool) -> None:
    """Runs backward from all outputs, and with `undefined` from each alone; with `dtypes`, checks the dtypes."""
    outputs = [o for o in _float_outputs(func(*args)) if o.requires_grad]
    subsets = [outputs] + ([[o] for o in outputs] if undefined and len(outputs) > 1 else [])
    for chosen in subsets:
        if not chosen:
            continue
        seeds = [ones_like(o.detach()) for o in chosen]
        try:
            found = grad(chosen, [args[i] for i in checked], seeds, retain_graph=True, allow_unused=True)
        except Exception as error:
            if chosen is outputs:
                raise
            raise GradcheckError("[gradcheck] backward must work if an output gets no gradient; "
                                 f"it raised {error!r}") from error
        for i, g in zip(checked, found, strict=True):
            if dtypes and g is not None and g.dtype != args[i].dtype:
                raise GradcheckError(f"[gradcheck] the gradient of input {i} must be {args[i].dtype}; got {g.dtype}")


def _float_outputs(result: Any) -> list[Tensor]:
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [t for t in results if isinstance(t, Tensor) and is_float(t.dtype)]


def _jacobian_rows(out: Tensor, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """d out / d input for each input: a matrix (elements of out, elements of the input)."""
    rows: list[list[np.ndarray]] = [[] for _ in inputs]
    for element in range(out.numel()):
        one = np.zeros(tuple(out.shape), out.dtype)
        one.reshape(-1)[element] = 1
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if out.requires_grad:
            found = grad([out], inputs, [as_tensor(one).to(out.device)], retain_graph=True, allow_unused=True)
        for column, (g, t) in enumerate(zip(found, inputs, strict=True)):
            rows[column].append(np.zeros(t.numel()) if g is None else g.numpy(force=True).reshape(-1))
    return [np.array(r, np.float64).reshape(out.numel(), t.numel()) for r, t in zip(rows, inputs, strict=True)]


def _moved(func: Func, args: tuple[Any, ...], index: int, output: int, values: np.ndarray) -> np.ndarray:
    """Output number `output` as float64 (n,), where input number `index` has these values."""
    own = as_tensor(np.asarray(values, args[index].dtype)).to(args[index].device)
    with no_grad():
        result = _float_outputs(func(*args[:index], own.requires_grad_(), *args[index + 1:]))[output]
    return result.numpy(force=True).astype(np.float64).reshape(-1)


def _numerical(func: Func, args: tuple[Any, ...], index: int, output: int, eps: float) -> np.ndarray:
    """The Jacobian by central differences: (elements of the output, elements of the input)."""
    base = args[index].numpy(force=True)
    columns = []
    for element in range(base.size):
        sides = []
        for shift in (eps, -eps):
            moved = base.copy()
            moved.reshape(-1)[element] += shift
            sides.append(_moved(func, args, index, output, moved))
        columns.append((sides[0] - sides[1]) / (2 * eps))
    return np.array(columns).T if columns else np.zeros((0, 0))


def gradgradcheck(func: Func, inputs: Inputs, grad_outputs: Tensor | Sequence[Tensor] | None = None, *,
                  eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3, gen_non_contig_grad_outputs: bool = False,
                  raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True,
                  check_grad_dtypes: bool = False, check_batched_grad: bool = False, check_fwd_over_rev: bool = False,
                  check_rev_over_rev: bool = True, fast_mode: bool = False, masked: bool = False) -> bool:
    """`gradcheck` of the first derivative of `func`, with respect to its inputs and to the gradients of its outputs.

    grad_outputs  the gradients of the outputs (default: random ones)
    gen_non_contig_grad_outputs   makes the random ones non-contiguous

    The other arguments, the result and the errors are those of `gradcheck`.
    """
    _unsupported("gradgradcheck", check_fwd_over_rev=check_fwd_over_rev)
    if not check_rev_over_rev:
        raise ValueError("[gradgradcheck] check_rev_over_rev=False leaves nothing to check: there is no forward mode")
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outputs = _float_outputs(func(*args))
    if grad_outputs is None:
        rng = np.random.default_rng(0)

        def seed(o: Tensor) -> Tensor:
            shape = (*o.shape, 2) if gen_non_contig_grad_outputs else tuple(o.shape)
            t = as_tensor(rng.standard_normal(shape).astype(o.dtype)).to(o.device)
            t = t[..., 0] if gen_non_contig_grad_outputs else t         # type: ignore[index]
            return t.detach().requires_grad_()
        gs = [seed(o) for o in outputs]
    else:
        gs = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    wanted = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]

    def first_derivative(*values: Any) -> tuple[Tensor, ...]:
        own, seeds = values[:len(args)], values[len(args):]
        with enable_grad():
            results = [(o, s) for o, s in zip(_float_outputs(func(*own)), seeds, strict=True) if o.requires_grad]
            found = grad([o for o, _ in results], [own[i] for i in wanted], [s for _, s in results],
                         create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)
    return gradcheck(first_derivative, (*args, *gs), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
                     nondet_tol=nondet_tol, check_undefined_grad=check_undefined_grad,
                     check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad, fast_mode=fast_mode,
                     masked=masked)
