"""NAdam (Dozat 2016)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
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
    scalar,
    state_like,
)


class NAdam(Optimizer):
    """NAdam, Adam with Nesterov's momentum (Dozat 2016, algorithm 2). In step t, for each parameter p with gradient g:

        g = g + weight_decay p          (with `decoupled_weight_decay` instead: p = p - lr weight_decay p)
        mu(t) = beta1 (1 - 0.96^(t momentum_decay) / 2),    P(t) = mu(1) mu(2) ... mu(t)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        h = (1 - mu(t)) / (1 - P(t)) g + mu(t + 1) / (1 - P(t + 1)) m
        p = p - lr h / (sqrt(v / (1 - beta2^t)) + eps)

    params                  parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr                      learning rate, a number or a tensor with one element
    betas                   (beta1, beta2), both in [0, 1)
    eps                     added to the denominator
    weight_decay            L2 penalty, or the share by which p shrinks
    momentum_decay          how fast mu rises to beta1
    decoupled_weight_decay  weight decay as in `AdamW`
    maximize                uses -g, so that the objective grows
    foreach, capturable     accepted for PyTorch's signature, without effect
    differentiable          records the step: see `Optimizer`

    State of a parameter: `step` and `mu_product` (P), float64 scalars; `exp_avg` (m) and `exp_avg_sq` (v) have the
    shape and dtype of p. ValueError if a number is negative or a beta is outside [0, 1).
    """

    _elementwise = True
    _numbers = ("mu_product",)

    def __init__(self, params: Params, lr: float | Tensor = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None, maximize: bool = False,
                 capturable: bool = False, differentiable: bool = False) -> None:
        check_rate(lr)
        at_least("epsilon value", eps)
        check_betas(betas)
        at_least("weight_decay value", weight_decay)
        at_least("momentum_decay value", momentum_decay)
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "differentiable": differentiable})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], *group["betas"], group["momentum_decay"]),
                (1 if group["decoupled_weight_decay"] else 0, 1 if group["maximize"] else 0,
                 1 if group["weight_decay"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        scalar(p, state, "mu_product", 1.0)
        return state_like(p, state, "exp_avg"), state_like(p, state, "exp_avg_sq")

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        decoupled, maximize, decays = flags
        lr, weight_decay, eps, beta1, beta2, momentum_decay = hyper
        m: Any
        v: Any
        m, v = state
        product = self._state_of(p)["mu_product"]
        g = -g if maximize else g
        if decays and decoupled:
            p.mul_(1 - lr * weight_decay)
        elif decays:
            g = g + p * weight_decay
        mu, following = (beta1 * (1 - 0.5 * 0.96**(t * momentum_decay)) for t in (step, step + 1))
        product.mul_(mu)
        m.add_((g - m) * (1 - beta1))
        v.copy_(v * beta2 + g * g * (1 - beta2))
        ahead = g * ((1 - mu) / (1 - product)) + m * (following / (1 - product * following))
        p.sub_(ahead * lr / ((v / (1 - beta2**step)).sqrt() + eps))
