"""RAdam (Liu et al. 2020)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from ..ops.math import where
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


class RAdam(Optimizer):
    """RAdam, Adam whose first steps do without the second moment (Liu et al. 2020, algorithm 2). In step t, for each
    parameter p with gradient g, and with n = 2 / (1 - beta2) - 1:

        g = g + weight_decay p          (with `decoupled_weight_decay` instead: p = p - lr weight_decay p)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        n(t) = n - 2 t beta2^t / (1 - beta2^t)
        r = sqrt((n(t) - 4) (n(t) - 2) n / ((n - 4) (n - 2) n(t)))
        p = p - lr m / (1 - beta1^t) r sqrt(1 - beta2^t) / (sqrt(v) + eps)      where n(t) > 5
        p = p - lr m / (1 - beta1^t)                                            else

    params                  parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr                      learning rate, a number or a tensor with one element
    betas                   (beta1, beta2), both in [0, 1)
    eps                     added to the denominator
    weight_decay            L2 penalty, or the share by which p shrinks
    decoupled_weight_decay  weight decay as in `AdamW`
    maximize                uses -g, so that the objective grows
    foreach, capturable     accepted for PyTorch's signature, without effect
    differentiable          records the step: see `Optimizer`

    State of a parameter: `step` (float64 scalar); `exp_avg` (m) and `exp_avg_sq` (v) have the shape and dtype of p.
    ValueError if a number is negative or a beta is outside [0, 1).
    """

    _elementwise = True

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        check_rate(lr)
        at_least("epsilon value", eps)
        check_betas(betas)
        at_least("weight_decay value", weight_decay)
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], *group["betas"]),
                (1 if group["decoupled_weight_decay"] else 0, 1 if group["maximize"] else 0,
                 1 if group["weight_decay"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        return state_like(p, state, "exp_avg"), state_like(p, state, "exp_avg_sq")

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        decoupled, maximize, decays = flags
        lr, weight_decay, eps, beta1, beta2 = hyper
        m: Any
        v: Any
        m, v = state
        g = -g if maximize else g
        if decays and decoupled:
            p.mul_(1 - lr * weight_decay)
        elif decays:
            g = g + p * weight_decay
        m.add_((g - m) * (1 - beta1))
        v.copy_(v * beta2 + g * g * (1 - beta2))
        rest = 1 - beta2**step
        n = 2 / (1 - beta2) - 1
        now = n - 2 * step * beta2**step / rest
        steady = now > 5
        known = where(steady, now, 6.0)         # any number for which the root exists
        share = ((known - 4) * (known - 2) * n / ((n - 4) * (n - 2) * known) * rest).sqrt()
        p.sub_(m * (lr / (1 - beta1**step)) * where(steady, share / (v.sqrt() + eps), 1.0))
