"""Stochastic gradient descent, with momentum and Nesterov momentum."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..ops.math import where
from .optimizer import Flags, Numbers, Optimizer, Params, State, at_least, begun, check_rate, only_default, state_like


class SGD(Optimizer):
    """Gradient descent (Robbins and Monro 1951) with momentum (Polyak 1964). For each parameter p with gradient g:

        g = g + weight_decay p
        b = momentum b + (1 - dampening) g          (in the first step: b = g)
        p = p - lr b                                (with `nesterov`: p = p - lr (g + momentum b))

    Without momentum, p = p - lr g. Nesterov's momentum has the form of Sutskever et al. 2013, with the rate outside
    of b, as in PyTorch.

    params        parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr            learning rate, a number or a tensor with one element
    momentum      decay of b
    dampening     the share of g that does not enter b
    weight_decay  L2 penalty, added to the gradient
    nesterov      looks ahead by one step of momentum; needs momentum > 0 and dampening 0, else ValueError
    maximize      uses -g, so that the objective grows
    foreach, fused   accepted for PyTorch's signature, without effect: all parameters are updated together
    differentiable   records the step: see `Optimizer`

    State of a parameter, with momentum only: `momentum_buffer` (b, shape and dtype of p).
    ValueError if `lr`, `momentum` or `weight_decay` is negative.
    """

    _kernel = "sgd"

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None) -> None:
        check_rate(lr)
        at_least("momentum value", momentum)
        at_least("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        only_default(foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach, "differentiable": differentiable,
            "fused": fused})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], 0.0, group["momentum"], group["dampening"]),
                (1 if group["nesterov"] else 0, 1 if group["maximize"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        if group["momentum"] == 0:
            return None, None, None
        if state.get("momentum_buffer") is None:
            self._hidden_steps.pop(p, None)
        elif p not in self._hidden_steps:       # the buffer was loaded: its first step is done
            self._hidden_steps[p] = begun(np.array(1.0), p.device)
        return state_like(p, state, "momentum_buffer"), None, None

    def _step_of(self, p: Tensor, state: dict[str, Any]) -> Tensor:
        # Not in the state dict, as in PyTorch. It only tells the first step (b = g) from the later ones.
        if p not in self._hidden_steps:
            self._hidden_steps[p] = begun(np.array(0.0), p.device)
        return self._hidden_steps[p]

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        nesterov, maximize = flags
        lr, weight_decay, _, momentum, dampening = hyper
        buffer = state[0]
        g = (-g if maximize else g) + p * weight_decay
        if buffer is not None:
            buffer.copy_(where(step == 1, g, buffer * momentum + g * (1 - dampening)))
            g = g + buffer * momentum if nesterov else buffer
        p.sub_(g * lr)
