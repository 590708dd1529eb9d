"""Adadelta (Zeiler 2012)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from .optimizer import Flags, Numbers, Optimizer, Params, State, at_least, check_rate, only_default, state_like


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012, algorithm 1). In each step, for each parameter p with gradient g:

        g = g + weight_decay p
        v = rho v + (1 - rho) g^2
        d = sqrt(u + eps) / sqrt(v + eps) g
        u = rho u + (1 - rho) d^2
        p = p - lr d

    params        parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr            learning rate, a number or a tensor with one element
    rho           decay of the averages of g^2 and d^2, in [0, 1]
    eps           added under both roots
    weight_decay  L2 penalty, added to the gradient
    maximize      uses -g, so that the objective grows
    foreach, capturable   accepted for PyTorch's signature, without effect
    differentiable        records the step: see `Optimizer`

    State of a parameter: `step` (float64 scalar); `square_avg` (v) and `acc_delta` (u) have the shape and dtype of p.
    ValueError if a number is negative or rho above 1.
    """

    _elementwise = True

    def __init__(self, params: Params, lr: float | Tensor = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0, foreach: bool | None = None, *, capturable: bool = False,
                 maximize: bool = False, differentiable: bool = False) -> None:
        check_rate(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        at_least("epsilon value", eps)
        at_least("weight_decay value", weight_decay)
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], group["rho"], 0.0),
                (1 if group["maximize"] else 0, 1 if group["weight_decay"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        return state_like(p, state, "square_avg"), state_like(p, state, "acc_delta")

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        maximize, decays = flags
        lr, weight_decay, eps, rho, _ = hyper
        square: Any
        moved: Any
        square, moved = state
        g = -g if maximize else g
        if decays:
            g = g + p * weight_decay
        square.copy_(square * rho + g * g * (1 - rho))
        change = (moved + eps).sqrt() / (square + eps).sqrt() * g
        moved.copy_(moved * rho + change * change * (1 - rho))
        p.sub_(change * lr)
