"""Adamax (Kingma and Ba 2015)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from ..ops.math import maximum
from .optimizer import (
    Flags,
    Numbers,
    Optimizer,
    Params,
    State,
    at_least,
    check_betas,
    check_rate,
    only_default,
    state_like,
)


class Adamax(Optimizer):
    """Adamax, Adam with the largest gradient in place of the root of their squares (Kingma and Ba 2015, algorithm 2).
    In step t, for each parameter p with gradient g:

        g = g + weight_decay p
        m = beta1 m + (1 - beta1) g
        u = max(beta2 u, |g| + eps)
        p = p - lr / (1 - beta1^t) m / u

    params        parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr            learning rate, a number or a tensor with one element
    betas         (beta1, beta2), both in [0, 1)
    eps           added to the size of the gradient
    weight_decay  L2 penalty, added to the gradient
    maximize      uses -g, so that the objective grows
    foreach, capturable   accepted for PyTorch's signature, without effect
    differentiable        records the step: see `Optimizer`

    State of a parameter: `step` (float64 scalar); `exp_avg` (m) and `exp_inf` (u) have the shape and dtype of p.
    ValueError if a number is negative or a beta is outside [0, 1).
    """

    _elementwise = True

    def __init__(self, params: Params, lr: float | Tensor = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        check_rate(lr)
        at_least("epsilon value", eps)
        check_betas(betas)
        at_least("weight_decay value", weight_decay)
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], *group["betas"]),
                (1 if group["maximize"] else 0, 1 if group["weight_decay"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        return state_like(p, state, "exp_avg"), state_like(p, state, "exp_inf")

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        maximize, decays = flags
        lr, weight_decay, eps, beta1, beta2 = hyper
        mean: Any
        largest: Any
        mean, largest = state
        g = -g if maximize else g
        if decays:
            g = g + p * weight_decay
        mean.add_((g - mean) * (1 - beta1))
        largest.copy_(maximum(largest * beta2, g.abs() + eps))
        p.sub_(mean * (lr / (1 - beta1**step)) / largest)
