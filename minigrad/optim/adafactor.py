"""Adafactor (Shazeer and Stern 2018)."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.half import finfo
from ..core.tensor import Tensor
from ..ops.formula import clamp_min
from ..ops.math import maximum, minimum
from .optimizer import Flags, Numbers, Optimizer, Params, State, begun, one_element, only_default, state_like


def _check(wanted: Any, text: str) -> None:
    if not wanted:
        raise ValueError(text)


class Adafactor(Optimizer):
    """Adafactor, which keeps of the squares of a matrix' gradients the means of rows and columns only (Shazeer and
    Stern 2018, algorithm 4). In step t, for each parameter p with gradient g, and b = t^beta2_decay:

        a = max(eps[1], rms(p)) min(lr, 1 / sqrt(t)),     rms(x) = |x| / sqrt(number of elements)
        p = p - lr weight_decay p
        v: an average of g^2, v = (1 - b) v + b g^2 for a vector; for more dimensions R C / mean(R), with the same
           averages R and C of the means of g^2 along the last and the last but one dimension
        u = g / sqrt(max(v, eps[0]^2))
        p = p - a u / max(1, rms(u) / d)

    params        parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr            the largest rate, a number or a tensor with one element
    beta2_decay   how fast the averages forget, at most 0
    eps           (under the root, least rms of p); None as the first: the machine epsilon of p
    d             the rms from which an update is scaled down, at least 1
    weight_decay  the share by which p shrinks
    maximize      uses -g, so that the objective grows
    foreach       accepted for PyTorch's signature, without effect

    State of a parameter: `step` (float64 scalar); `variance` (v, shape of p) of a vector, else `row_var` and `col_var`
    (R and C, with size 1 along the last and the last but one dimension). ValueError for numbers outside these bounds.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *,
                 foreach: bool | None = None, maximize: bool = False) -> None:
        one_element(lr)
        _check(0.0 <= lr, f"Learning rate should be >= 0 but is: {lr}")
        _check(beta2_decay <= 0.0, f"beta2_decay should be <= 0 but is: {beta2_decay}")
        _check(eps[0] is None or 0.0 <= eps[0], f"epsilon1 should be >= 0 but is: {eps[0]}")
        _check(0.0 <= eps[1], f"epsilon2 should be >= 0 but is: {eps[1]}")
        _check(1.0 <= d, f"Clipping threshold d should be >= 1 but is: {d}")
        _check(0.0 <= weight_decay, f"weight_decay should be >= 0 but is: {weight_decay}")
        only_default(foreach=foreach)
        super().__init__(params, {"lr": lr, "beta2_decay": beta2_decay, "eps": tuple(eps), "d": d,
                                  "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        least, rms = group["eps"]
        return ((float(group["lr"]), group["weight_decay"], 0.0 if least is None else least, rms, group["d"],
                 group["beta2_decay"]), (1 if group["maximize"] else 0, 1 if least is None else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        if p.ndim < 2:
            return (state_like(p, state, "variance"),)
        for name, axis in (("row_var", -1), ("col_var", -2)):
            if state.get(name) is None:
                shape = list(p.shape)
                shape[axis] = 1
                state[name] = begun(np.zeros(shape, p.dtype), p.device)
        return ()

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        maximize, machine = flags
        lr, weight_decay, least, small, d, decay = hyper
        floor = float(finfo(p.dtype).eps) if machine else least
        g = -g if maximize else g
        new, root = step**decay, math.sqrt(p.numel())
        rate = maximum(small, p.norm() / root) * minimum(lr, step**-0.5)
        p.mul_(1 - lr * weight_decay)
        if state:
            variance: Any = state[0]
            variance.add_((g * g - variance) * new)
        else:
            rows, columns = self._state_of(p)["row_var"], self._state_of(p)["col_var"]
            for mean, axis in ((rows, -1), (columns, -2)):
                mean.add_(((g * g).mean(axis, keepdim=True) - mean) * new)
            variance = rows @ columns / clamp_min(rows.mean(-2, keepdim=True), floor)
        update = g / clamp_min(variance, floor * floor).sqrt()
        p.sub_(update * (rate / clamp_min(update.norm() / (root * d), 1.0)))
