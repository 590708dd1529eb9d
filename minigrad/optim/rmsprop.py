"""RMSprop (Tieleman and Hinton 2012)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from .optimizer import Flags, Numbers, Optimizer, Params, State, at_least, check_rate, only_default, state_like


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012, Coursera, lecture 6.5). For each parameter p with gradient g:

        g = g + weight_decay p
        v = alpha v + (1 - alpha) g^2
        p = p - lr g / (sqrt(v) + eps)

    params        parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr            learning rate, a number or a tensor with one element
    alpha         decay of the average of g^2
    eps           added to the denominator
    weight_decay  L2 penalty, added to the gradient
    momentum      if above 0: b = momentum b + g / (sqrt(v) + eps), p = p - lr b
    centered      divides by sqrt(v - a^2) + eps, where a = alpha a + (1 - alpha) g (Graves 2013, eq. 38 to 41)
    maximize      uses -g, so that the objective grows
    foreach       accepted for PyTorch's signature, without effect: all parameters are updated together
    capturable    the same: `minigrad.capture` records every optimiser
    differentiable   records the step: see `Optimizer`

    State of a parameter: `step` (float64 scalar); of the shape and dtype of p, `square_avg` (v), with `momentum` also
    `momentum_buffer` (b), with `centered` also `grad_avg` (a). ValueError if one of the numbers is negative.
    """

    _kernel = "rmsprop"

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False, differentiable: bool = False) -> None:
        check_rate(lr)
        at_least("epsilon value", eps)
        at_least("momentum value", momentum)
        at_least("weight_decay value", weight_decay)
        at_least("alpha value", alpha)
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], group["alpha"], group["momentum"]),
                (1 if group["centered"] else 0, 1 if group["maximize"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        square = state_like(p, state, "square_avg")
        buffer = state_like(p, state, "momentum_buffer") if group["momentum"] > 0 else None
        return square, state_like(p, state, "grad_avg") if group["centered"] else None, buffer

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        centered, maximize = flags
        lr, weight_decay, eps, alpha, momentum = hyper
        square: Any
        mean: Any
        square, mean, buffer = state
        g = (-g if maximize else g) + p * weight_decay
        square.copy_(square * alpha + g * g * (1 - alpha))
        v = square
        if centered:
            mean.add_((g - mean) * (1 - alpha))
            v = square - mean * mean
        change = g / (v.sqrt() + eps)
        if buffer is not None:
            buffer.copy_(buffer * momentum + change)
            change = buffer
        p.sub_(change * lr)
