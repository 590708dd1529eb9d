"""Learning-rate schedules with the sequences and the state dicts of `torch.optim.lr_scheduler`.

A schedule writes `lr` into the groups of its optimiser. Call `step()` once after each epoch (or after each batch),
after `optimizer.step()`. Most schedules are chainable: they compute the next rate from the current one, so that
several of them can act on one optimiser.

    scheduler = lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    for epoch in range(100):
        train(...)                  # calls optimizer.step()
        scheduler.step()

In the docstrings, `base` is the group's rate at the beginning ("initial_lr"), and `epoch` counts the calls of `step()`.
"""
from __future__ import annotations

import functools
import math
import types
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsFloat, TypeAlias

from ..core.display import constructed
from ..core.messages import Guarded
from ..core.modes import mode
from ..core.notes import Notes
from ..core.tensor import Tensor
from ..core.warning import warn
from .optimizer import Optimizer

Rates: TypeAlias = Sequence[float | Tensor]

EPOCH_DEPRECATION_WARNING = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. "
    "Please use `scheduler.step()` to step the scheduler.")


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _values(optimizer: Optimizer, key: str) -> list[Any]:
    return [_copied(group[key]) for group in optimizer.param_groups]


def _write(group: dict[str, Any], lr: Any) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(float(lr))
    else:
        group["lr"] = lr


def _set_momentum(group: dict[str, Any], value: float, beta1: bool) -> None:
    """Writes the momentum of a group, or with `beta1` the first of its betas."""
    if beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def _per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    count = len(optimizer.param_groups)
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise ValueError(f"{name} must have the same length as optimizer.param_groups. {name} has {len(value)} "
                             f"values, param_groups has {count}.")
        return list(value)
    return [_copied(value) for _ in range(count)]


def _is_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


_within = False         # True while the step of a schedule runs, which may call the step of another


