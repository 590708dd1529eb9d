"""L-BFGS (Liu and Nocedal 1989), with or without a line search for the strong Wolfe conditions."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..core.modes import enable_grad, mode, no_grad
from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.creation import zeros
from ..ops.join import cat
from .optimizer import Optimizer, Params, check_rate

_ENOUGH = 1e-4              # share of the expected decrease that a step must reach (c1 of the Wolfe conditions)
_FLATTER = 0.9              # the slope must shrink to this share (c2)
_LEAST_CURVATURE = 1e-10    # y . s below which a pair is not kept


class _Point(NamedTuple):
    """A point of the line p + t d: how far it is, the loss and its gradient there, and their slope along d."""

    t: float
    loss: float
    gradient: Tensor
    slope: float


def _cubic(a: _Point, b: _Point, low: float, high: float) -> float:
    """Where the cubic through both points, with their slopes, is least, within the bounds; their middle if the cubic
    has no minimum (Nocedal and Wright 2006, eq. 3.59)."""
    first, second = (a, b) if a.t <= b.t else (b, a)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = math.sqrt(square)
    below = second.slope - first.slope + 2 * d2
    t = second.t - (second.t - first.t) * ((second.slope + d2 - d1) / below) if below else math.nan
    return min(max(t, low), high)


def _bracket(evaluate: Callable[[float], _Point], start: _Point, t: float,
             most: int) -> tuple[list[_Point], bool, int]:
    """Steps that grow until two of them have a good point between them, or one is good (Nocedal and Wright 2006,
    algorithm 3.5). Returns these points, whether one is good, and the number of steps after the first."""
    last, new = start, evaluate(t)
    for count in range(most):
        if new.loss > start.loss + _ENOUGH * new.t * start.slope or count > 1 and new.loss >= last.loss:
            return [last, new], False, count
        if abs(new.slope) <= -_FLATTER * start.slope:
            return [new], True, count
        if new.slope >= 0:
            return [last, new], False, count
        t = _cubic(last, new, new.t + 0.01 * (new.t - last.t), new.t * 10)
        last, new = new, evaluate(t)
    return [start, new], False, max(most, 0)


def _search(evaluate: Callable[[float], _Point], start: _Point, t: float, length: float, least: float,
            most: int) -> tuple[_Point, int]:
    """A step that meets the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6), or the best one
    after `most` steps more than the first, or when all are within `least`. `length`: the largest number of d. Returns
    the point and how often the loss was computed."""
    ends, done, count = _bracket(evaluate, start, t, most)
    low, high = (0, 1) if ends[0].loss <= ends[-1].loss else (1, 0)
    slow = False                                    # the last step hardly moved away from an end
    while not done and count < most and abs(ends[1].t - ends[0].t) * length >= least:
        left, right = sorted((ends[0].t, ends[1].t))
        t = _cubic(ends[0], ends[1], left, right)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if slow or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                slow = False
            else:
                slow = True
        else:
            slow = False
        new = evaluate(t)
        count += 1
        if new.loss > start.loss + _ENOUGH * new.t * start.slope or new.loss >= ends[low].loss:
            ends[high] = new
            low, high = (0, 1) if ends[0].loss <= ends[1].loss else (1, 0)
            continue
        if abs(new.slope) <= -_FLATTER * start.slope:
            done = True
        elif new.slope * (ends[high].t - ends[low].t) >= 0:
            ends[high] = ends[low]
        ends[low] = new
    return ends[low], count + 1


class LBFGS(Optimizer):
    """L-BFGS (Liu and Nocedal 1989): steps along -H g, where H is the inverse of the Hessian as the last changes of the
    gradients show it (Nocedal and Wright 2006, algorithms 7.4 and 7.5).

    `step(closure)` computes the loss several times: `closure` clears the gradients, computes the loss, calls `backward`
    and returns the loss. All parameters are one vector, so there can be one group only (ValueError otherwise).

    params            parameters, or one group: see `Optimizer`
    lr                length of a step, a number or a tensor with one element
    max_iter          the most iterations of a step
    max_eval          the most times that the loss is computed in a step; None: 1.25 max_iter
    tolerance_grad    a step ends when no number of the gradient is larger
    tolerance_change  a step ends when the loss, or all parameters, change by less
    history_size      how many changes are kept; each takes twice the memory of the parameters
    line_search_fn    None, or "strong_wolfe": a line search instead of steps of length lr

    State, of the first parameter: `func_evals` and `n_iter`, the numbers of evaluations and iterations; what was last
    (`d`, `t`, `prev_flat_grad`, `prev_loss`); changes of gradients (`old_dirs`) and parameters (`old_stps`), `ro`, `al`
    and `H_diag`. How many steps are made depends on the values, so it cannot be captured (RuntimeError).

        optimizer = optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
        def closure():
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), target)
            loss.backward()
            return loss
        optimizer.step(closure)
    """

    def __init__(self, params: Params, lr: float | Tensor = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None) -> None:
        check_rate(lr)
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only the group that `__init__` adds: ValueError for a second one."""
        if self.param_groups:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        super().add_param_group(param_group)

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def _gradient(self) -> Tensor:
        """All gradients as one vector."""
        return cat([zeros(p.numel(), dtype=p.dtype, device=p.device) if p.grad is None else p.grad.reshape(-1)
                    for p in self._params])

    def _move(self, t: float | Tensor, direction: Tensor) -> None:
        """p = p + t d."""
        first = 0
        for p in self._params:
            p.add_(direction[first:first + p.numel()].reshape(p.shape) * t)
            first += p.numel()

    def _evaluated(self, closure: Callable[[], Any], start: Sequence[Tensor], t: float, d: Tensor) -> _Point:
        """The point p + t d; the parameters are those of `start` before and after."""
        self._move(t, d)
        loss = float(closure())
        gradient = self._gradient()
        for p, value in zip(self._params, start, strict=True):
            p.copy_(value)
        return _Point(t, loss, gradient, gradient.dot(d).item())

    @staticmethod
    def _direction(state: dict[str, Any], g: Tensor, history: int) -> Tensor:
        """-H g, after the last change was added to what is known of H (Nocedal and Wright 2006, algorithm 7.4)."""
        changes, steps, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = g - state["prev_flat_grad"], state["d"] * state["t"]
        curvature = y.dot(s)
        if curvature.item() > _LEAST_CURVATURE:
            if len(changes) == history:
                for past in (changes, steps, ro):
                    past.pop(0)
            changes.append(y)
            steps.append(s)
            ro.append(1.0 / curvature)
            state["H_diag"] = curvature / y.dot(y)
        al = state.setdefault("al", [None] * history)
        d = -g
        for i in range(len(changes) - 1, -1, -1):
            al[i] = steps[i].dot(d) * ro[i]
            d.sub_(changes[i] * al[i])
        d.mul_(state["H_diag"])
        for i in range(len(changes)):
            d.add_(steps[i] * (al[i] - changes[i].dot(d) * ro[i]))
        return d

    @no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:          # type: ignore[override]
        """Up to `max_iter` iterations. Returns the loss of the first evaluation.

        `closure` clears the gradients, computes the loss, calls `backward`, and returns the loss.
        """
        if mode.recorder is not None:
            fail("LBFGS", "a captured function cannot hold its step: the number of iterations depends on values",
                 fix="call step() outside the captured function")
        evaluate = enable_grad()(closure)
        group, state = self.param_groups[0], self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first = evaluate()
        loss, evaluations = float(first), 1
        state["func_evals"] += 1
        g = self._gradient()
        if g.abs().max().item() <= group["tolerance_grad"]:
            return first
        for iteration in range(1, group["max_iter"] + 1):
            before = loss
            d, t, slope = self._begin_iteration(state, group, g)
            state["prev_loss"] = before
            if slope > -group["tolerance_change"]:
                break
            loss, g, count = self._advance(evaluate, group, state, _Point(0.0, loss, g, slope), d, t,
                                           evaluations, iteration == group["max_iter"])
            evaluations += count
            state["func_evals"] += count
            if evaluations >= group["max_eval"] or self._still(group, state, g, loss - before):
                break
        return first

    def _begin_iteration(self, state: dict[str, Any], group: dict[str, Any],
                         g: Tensor) -> tuple[Tensor, float, float]:
        """The direction, the length that is tried first, and the slope of the loss along the direction."""
        state["n_iter"] += 1
        lr = float(group["lr"])
        if state["n_iter"] == 1:
            d, t = -g, lr / max(1.0, g.abs().sum().item())
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
        else:
            d, t = self._direction(state, g, group["history_size"]), lr
        state.update(d=d, t=t, prev_flat_grad=g.clone())
        return d, t, g.dot(d).item()

    def _advance(self, evaluate: Callable[[], Any], group: dict[str, Any], state: dict[str, Any], start: _Point,
                 d: Tensor, t: float, evaluations: int, last: bool) -> tuple[float, Tensor, int]:
        """Moves the parameters. Returns the loss and the gradient there, and how often the loss was computed; without a
        line search, it is not computed after the last iteration: a step on other data would not use it."""
        if group["line_search_fn"] is not None:
            if group["line_search_fn"] != "strong_wolfe":
                fail("LBFGS", "line_search_fn must be None or 'strong_wolfe'", repr(group["line_search_fn"]))
            here = [p.clone() for p in self._params]
            found, count = _search(lambda t: self._evaluated(evaluate, here, t, d), start, t, d.abs().max().item(),
                                   group["tolerance_change"], group["max_eval"] - evaluations)
            state["t"] = found.t
            self._move(found.t, d)
            return found.loss, found.gradient, count
        self._move(t, d)
        if last:
            return start.loss, start.gradient, 0
        loss = float(evaluate())
        return loss, self._gradient(), 1

    @staticmethod
    def _still(group: dict[str, Any], state: dict[str, Any], g: Tensor, change: float) -> bool:
        """Is the gradient small, or did nothing change?"""
        return (g.abs().max().item() <= group["tolerance_grad"]
                or (state["d"] * state["t"]).abs().max().item() <= group["tolerance_change"]
                or abs(change) < group["tolerance_change"])
