"""Rprop (Riedmiller and Braun 1993)."""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from ..ops.formula import clamp
from ..ops.math import gt, lt, sign, where
from .optimizer import Flags, Numbers, Optimizer, Params, State, check_rate, only_default, state_like


class Rprop(Optimizer):
    """Rprop (Riedmiller and Braun 1993, in the form without going back: Igel and Hüsken 2000, iRprop-). In each step,
    for each number of a parameter p with gradient g:

        s = min(s etas[1], step_sizes[1])               if g has the sign it had in the last step
        s = max(s etas[0], step_sizes[0]),  g = 0       if it has the other one
        p = p - s sign(g)

    params      parameters, (name, parameter) pairs, or groups: see `Optimizer`
    lr          s in the first step, a number or a tensor with one element
    etas        (shrinks, grows): the factors of s, 0 < etas[0] < 1 < etas[1]
    step_sizes  (least, largest): the bounds of s
    maximize    uses -g, so that the objective grows
    foreach, capturable   accepted for PyTorch's signature, without effect
    differentiable        records the step: see `Optimizer`

    State of a parameter: `step` (float64 scalar); `prev` (the last g) and `step_size` (s), of the shape and dtype of p.
    ValueError if lr is negative or the etas are not as above.
    """

    _elementwise = True

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False, differentiable: bool = False) -> None:
        check_rate(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        only_default(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, {
            "lr": lr, "etas": tuple(etas), "step_sizes": tuple(step_sizes), "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable})

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return (float(group["lr"]), *group["etas"], *group["step_sizes"]), (1 if group["maximize"] else 0,)

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        self._step_of(p, state)
        return state_like(p, state, "prev"), state_like(p, state, "step_size", float(group["lr"]))

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        (maximize,) = flags
        # in the dtype of p: `where` would make float64 numbers of the float64 factors
        _, shrinks, grows, least, largest = (h.to(p.dtype) for h in hyper)
        before: Any
        size: Any
        before, size = state
        g = -g if maximize else g
        turned = sign(g * before)
        factor = where(gt(turned, 0), grows, where(lt(turned, 0), shrinks, turned + 1))     # 1 at 0, and nan stays
        size.copy_(clamp(size * factor, least, largest))
        before.copy_(where(lt(turned, 0), 0.0, g))
        p.sub_(sign(before) * size)