def _replayed(step: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a `step` method that a captured function calls run again at each replay.

    A replay repeats launches only, and `step` is Python. So the recorder keeps the call and runs it before the
    launches, in order with the calls by which optimisers read their numbers. Each replay thus uses the rates of an
    eager step.
    """
    @functools.wraps(step)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        global _within
        outermost, _within = not _within, True
        try:
            step(self, *args, **kwargs)
        finally:
            _within = not outermost
        if outermost and mode.recorder is not None:
            mode.recorder.before_replay.append(lambda: step(self, *args, **kwargs))
            mode.recorder.notes.carries(self, "step", ("param_groups", "lr"))
    return wrapper


class LRScheduler(Guarded):
    """Base class of the schedules. A subclass defines `get_lr`.

    optimizer   the optimiser whose groups get the rates
    last_epoch  -1 to begin. To continue at another epoch, each group must have "initial_lr" (from a loaded state), else
                KeyError

    `base_lrs` holds the rate of each group at the beginning, `last_epoch` the number of the current epoch.
    """

    def _noted(self, notes: Notes, text: str) -> None:
        """Notes for a capture the state of the schedule: the function may read it (`get_last_lr`)."""
        notes.add(self.__dict__, None, text)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _replayed(cls.__dict__["step"])      # type: ignore[method-assign]

    _get_lr_called_within_step = False
    _is_initial = False
    _step_count: int

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        _is_optimizer(optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler "
                               "with last_epoch >= 0; load the optimizer's state first")
        self.base_lrs = _values(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        optimizer._scheduled_step = vars(optimizer).get("step")
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`, one for each group. `step` calls it; a program calls `get_last_lr`."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float | Tensor]:
        """The rates that the last step wrote, one for each group."""
        return self._last_lr

    def __repr__(self) -> str:
        rates = ", ".join([f"{float(lr):g}" for lr in getattr(self, "_last_lr", ())])
        return f"{constructed(self)[:-1]}, lr={rates})"

    def _check_called_within_step(self) -> None:
        if not self._get_lr_called_within_step:
            warn("To get the last learning rate computed by the scheduler, please use `get_last_lr()`.")

    @_replayed
    def step(self, epoch: int | None = None) -> None:
        """Moves to the next epoch and writes its rates. `epoch` moves to that epoch instead; PyTorch deprecates it."""
        replaced, said = vars(self.optimizer).get("step"), ""
        if replaced is not self.optimizer._scheduled_step:
            said = ("Seems like `optimizer.step()` has been overridden after learning rate scheduler initialization: "
                    "call `optimizer.step()` before `lr_scheduler.step()`")
        elif replaced is None and not self.optimizer._opt_called:
            said = ("Detected call of `lr_scheduler.step()` before `optimizer.step()`: call them in the opposite "
                    "order, or the first value of the learning rate schedule is skipped")
        if said and self._step_count == 1:
            warn(f"{said} (https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate)")
        self._step_count += 1
        if epoch is not None:
            warn(EPOCH_DEPRECATION_WARNING)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        rates_of = self.get_lr
        if epoch is None:
            self.last_epoch += 1
        else:
            self.last_epoch = epoch
            rates_of = getattr(self, "_get_closed_form_lr", rates_of)
        self._write_rates(rates_of)

    def _write_rates(self, rates_of: Callable[[], Rates]) -> None:
        self._get_lr_called_within_step = True
        try:
            rates = rates_of()
        finally:
            self._get_lr_called_within_step = False
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            _write(group, lr)
        self._last_lr = _values(self.optimizer, "lr")

    def state_dict(self) -> dict[str, Any]:
        """All attributes of the schedule except the optimiser, for `minigrad.save`."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the attributes in `state_dict`. The rates of the groups come with the state of the optimiser."""
        self.__dict__.update(state_dict)


class LambdaLR(LRScheduler):
    """lr = base lr_lambda(epoch).

    lr_lambda   a function of the epoch's number, or a list with one function for each group; ValueError for another
                number

        scheduler = LambdaLR(optimizer, lambda epoch: 0.95**epoch)
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
                 last_epoch: int = -1) -> None:
        _is_optimizer(optimizer)
        if isinstance(lr_lambda, list | tuple):
            if len(lr_lambda) != len(optimizer.param_groups):
                raise ValueError(f"Expected {len(optimizer.param_groups)} lr_lambdas, but got {len(lr_lambda)}")
            self.lr_lambdas = list(lr_lambda)
        else:
            self.lr_lambdas = [lr_lambda] * len(optimizer.param_groups)     # type: ignore[list-item]
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        return [base * f(self.last_epoch) for f, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """As in `LRScheduler`; of `lr_lambda`, a callable object gives its attributes, a plain function gives None."""
        state = super().state_dict()
        state["lr_lambdas"] = [None if isinstance(f, types.FunctionType) else dict(f.__dict__) for f in self.lr_lambdas]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "lr_lambdas"})
        for f, attributes in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if attributes is not None:
                f.__dict__.update(attributes)


class MultiplicativeLR(LambdaLR):
    """lr = last lr lr_lambda(epoch), from epoch 1 on.

    lr_lambda   a function of the epoch's number, or a list with one function for each group; ValueError for another
                number, TypeError for what is no function
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
                 last_epoch: int = -1) -> None:
        for f in lr_lambda if isinstance(lr_lambda, list | tuple) else (lr_lambda,):
            if not callable(f):
                raise TypeError(f"lr_lambda should be a function, but got {type(f).__name__}")
        super().__init__(optimizer, lr_lambda, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        rates = _values(self.optimizer, "lr")
        if self._is_initial:
            return rates
        return [lr * f(self.last_epoch) for f, lr in zip(self.lr_lambdas, rates, strict=True)]

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * math.prod(f(i) for i in range(1, self.last_epoch + 1))
                for f, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]


class StepLR(LRScheduler):
    """lr = base gamma^floor(epoch / step_size): the rate is multiplied by `gamma` every `step_size` epochs."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        due = self.last_epoch and self.last_epoch % self.step_size == 0 and not self._is_initial
        factor = self.gamma if due else 1
        return [lr * factor for lr in _values(self.optimizer, "lr")]

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """The rate is multiplied by `gamma` at each epoch in `milestones`; an epoch that is given twice counts twice."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        factor = 1 if self._is_initial and self.last_epoch else self.gamma ** self.milestones[self.last_epoch]
        return [lr * factor for lr in _values(self.optimizer, "lr")]

    def _get_closed_form_lr(self) -> list[Any]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]


