"""Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019)."""
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


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1). In step t, for each parameter p with gradient g:

        g = g + weight_decay p          (with `decoupled_weight_decay` instead: p = p - lr weight_decay p)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    params                  parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr                      learning rate, a number or a tensor with one element
    betas                   (beta1, beta2), both in [0, 1): two floats, or two tensors with one element
    eps                     added to the denominator
    weight_decay            L2 penalty, or the share by which p shrinks
    amsgrad                 divides by the root of the largest v so far (Reddi, Kale and Kumar 2018, algorithm 2)
    maximize                uses -g, so that the objective grows
    decoupled_weight_decay  weight decay as in `AdamW`
    foreach, fused          accepted for PyTorch's signature, without effect: all parameters are updated together.
                            `foreach=True` takes tensors for lr and betas with `capturable=True` only
    capturable              the same: `minigrad.capture` records every optimiser
    differentiable          records the step: see `Optimizer`

    State of a parameter: `step` (float64 scalar); `exp_avg` (m), `exp_avg_sq` (v) and, with `amsgrad`, `max_exp_avg_sq`
    have the shape and dtype of p. ValueError if a number is negative or a beta is outside [0, 1).

        optimizer = optim.Adam(model.parameters(), lr=1e-3)
        for x, target in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), target).backward()
            optimizer.step()
    """

    _kernel = "adam"

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
                 capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False) -> None:
        check_rate(lr)
        at_least("epsilon value", eps)
        check_betas(betas)
        at_least("weight_decay value", weight_decay)
        for name, value in (("lr", lr), ("betas[0]", betas[0]), ("betas[1]", betas[1])):
            if isinstance(value, Tensor) and foreach and not capturable:
                raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")
        if not all(isinstance(b, float) for b in betas):
            if not all(isinstance(b, Tensor) for b in betas):
                raise ValueError("betas must be either both floats or both Tensors")
            betas = (float(betas[0]), float(betas[1]))
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable, fused=fused)
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], *group["betas"]),
                (1 if group["amsgrad"] else 0, 1 if group["decoupled_weight_decay"] else 0,
                 1 if group["maximize"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        return (state_like(p, state, "exp_avg"), state_like(p, state, "exp_avg_sq"),
                state_like(p, state, "max_exp_avg_sq") if group["amsgrad"] else None)

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        amsgrad, decoupled, maximize = flags
        lr, weight_decay, eps, beta1, beta2 = hyper
        m: Any
        v: Any
        largest: Any
        m, v, largest = state
        g = -g if maximize else g
        if decoupled:
            p.mul_(1 - lr * weight_decay)
        else:
            g = g + p * weight_decay
        m.add_((g - m) * (1 - beta1))
        v.copy_(v * beta2 + g * g * (1 - beta2))
        if amsgrad:
            largest.copy_(maximum(largest, v))
            v = largest
        p.sub_(m * (lr / (1 - beta1**step)) / (v.sqrt() / (1 - beta2**step).sqrt() + eps))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2): p = p - lr weight_decay p, then
    the step of Adam without the penalty in g. `weight_decay` is 0.01 by default; all else is as in `Adam`.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, capturable: bool = False, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
                         capturable=capturable, differentiable=differentiable, fused=fused,
                         decoupled_weight_decay=True)

    def _loaded(self) -> None:
        for group in self.param_groups:         # in a state dict of Adam this option is False
            group["decoupled_weight_decay"] = True
