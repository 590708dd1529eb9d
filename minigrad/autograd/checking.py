"""`gradcheck` and `gradgradcheck` compare derivatives with finite differences."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..core.engine import grad
from ..core.modes import enable_grad
from ..core.shape import is_float
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops.creation import as_tensor, zeros_like

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
    inputs                a tensor or several; those that require gradients are checked, and should be float64. Their
                          values are moved in place, one after the other, and put back: `func` may also read them from
                          elsewhere, as a layer reads its parameters
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
                warn(f"[gradcheck] input {i} is {args[i].dtype}: differences need float64, "
                     "and the check may fail without it")
        check = _Check(func, args, checked, eps, atol, rtol, nondet_tol)
        check.fast() if fast_mode else check.entries()
        check.gradients(check_grad_dtypes, check_undefined_grad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _float_outputs(result: Any) -> list[Tensor]:
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [t for t in results if isinstance(t, Tensor) and is_float(t.dtype)]


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """How far two results of one computation are apart; nan counts as equal to nan."""
    return float(np.nan_to_num(np.abs(a - b)).max()) if a.size else 0.0


class _Check:
    """One check: a function, its arguments, and which of them (`checked`) are differentiated."""

    def __init__(self, func: Func, args: tuple[Any, ...], checked: list[int], eps: float, atol: float, rtol: float,
                 nondet_tol: float) -> None:
        self.func, self.args, self.checked = func, args, checked
        self.eps, self.atol, self.rtol, self.nondet_tol = eps, atol, rtol, nondet_tol
        self.inputs = [args[i] for i in checked]
        for i, t in zip(checked, self.inputs, strict=True):
            if any(n > 1 and step == 0 for n, step in zip(t.shape, t.stride(), strict=True)):
                raise RuntimeError(f"[gradcheck] input {i} must not have elements that share memory; "
                                   f"got strides {t.stride()}; call contiguous() before requires_grad_()")
        self.outputs = _float_outputs(func(*args))
        self.forms = [(o.shape, o.dtype) for o in self.outputs]
        for k, (first, second) in enumerate(zip(self.values(), self.values(self.outputs), strict=True)):
            if _apart(first, second) > nondet_tol:
                raise GradcheckError(f"[gradcheck] output {k} is not the same when computed twice")

    def values(self, outputs: list[Tensor] | None = None) -> list[np.ndarray]:
        """The outputs as float64 (n,), computed anew if they are not given."""
        if outputs is None:
            outputs = _float_outputs(self.func(*self.args))
            forms = [(o.shape, o.dtype) for o in outputs]
            if forms != self.forms:
                raise GradcheckError("[gradcheck] the function must return outputs with the same shape and dtype when "
                                     f"inputs are perturbed; got {self.forms}, then {forms}")
        return [o.numpy(force=True).astype(np.float64).reshape(-1) for o in outputs]

    def difference(self, memory: Any, place: Any, step: Any) -> list[np.ndarray]:
        """(f(x + step) - f(x - step)) / (2 eps) for each output, where x is `memory[place]`."""
        before = memory[place].copy()
        ends = []
        try:
            for moved in (before + step, before - step):
                memory[place] = moved
                ends.append(self.values())
        finally:
            memory[place] = before
        return [(a - b) / (2 * self.eps) for a, b in zip(*ends, strict=True)]

    def numerical(self, t: Tensor) -> list[np.ndarray]:
        """d output / d t by central differences for each output: (elements of the output, elements of t)."""
        memory = t.array.np
        columns = [self.difference(memory, place, self.eps) for place in np.ndindex(*t.shape)]
        return [np.array([c[k] for c in columns]).reshape(t.numel(), o.numel()).T for k, o in enumerate(self.outputs)]

    def backward(self, out: Tensor, seed: np.ndarray) -> list[np.ndarray]:
        """`seed` . d out / d input for each input, as float64 (n,)."""
        found: Sequence[Tensor | None] = [None] * len(self.inputs)
        if out.requires_grad:
            g = as_tensor(seed.reshape(tuple(out.shape)).astype(out.dtype)).to(out.device)
            found = grad([out], self.inputs, [g], retain_graph=True, allow_unused=True)
        return [np.zeros(t.numel()) if g is None else g.numpy(force=True).astype(np.float64).reshape(-1)
                for g, t in zip(found, self.inputs, strict=True)]

    def repeats(self, k: int, seed: np.ndarray) -> None:
        """GradcheckError if the derivative of output number `k` is not the same when computed twice."""
        for i, a, b in zip(self.checked, *[self.backward(self.outputs[k], seed) for _ in range(2)], strict=True):
            if _apart(a, b) > self.nondet_tol:
                raise GradcheckError(f"[gradcheck] Backward is not reentrant: the gradient of output {k} with respect "
                                     f"to input {i} is not the same when computed twice")

    def entries(self) -> None:
        """Compares all entries of the Jacobians."""
        numerical = [self.numerical(t) for t in self.inputs]
        rng = np.random.default_rng(0)
        for k, out in enumerate(self.outputs):
            self.repeats(k, rng.standard_normal(out.numel()))
            rows = [self.backward(out, row) for row in np.eye(out.numel())]
            for column, i in enumerate(self.checked):
                want = numerical[column][k]
                got = np.array([r[column] for r in rows]).reshape(want.shape)
                wrong = ~(np.abs(got - want) <= self.atol + self.rtol * np.abs(want))
                if wrong.any():
                    row, col = np.argwhere(wrong)[0]
                    raise GradcheckError(f"[gradcheck] Jacobian mismatch for output {k} with respect to input {i}: at "
                                         f"element {row} of the output and {col} of the input, "
                                         f"analytical {got[row, col]:.6g}, numerical {want[row, col]:.6g}")

    def fast(self) -> None:
        """Compares u J v for one random u and v."""
        rng = np.random.default_rng(0)
        us = [rng.standard_normal(o.numel()) for o in self.outputs]
        vs = [rng.standard_normal(tuple(t.shape)) for t in self.inputs]
        moved = []
        for t, v in zip(self.inputs, vs, strict=True):
            memory = t.array.np
            step = as_tensor((self.eps * v).astype(t.dtype)).to(t.device).array.np
            moved.append(self.difference(memory, ..., step))
        for k, (out, u) in enumerate(zip(self.outputs, us, strict=True)):
            self.repeats(k, u)
            for column, (i, g) in enumerate(zip(self.checked, self.backward(out, u), strict=True)):
                v = vs[column]
                got, want = float((g * v.reshape(-1)).sum()), float((moved[column][k] * u).sum())
                scale = max(1.0, float(np.abs(u).sum()) * float(np.abs(v).sum()) / max(u.size, v.size, 1))
                if not abs(got - want) <= self.atol * scale + self.rtol * abs(want):
                    raise GradcheckError(f"[gradcheck] Jacobian mismatch for output {k} with respect to input {i}, "
                                         f"along random directions: analytical {got:.6g}, numerical {want:.6g}; "
                                         "fast_mode=False finds the entry")

    def gradients(self, dtypes: bool, undefined: bool) -> None:
        """Runs backward from all outputs with gradients of 0, which must give 0; with `undefined`, from each alone, as
        if the others got no gradient; with `dtypes`, checks the dtypes."""
        outputs = [o for o in _float_outputs(self.func(*self.args)) if o.requires_grad]
        for chosen in [outputs] + ([[o] for o in outputs] if undefined and len(outputs) > 1 else []):
            if not chosen:
                continue
            seeds = [zeros_like(o.detach()) for o in chosen]
            try:
                found = grad(chosen, self.inputs, seeds, retain_graph=True, allow_unused=True)
            except Exception as error:
                if chosen is outputs:
                    raise
                raise GradcheckError("[gradcheck] Expected backward function to handle undefined output grads; "
                                     f"it raised {error!r}") from error
            for i, t, g in zip(self.checked, self.inputs, found, strict=True):
                if g is not None and g.numpy(force=True).any():
                    raise GradcheckError(f"[gradcheck] backward not multiplied by grad_output: the gradient of input "
                                         f"{i} must be 0 where those of the outputs are")
                if dtypes and g is not None and g.dtype != t.dtype:
                    raise GradcheckError(f"[gradcheck] the gradient of input {i} must be {t.dtype}; got {g.dtype}")


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