class ConstantLR(LRScheduler):
    """lr = base factor until epoch `total_iters`, then base. ValueError unless 0 <= factor <= 1."""

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5,
                 last_epoch: int = -1) -> None:
        if factor > 1.0 or factor < 0:
            raise ValueError("Constant multiplicative factor expected to be between 0 and 1.")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        factor: float = 1
        if self.last_epoch == 0:
            factor = self.factor
        elif self.last_epoch == self.total_iters and not self._is_initial:
            factor = 1.0 / self.factor
        return [lr * factor for lr in _values(self.optimizer, "lr")]

    def _get_closed_form_lr(self) -> list[Any]:
        factor = 1 if self.last_epoch >= self.total_iters else self.factor
        return [base * factor for base in self.base_lrs]


class LinearLR(LRScheduler):
    """lr = base (start_factor + (end_factor - start_factor) min(epoch, total_iters) / total_iters).

    The factor changes in equal steps over `total_iters` epochs. ValueError unless 0 < start_factor <= 1 and
    0 <= end_factor <= 1.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0,
                 total_iters: int = 5, last_epoch: int = -1) -> None:
        if start_factor > 1.0 or start_factor <= 0:
            raise ValueError("Starting multiplicative factor expected to be greater than 0 and less or equal to 1.")
        if end_factor > 1.0 or end_factor < 0:
            raise ValueError("Ending multiplicative factor expected to be between 0 and 1.")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        rates = _values(self.optimizer, "lr")
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in rates]
        if self._is_initial or self.last_epoch > self.total_iters:
            return rates
        rise = self.end_factor - self.start_factor
        factor = 1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)
        return [lr * factor for lr in rates]

    def _get_closed_form_lr(self) -> list[Any]:
        done = min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * (self.start_factor + (self.end_factor - self.start_factor) * done) for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """lr = base gamma^epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        rates = _values(self.optimizer, "lr")
        return rates if self._is_initial else [lr * self.gamma for lr in rates]

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """lr = base (1 - min(epoch, total_iters) / total_iters)^power"""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        rates = _values(self.optimizer, "lr")
        if self._is_initial or self.last_epoch > self.total_iters:
            return rates
        now, before = (1.0 - epoch / self.total_iters for epoch in (self.last_epoch, self.last_epoch - 1))
        return [lr * (now / before) ** self.power for lr in rates]

    def _get_closed_form_lr(self) -> list[Any]:
        rest = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * rest**self.power for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base - eta_min) (1 + cos(pi epoch / T_max)) / 2

    Loshchilov and Hutter 2017, eq. 5, without restarts: the rate falls to `eta_min` at epoch `T_max`, and rises again
    to `base` over the next `T_max` epochs if the schedule is stepped further.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        rates, epoch, half = _values(self.optimizer, "lr"), self.last_epoch, math.pi / self.T_max
        if self._is_initial:
            return rates
        if self._step_count == 1 and epoch > 0:
            return self._get_closed_form_lr()
        if (epoch - 1 - self.T_max) % (2 * self.T_max) == 0:    # the last rate was eta_min: the ratio below is 0 / 0
            rise = (1 - math.cos(half)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(rates, self.base_lrs, strict=True)]
        ratio = (1 + math.cos(half * epoch)) / (1 + math.cos(half * (epoch - 1)))
        return [ratio * (lr - self.eta_min) + self.eta_min for lr in rates]

    def _get_closed_form_lr(self) -> list[Any]:
        share = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = eta_min + (base - eta_min) (1 + cos(pi T_cur / T_i)) / 2      (Loshchilov and Hutter 2017, eq. 5: SGDR)

    `T_cur` counts the epochs since the last restart, `T_i` is the length of the current cycle: `T_0` at first, then
    T_0 T_mult, T_0 T_mult^2, ... At each restart the rate jumps back to `base`.

    `step(epoch)` takes fractions, so that the rate can change within an epoch:

        for epoch in range(20):
            for i, batch in enumerate(loader):
                train(batch)
                scheduler.step(epoch + i / len(loader))

    ValueError unless `T_0` and `T_mult` are integers of at least 1.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, float | int):
            raise ValueError(f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}")
        self.T_0, self.T_i, self.T_mult, self.eta_min = T_0, T_0, T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        share = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:         # type: ignore[override]
        """Moves to the next epoch, or to `epoch`, which may be a fraction and must not be negative (ValueError)."""
        if epoch is None and (self._is_initial or self.last_epoch < 0):
            epoch = self.last_epoch + 1
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        elif epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:       # no logarithm: rounded down, it can miss the restart
            self.T_i, self.T_cur = self.T_0, epoch
            while self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
        self.last_epoch = math.floor(epoch)
        self._write_rates(self.get_lr)


