"""Averaged stochastic gradient descent (Polyak and Juditsky 1992)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from ..ops.formula import clamp_min
from ..ops.math import eq, where
from .optimizer import Flags, Numbers, Optimizer, Params, State, at_least, check_rate, only_default, scalar, state_like


class ASGD(Optimizer):
    """Gradient descent that also keeps the average of the parameters (Polyak and Juditsky 1992; the rates of Bottou
    2012). In step t, for each parameter p with gradient g:

        g = g + weight_decay p
        p = (1 - lambd eta) p - eta g,              eta = lr / (1 + lambd lr (t - 1))^alpha
        a = a + mu (p - a),                         mu = 1 / max(1, t - 1 - t0)

    params        parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr            learning rate, a number or a tensor with one element
    lambd         decay of p
    alpha         how fast eta falls
    t0            the step in which the average begins
    weight_decay  L2 penalty, added to the gradient
    maximize      uses -g, so that the objective grows
    foreach, capturable   accepted for PyTorch's signature, without effect
    differentiable        records the step: see `Optimizer`

    State of a parameter: `step`, `eta` and `mu` (float64 scalars), `ax` (a, shape and dtype of p): `eta` and `mu`
    are those of the next step. ValueError if `lr` or `weight_decay` is negative.
    """

    _elementwise = True
    _numbers = ("eta", "mu")

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
                 t0: float = 1e6, weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        check_rate(lr)
        at_least("weight_decay value", weight_decay)
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["lambd"], group["alpha"], group["t0"]),
                (1 if group["maximize"] else 0, 1 if group["weight_decay"] else 0))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        scalar(p, state, "eta", float(group["lr"]))
        scalar(p, state, "mu", 1.0)
        return (state_like(p, state, "ax"),)

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        maximize, decays = flags
        lr, weight_decay, lambd, alpha, t0 = hyper
        average: Any = state[0]
        eta, mu = self._state_of(p)["eta"], self._state_of(p)["mu"]
        g = -g if maximize else g
        if decays:
            g = g + p * weight_decay
        p.mul_(1 - lambd * eta)
        p.sub_(g * eta)
        average.copy_(where(eq(mu, 1), p, average + (p - average) * mu))
        eta.copy_(lr / (1 + lambd * lr * step)**alpha)
        mu.copy_(1 / clamp_min(step - t0, 1.0))
