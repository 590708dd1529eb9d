"""Adagrad (Duchi, Hazan and Singer 2011)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from .optimizer import Flags, Numbers, Optimizer, Params, State, at_least, check_rate, only_default, state_like


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer 2011, fig. 1, diagonal form). In step t, for each parameter p with gradient g:

        g = g + weight_decay p
        s = s + g^2
        p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

    params                     parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr                         learning rate, a number or a tensor with one element
    lr_decay                   how fast the rate falls with the number of steps
    weight_decay               L2 penalty, added to the gradient
    initial_accumulator_value  value of s before the first step
    eps                        added to the denominator
    maximize                   uses -g, so that the objective grows
    foreach, fused             accepted for PyTorch's signature, without effect: all parameters are updated together
    differentiable             records the step: see `Optimizer`

    State of a parameter: `step` (float64 scalar), `sum` (s, shape and dtype of p).
    ValueError if one of the numbers is negative.
    """

    _kernel = "adagrad"

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
                 maximize: bool = False, differentiable: bool = False, fused: bool | None = None) -> None:
        check_rate(lr)
        at_least("lr_decay value", lr_decay)
        at_least("weight_decay value", weight_decay)
        at_least("initial_accumulator_value value", initial_accumulator_value)
        at_least("epsilon value", eps)
        only_default(foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused})
        for group in self.param_groups:
            for p in group["params"]:
                self._begin(group, self._updated(p), self.state[p])

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        numbers = (float(group["lr"]), group["weight_decay"], group["eps"], group["lr_decay"], 0.0)
        return numbers, (1 if group["maximize"] else 0,)

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        return state_like(p, state, "sum", group["initial_accumulator_value"]), None, None

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        (maximize,) = flags
        lr, weight_decay, eps, lr_decay, _ = hyper
        total: Any = state[0]
        g = (-g if maximize else g) + p * weight_decay
        total.add_(g * g)
        p.sub_(g * (lr / ((step - 1) * lr_decay + 1)) / (total.sqrt() + eps))