class CyclicLR(LRScheduler):
    """The rate goes from `base_lr` up to `max_lr` and back, again and again (Smith 2017). Step it after every batch.

    base_lr, max_lr   the ends, a number or one for each group
    step_size_up      the number of batches in which the rate rises
    step_size_down    that in which it falls; None: as many
    mode              how the height of cycle c (1, 2, ...) shrinks: "triangular" not, "triangular2" to 1 / 2^(c - 1),
                      "exp_range" to gamma^epoch
    scale_fn          a function instead of `mode`: of the cycle's number, or with `scale_mode="iterations"` of the
                      epoch's
    cycle_momentum    momentum (or beta1, where the optimiser has betas) goes the other way, from `max_momentum` down to
                      `base_momentum` and back. ValueError if the optimiser has neither.

        scheduler = CyclicLR(optimizer, base_lr=0.001, max_lr=0.1, step_size_up=500)
    """

    def __init__(self, optimizer: Optimizer, base_lr: float | Sequence[float], max_lr: float | Sequence[float],
                 step_size_up: int = 2000, step_size_down: int | None = None, mode: str = "triangular",
                 gamma: float = 1.0, scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.8,
                 max_momentum: float | Sequence[float] = 0.9, last_epoch: int = -1) -> None:
        _is_optimizer(optimizer)
        self.optimizer = optimizer
        base_lrs = _per_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for lr, group in zip(base_lrs, optimizer.param_groups, strict=True):
                _write(group, lr)
        self.max_lrs = _per_group("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        self.mode, self.gamma, self._scale_fn_custom = mode, gamma, scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
                raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")
            self.use_beta1 = "betas" in optimizer.defaults
            self.base_momentums = _per_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = _per_group("max_momentum", optimizer, max_momentum)
            if last_epoch == -1:
                for group, low, high in zip(optimizer.param_groups, self.base_momentums, self.max_momentums,
                                            strict=True):
                    _set_momentum(group, high, self.use_beta1)
                    group["max_momentum"], group["base_momentum"] = high, low
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """The share of the full height in cycle (or epoch) x."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        return {"triangular": 1.0, "triangular2": 1 / 2.0 ** (x - 1), "exp_range": self.gamma**x}[self.mode]

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class. It also writes the momentum."""
        self._check_called_within_step()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums,
                                        strict=True):
                _set_momentum(group, high - (high - low) * height, self.use_beta1)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """As in `LRScheduler`; of `scale_fn`, a callable object gives its attributes, a plain function gives None."""
        state = super().state_dict()
        f = state["_scale_fn_custom"]
        state["_scale_fn_custom"] = None if f is None or isinstance(f, types.FunctionType) else dict(f.__dict__)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_scale_fn_custom"})
        if state_dict["_scale_fn_custom"] is not None:
            self._scale_fn_custom.__dict__.update(state_dict["_scale_fn_custom"])


