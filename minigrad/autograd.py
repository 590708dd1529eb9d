"""`minigrad.autograd`: gradients as functions, and checks of them."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import engine
from .engine import enable_grad, grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from .shape import is_float
from .tensor import Tensor

__all__ = ["backward", "enable_grad", "grad", "gradcheck", "gradgradcheck", "inference_mode", "is_grad_enabled", "no_grad",
           "set_grad_enabled", "GradcheckError"]


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
             inputs: Any = None) -> None:
    """Adds the gradients of several tensors to `.grad` of the leaves behind them."""
    if create_graph:
        raise RuntimeError("[autograd.backward] backward() never builds a graph; got create_graph=True; "
                           "use autograd.grad(..., create_graph=True)")
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [None] * len(roots) if grad_tensors is None else [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors)
    engine.backward(roots, given, bool(retain_graph), [inputs] if isinstance(inputs, Tensor) else inputs)


class GradcheckError(RuntimeError):
    """Analytical and numerical derivatives differ."""


def gradcheck(func: Callable, inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True,
              nondet_tol: float = 0.0) -> bool:
    """Compares the derivative of `func` with central differences, entry by entry of the Jacobian.

    `inputs`: a tensor or several; those that require gradients are checked, and should be float64. The derivative is right
    where |analytical - numerical| <= atol + rtol |numerical|. Also called twice, `func` must agree to `nondet_tol`.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
    try:
        if not checked:
            raise ValueError("[gradcheck] at least one input must require a gradient; got none; pass requires_grad=True")
        _compare(func, args, checked, eps, atol, rtol, nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _compare(func: Callable, args: tuple, checked: list[int], eps: float, atol: float, rtol: float, nondet_tol: float) -> None:
    outputs = _float_outputs(func(*args))
    again = _float_outputs(func(*args))
    for k, (first, second) in enumerate(zip(outputs, again, strict=True)):
        if first.numel() and float(np.abs(first.numpy(force=True) - second.numpy(force=True)).max()) > nondet_tol:
            raise GradcheckError(f"[gradcheck] output {k} is not the same when computed twice")
    for k, out in enumerate(outputs):
        analytical = _jacobian_rows(out, [args[i] for i in checked])
        for column, i in enumerate(checked):
            numerical = _numerical(func, args, i, k, eps)
            got = analytical[column]
            wrong = np.abs(got - numerical) > atol + rtol * np.abs(numerical)
            if wrong.any() or not np.isfinite(got).all():
                row, col = np.argwhere(wrong | ~np.isfinite(got))[0]
                raise GradcheckError(f"[gradcheck] output {k}, element {row}, with respect to input {i}, element {col}: "
                                     f"analytical {got[row, col]:.6g}, numerical {numerical[row, col]:.6g}")


def _float_outputs(result: Any) -> list[Tensor]:
    return [t for t in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(t, Tensor) and is_float(t.dtype)]


def _jacobian_rows(out: Tensor, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """d out / d inputs, one matrix (elements of out, elements of the input) per input."""
    rows: list[list[np.ndarray]] = [[] for _ in inputs]
    for element in range(out.numel()):
        one = np.zeros(tuple(out.shape), out.dtype)
        one.reshape(-1)[element] = 1
        seed = engine.as_tensor(one).to(out.device)
        found = grad([out], inputs, [seed], retain_graph=True, allow_unused=True) if out.requires_grad else [None] * len(inputs)
        for column, (g, t) in enumerate(zip(found, inputs, strict=True)):
            rows[column].append(np.zeros(t.numel()) if g is None else g.numpy(force=True).reshape(-1))
    return [np.array(r, np.float64).reshape(out.numel(), t.numel()) for r, t in zip(rows, inputs, strict=True)]


def _numerical(func: Callable, args: tuple, index: int, output: int, eps: float) -> np.ndarray:
    base = args[index].numpy(force=True).copy()
    columns = []
    for element in range(base.size):
        sides = []
        for shift in (eps, -eps):
            moved = base.copy()
            moved.reshape(-1)[element] += shift
            own = engine.as_tensor(moved).to(args[index].device)
            with no_grad():
                result = _float_outputs(func(*args[:index], own.requires_grad_(), *args[index + 1:]))[output]
            sides.append(result.numpy(force=True).astype(np.float64).reshape(-1))
        columns.append((sides[0] - sides[1]) / (2 * eps))
    return np.array(columns).T if columns else np.zeros((0, 0))


def gradgradcheck(func: Callable, inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
                  raise_exception: bool = True, nondet_tol: float = 0.0) -> bool:
    """`gradcheck` of the first derivative of `func`, with respect to the inputs and to the gradient of the outputs."""
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outputs = _float_outputs(func(*args))
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        gs = [engine.as_tensor(rng.standard_normal(tuple(o.shape)).astype(o.dtype)).to(o.device).requires_grad_() for o in outputs]
    else:
        gs = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    wanted = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]

    def first_derivative(*values: Any) -> tuple[Tensor, ...]:
        own, seeds = values[:len(args)], values[len(args):]
        with enable_grad():
            results = [(o, s) for o, s in zip(_float_outputs(func(*own)), seeds, strict=True) if o.requires_grad]
            found = grad([o for o, _ in results], [own[i] for i in wanted], [s for _, s in results], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)
    return gradcheck(first_derivative, (*args, *gs), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception, nondet_tol=nondet_tol)
