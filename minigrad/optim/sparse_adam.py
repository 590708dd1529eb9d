"""SparseAdam: Adam for the rows of a table that a batch uses."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from ..ops.math import ne, where
from .optimizer import Flags, Numbers, Optimizer, Params, State, check_betas, one_element, state_like


class SparseAdam(Optimizer):
    """Adam (Kingma and Ba 2015) in which rows whose gradient is 0 keep their values and averages: for `nn.Embedding`,
    of which a batch uses few rows. PyTorch's takes sparse gradients; here they are dense, and a row of zeros counts as
    not used, even if the batch used it (PyTorch's moves it by its averages). Gradients without such rows are
    taken, too, where PyTorch's refuses them. For each other row, in step t:

        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)

    params    parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr        learning rate, a number or a tensor with one element
    betas     (beta1, beta2), both in [0, 1)
    eps       added to the denominator
    maximize  uses -g, so that the objective grows

    State of a parameter: `step` (float64 scalar); `exp_avg` (m) and `exp_avg_sq` (v), of the shape and dtype of p.
    ValueError if lr or eps is not above 0, or a beta outside [0, 1).
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, maximize: bool = False) -> None:
        one_element(lr)
        for name, value in (("learning rate", lr), ("epsilon value", eps)):
            if not 0.0 < value:
                raise ValueError(f"Invalid {name}: {value}")
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "maximize": maximize})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return (float(group["lr"]), 0.0, group["eps"], *group["betas"]), (1 if group["maximize"] else 0,)

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        return state_like(p, state, "exp_avg"), state_like(p, state, "exp_avg_sq")

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        lr, _, eps, beta1, beta2 = hyper
        m: Any = state[0]
        v: Any = state[1]
        g = -g if flags[0] else g
        used = ne(g, 0)
        used = used.any(tuple(range(1, g.ndim)), True) if g.ndim > 1 else used
        m.add_(where(used, (g - m) * (1 - beta1), 0.0))
        v.add_(where(used, (g * g - v) * (1 - beta2), 0.0))
        rate = lr * (1 - beta2**step).sqrt() / (1 - beta1**step)
        p.sub_(where(used, m / (v.sqrt() + eps) * rate, 0.0))