class OneCycleLR(LRScheduler):
    """One cycle of the rate (Smith and Topin 2018): up from max_lr / div_factor to max_lr, then down to
    max_lr / div_factor / final_div_factor. Step it after every batch.

    max_lr           the largest rate, a number or one for each group
    total_steps      the number of batches in the cycle; else `epochs` times `steps_per_epoch` (ValueError without
                     either)
    pct_start        the share of the cycle in which the rate rises, a float in [0, 1]
    anneal_strategy  "cos" or "linear": how values change between the ends of a phase
    cycle_momentum   momentum (or beta1, where the optimiser has betas) goes the other way: from `max_momentum` down to
                     `base_momentum` while the rate rises, then back. ValueError if the optimiser has neither.
    three_phase      the rate falls to the initial rate in as many steps as it rose, and in a third phase to the last
                     rate

    A step after `total_steps` raises ValueError.

        scheduler = OneCycleLR(optimizer, max_lr=0.01, total_steps=10 * len(loader))
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None,
                 pct_start: float = 0.3, anneal_strategy: str = "cos",
                 cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.85,
                 max_momentum: float | Sequence[float] = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
                 three_phase: bool = False, last_epoch: int = -1) -> None:
        _is_optimizer(optimizer)
        self.optimizer = optimizer

        def positive(name: str, n: Any) -> int:
            if not isinstance(n, int) or n <= 0:
                raise ValueError(f"Expected positive integer {name}, but got {n}")
            return n

        if total_steps is not None:
            self.total_steps = positive("total_steps", total_steps)
        elif epochs is not None and steps_per_epoch is not None:
            self.total_steps = positive("epochs", epochs) * positive("steps_per_epoch", steps_per_epoch)
        else:
            raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        self._anneal_func_type = anneal_strategy

        def phase(end: float, lrs: tuple[str, str], momenta: tuple[str, str]) -> dict[str, Any]:
            return {"end_step": end, "start_lr": lrs[0], "end_lr": lrs[1],
                    "start_momentum": momenta[0], "end_momentum": momenta[1]}

        rise, last = pct_start * self.total_steps, self.total_steps - 1
        self._schedule_phases = [phase(rise - 1, ("initial_lr", "max_lr"), ("max_momentum", "base_momentum"))]
        if three_phase:
            self._schedule_phases += [
                phase(2 * rise - 2, ("max_lr", "initial_lr"), ("base_momentum", "max_momentum")),
                phase(last, ("initial_lr", "min_lr"), ("max_momentum", "max_momentum"))]
        else:
            self._schedule_phases += [phase(last, ("max_lr", "min_lr"), ("base_momentum", "max_momentum"))]

        max_lrs = _per_group("max_lr", optimizer, max_lr)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
                raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")
            self.use_beta1 = "betas" in optimizer.defaults
            high = _per_group("max_momentum", optimizer, max_momentum)
            low = _per_group("base_momentum", optimizer, base_momentum)
        if last_epoch == -1:
            for i, group in enumerate(optimizer.param_groups):
                group["initial_lr"] = max_lrs[i] / div_factor
                group["max_lr"] = max_lrs[i]
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if cycle_momentum:
                    _set_momentum(group, high[i], self.use_beta1)
                    group["max_momentum"], group["base_momentum"] = high[i], low[i]
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
        return (end - start) * share + start

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"Tried to step {step} times. The specified number of total steps is "
                             f"{self.total_steps}")
        start = 0.0
        for phase in self._schedule_phases[:-1]:
            if step <= phase["end_step"]:
                break
            start = phase["end_step"]
        else:
            phase = self._schedule_phases[-1]
        share = (step - start) / (phase["end_step"] - start)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                momentum = self._between(group[phase["start_momentum"]], group[phase["end_momentum"]], share)
                _set_momentum(group, momentum, self.use_beta1)
        return rates


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rate by `factor` when a metric has not improved for more than `patience` epochs.

    mode            "min" or "max": the better metric is smaller, or larger
    factor          below 1, else ValueError
    threshold       a metric improves if it is better than the best one by more than this
    threshold_mode  "rel": a share of the best metric; "abs": a difference
    cooldown        the number of epochs after a reduction in which bad epochs do not count
    min_lr          the smallest rate, a number or one for each group
    eps             a reduction by no more than this is left out

        scheduler = ReduceLROnPlateau(optimizer, patience=5)
        scheduler.step(validation_loss)             # after each epoch
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
                 min_lr: float | Sequence[float] = 0, eps: float = 1e-8) -> None:
        if factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        _is_optimizer(optimizer)
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown!")
        if isinstance(min_lr, list | tuple) and len(min_lr) != len(optimizer.param_groups):
            raise ValueError(f"expected {len(optimizer.param_groups)} min_lrs, got {len(min_lr)}")
        self.factor, self.optimizer, self.patience, self.cooldown, self.eps = factor, optimizer, patience, cooldown, eps
        self.default_min_lr = None if isinstance(min_lr, list | tuple) else min_lr
        self.min_lrs = _per_group("min_lr", optimizer, min_lr)
        self.last_epoch = 0
        self._last_lr = _values(optimizer, "lr")
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self._reset()

    def _reset(self) -> None:
        """Forgets the best metric and the counts."""
        self.best = self.mode_worse = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0

    @property
    def in_cooldown(self) -> bool:
        """Whether bad epochs do not count at the moment, because the rate was reduced lately."""
        return self.cooldown_counter > 0

    def _is_better(self, a: float, best: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        bound = best * (1 - sign * self.threshold) if self.threshold_mode == "rel" else best - sign * self.threshold
        return sign * a < sign * bound

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:       # type: ignore[override]
        """Ends an epoch with this metric, a number or a tensor with one element."""
        current = float(metrics)
        if epoch is not None:
            warn(EPOCH_DEPRECATION_WARNING)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current, self.best):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce_lr()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = _values(self.optimizer, "lr")

    def _reduce_lr(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(f"The optimizer has {len(groups)} param groups, but ReduceLROnPlateau was made with "
                                   f"{len(self.min_lrs)} min_lr: change the `min_lrs` field to match")
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, low in zip(groups, self.min_lrs, strict=True):
            old = float(group["lr"])
            new = max(old * self.factor, low)
            if old - new > self.eps:
                _write(group, new)


def _check_schedules(name: str, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
    """Raises unless there are schedules, all of one optimiser, that step without a metric."""
    for i, s in enumerate(schedulers):
        if not hasattr(s, "optimizer"):
            raise TypeError(f"{name} at index {i} should have `optimizer` as its attribute.")
        if isinstance(s, ReduceLROnPlateau):
            raise ValueError(f"{name} does not support `ReduceLROnPlateau`, whose `step` needs a metric, "
                             f"but got one at index {i}")
        if s.optimizer is not (optimizer or schedulers[0].optimizer):
            raise ValueError(f"{name} expects all schedulers to belong to the same optimizer, but the scheduler "
                             f"{type(s).__name__} at index {i} has another one.")


class _OfSchedules(LRScheduler):
    """A schedule made of others."""

    _schedulers: Sequence[LRScheduler]

    def state_dict(self) -> dict[str, Any]:
        """The attributes of this schedule except the optimiser, and in "_schedulers" the state of each schedule."""
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for s, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            s.load_state_dict(state)


class ChainedScheduler(_OfSchedules):
    """Steps all `schedulers` together: each changes the rate that the one before it left.

    ValueError if there is none, or if one of them is a `ReduceLROnPlateau` or belongs to another optimiser.

        scheduler = ChainedScheduler([ConstantLR(optimizer, 0.1, total_iters=2), ExponentialLR(optimizer, 0.9)])
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if len(schedulers) < 1:
            raise ValueError(f"{type(self).__name__} expects at least one scheduler to be chained, "
                             "but got no scheduler.")
        _check_schedules(type(self).__name__, schedulers, optimizer)
        self._schedulers, self.optimizer = schedulers, optimizer or schedulers[0].optimizer
        self._last_lr = _values(self.optimizer, "lr")

    def _initial_step(self) -> None:
        for s in self._schedulers:
            s._initial_step()
        self._last_lr = _values(self.optimizer, "lr")

    def _update_lr(self, epoch: int | None = 0) -> None:
        """A sequence that holds this one calls it at its milestone, with epoch 0."""
        for group in self.optimizer.param_groups:
            _write(group, group["initial_lr"])
        for s in self._schedulers:
            s.last_epoch = -1
        self._initial_step()

    def step(self) -> None:         # type: ignore[override]
        """Steps all schedules, in their order."""
        for s in self._schedulers:
            s.step()
        self._last_lr = _values(self.optimizer, "lr")


