"""Stochastic gradient descent with momentum."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..ops.math import where
from .optimizer import Optimizer, Params, at_least, begun, one_element, only_default, state_like


class SGD(Optimizer):
    """buf = momentum buf + (1 - dampening) g (at first g), p = p - lr buf; with ``nesterov`` p = p - lr (g + momentum buf).

    ``weight_decay`` adds weight_decay p to g; ``maximize`` turns the sign of the gradient.
    """

    _kernel = "sgd"

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
                 nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        one_element(lr)
        at_least("learning rate", lr)
        at_least("momentum value", momentum)
        at_least("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        only_default(foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                                  "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable,
                                  "fused": fused})

    def _read(self, group: dict[str, Any]) -> tuple:
        return ((float(group["lr"]), group["weight_decay"], 0.0, group["momentum"], group["dampening"]),
                (int(group["nesterov"]), int(group["maximize"])))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> tuple:
        if group["momentum"] == 0:
            return None, None, None
        if state.get("momentum_buffer") is None:
            self._hidden_steps.pop(p, None)
        elif p not in self._hidden_steps:       # loaded, not begun here
            self._hidden_steps[p] = begun(np.array(1.0), p.device)
        return state_like(p, state, "momentum_buffer"), None, None

    def _step_of(self, p: Tensor, state: dict[str, Any]) -> Tensor:
        # not part of the state dict: it only says whether the buffer has begun
        if p not in self._hidden_steps:
            self._hidden_steps[p] = begun(np.array(0.0), p.device)
        return self._hidden_steps[p]

    def _define(self, flags: tuple, hyper: tuple, p: Tensor, g: Tensor, state: tuple, step: Tensor) -> None:
        nesterov, maximize = flags
        lr, weight_decay, _, momentum, dampening = hyper
        buffer = state[0]
        g = (-g if maximize else g) + p * weight_decay
        if buffer is not None:
            buffer.copy_(where(step == 1, g, buffer * momentum + g * (1 - dampening)))
            g = g + buffer * momentum if nesterov else buffer
        p.sub_(g * lr)
