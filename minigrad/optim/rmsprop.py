"""RMSprop."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from .optimizer import Optimizer, Params, at_least, one_element, only_default, state_like


class RMSprop(Optimizer):
    """v = alpha v + (1 - alpha) g^2, p = p - lr g / (sqrt(v) + eps)      (Hinton, Coursera lecture 6, 2012)

    ``centered`` takes v minus the square of the averaged gradient (Graves 2013); ``momentum`` averages g / (sqrt(v) + eps).
    """

    _kernel = "rmsprop"

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
                 momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False) -> None:
        one_element(lr)
        at_least("learning rate", lr)
        at_least("epsilon value", eps)
        at_least("momentum value", momentum)
        at_least("weight_decay value", weight_decay)
        at_least("alpha value", alpha)
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                                  "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
                                  "differentiable": differentiable})

    def _read(self, group: dict[str, Any]) -> tuple:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], group["alpha"], group["momentum"]),
                (int(group["centered"]), int(group["maximize"])))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> tuple:
        self._step_of(p, state)
        square = state_like(p, state, "square_avg")
        buffer = state_like(p, state, "momentum_buffer") if group["momentum"] > 0 else None
        return square, state_like(p, state, "grad_avg") if group["centered"] else None, buffer

    def _define(self, flags: tuple, hyper: tuple, p: Tensor, g: Tensor, state: tuple, step: Tensor) -> None:
        centered, maximize = flags
        lr, weight_decay, eps, alpha, momentum = hyper
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