class SequentialLR(_OfSchedules):
    """Runs `schedulers` one after the other. At each epoch in `milestones` the next one begins, from its epoch 0.

    With `last_epoch` it begins as after so many steps; the schedules must be new ones.

    ValueError unless there is one milestone fewer than schedulers, or if one of them is a `ReduceLROnPlateau` or
    belongs to another optimiser.

        warmup = LinearLR(optimizer, 0.1, total_iters=5)
        decay = CosineAnnealingLR(optimizer, T_max=95)
        scheduler = SequentialLR(optimizer, [warmup, decay], milestones=[5])
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int],
                 last_epoch: int = -1) -> None:
        name = type(self).__name__
        if len(schedulers) < 1:
            raise ValueError(f"{name} expects at least one scheduler, but got no scheduler.")
        _check_schedules(name, schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError("Sequential Schedulers expects number of schedulers provided to be one more than the "
                             f"number of milestone points, but got number of schedulers {len(schedulers)} and the "
                             f"number of milestones to be equal to {len(milestones)}")
        self._schedulers, self._milestones, self.optimizer = schedulers, milestones, optimizer
        # Each schedule stepped once when it was made. This takes all those steps back, and steps only the first one.
        for group in optimizer.param_groups:
            _write(group, group["initial_lr"])
        nested: list[Any] = list(schedulers)
        while nested:
            s = nested.pop()
            if hasattr(s, "_schedulers"):
                nested += s._schedulers
            else:
                s.last_epoch -= 1
        self._initial_step()
        called, optimizer._opt_called = optimizer._opt_called, True         # nobody could step it in between
        for _ in range(last_epoch):
            self.step()
        optimizer._opt_called = called

    def _first(self) -> LRScheduler:
        """The schedule of epoch 0."""
        return self._schedulers[bisect_right(self._milestones, 0)]

    def _initial_step(self) -> None:
        self.last_epoch = 0
        self._first()._initial_step()
        self._last_lr = self._first().get_last_lr()

    def _update_lr(self, epoch: int | None = 0) -> None:
        """A sequence that holds this one calls it at its milestone, with epoch 0."""
        self.last_epoch = 0
        self._first()._update_lr(0)
        self._last_lr = self._first().get_last_lr()

    def step(self) -> None:         # type: ignore[override]
        """Moves to the next epoch: steps the schedule that is active there, or begins the next one."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class SWALR(LRScheduler):
    """lr = from the rate of the beginning to `swa_lr` over `anneal_epochs`, then `swa_lr`: for averages of parameters.

    swa_lr              one rate, or a list with one for each group; ValueError for another number
    anneal_strategy     share s of `swa_lr` at epoch t of T: "cos" (1 - cos(pi t / T)) / 2, "linear" t / T

    Izmailov et al. 2018; see `optim.swa_utils`. ValueError for another strategy and for anneal_epochs < 0.
    """

    def __init__(self, optimizer: Optimizer, swa_lr: float | Sequence[float], anneal_epochs: int = 10,
                 anneal_strategy: str = "cos", last_epoch: int = -1) -> None:
        _is_optimizer(optimizer)
        rates = _per_group("swa_lr", optimizer, swa_lr)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self._anneal_strategy, self.anneal_epochs = anneal_strategy, anneal_epochs
        super().__init__(optimizer, last_epoch)

    def anneal_func(self, t: float) -> float:
        """The share of `swa_lr` at t of the epochs, 0 <= t <= 1."""
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> Rates:
        """The rates for `last_epoch`: see the class."""
        self._check_called_within_step()
        epochs = max(1, self.anneal_epochs)
        step = max(self.last_epoch, self.anneal_epochs == 0)
        if self._is_initial and self.last_epoch > 0:
            return _values(self.optimizer, "lr")
        before, now = (self.anneal_func(max(0, min(1, t / epochs))) for t in (step - 1, step))
        rates = []
        for group, lr in zip(self.optimizer.param_groups, _values(self.optimizer, "lr"), strict=True):
            base = group["swa_lr"] if before == 1 else (lr - before * group["swa_lr"]) / (1 - before)
            rates.append(group["swa_lr"] * now + base * (1 - now))
        return rates
