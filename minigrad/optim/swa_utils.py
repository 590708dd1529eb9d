"""Averages of a model's parameters over its training, with the names of `torch.optim.swa_utils`.

The mean over the last epochs (SWA: Izmailov et al. 2018), or an exponential moving average (EMA: Polyak and Juditsky
1992, with a decay), often generalizes better than the last parameters.

    average, schedule = AveragedModel(model), SWALR(optimizer, swa_lr=0.05)
    for epoch in range(300):
        train(...)                                  # calls optimizer.step()
        if epoch >= 160:
            average.update_parameters(model)
            schedule.step()
    update_bn(loader, average)
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

from ..core.modes import mode, no_grad
from ..core.tensor import Tensor
from ..nn.arguments import DeviceLike
from ..nn.module import Module
from ..nn.norm import BatchNorm
from ..ops.creation import tensor
from ..ops.formula import lerp
from ..ops.math import where
from .lr_scheduler import SWALR

__all__ = ["AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
           "update_bn"]

Average: TypeAlias = Callable[[Tensor, Tensor, Any], Tensor]
Averages: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]


def _moved(average: Tensor, current: Tensor, move: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    with no_grad():
        if average.is_floating_point():
            return move(average, current)
        return move(average.double(), current.double())         # exact to 2^53


def _pairs(olds: Iterable[Tensor], news: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    olds, news = list(olds), list(news)
    got, own = [[tuple(t.shape) for t in part] for part in (news, olds)]
    if got != own:
        raise ValueError(f"[AveragedModel] the shapes must be those of the average; got {got} for {own}; "
                         "make one of this model")
    return list(zip(olds, news, strict=True))


def _of_lists(average: Average) -> Averages:
    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], num_averaged: Any) -> None:
        with no_grad():
            for old, new in zip(averages, currents, strict=True):
                old.copy_(average(old, new, num_averaged))
    return update


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """(average, current, count) -> decay average + (1 - decay) current. ValueError unless 0 <= decay <= 1."""
    if not 0 <= decay <= 1:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")
    return lambda average, current, num_averaged: _moved(average, current, lambda a, b: lerp(a, b, 1 - decay))


def get_swa_avg_fn() -> Average:
    """(average, current, count) -> average + (current - average) / (count + 1)"""
    return lambda average, current, num_averaged: _moved(
        average, current, lambda a, b: a + (b - a) / (num_averaged + 1))


def get_ema_multi_avg_fn(decay: float = 0.999) -> Averages:
    """`get_ema_avg_fn` for lists; changes the first one's tensors."""
    return _of_lists(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Averages:
    """`get_swa_avg_fn` for lists; changes the first one's tensors."""
    return _of_lists(get_swa_avg_fn())


class AveragedModel(Module):
    """A copy of `model` whose parameters are the average of those that `update_parameters` has seen.

    device          where the copy lies (None: where `model` lies)
    avg_fn          gives the new average of one tensor (None: `get_swa_avg_fn()`)
    multi_avg_fn    the same for all tensors of a device and dtype. AssertionError for both
    use_buffers     are buffers averaged (whole numbers cut), or copied from the model?

    `n_averaged` counts the updates; the first one copies. The functions are not in the state dict.

        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
        average.update_parameters(model)
        average(x)                                  # calls average.module
    """

    n_averaged: Tensor

    def __init__(self, model: Module, device: DeviceLike = None, avg_fn: Average | None = None,
                 multi_avg_fn: Averages | None = None, use_buffers: bool = False) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, device=device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model of the arguments."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Moves the average to the parameters of `model`. ValueError if theirs are other shapes.

        A captured step computes the average at the first update too, then copies.
        """
        update = self.multi_avg_fn or _of_lists(self.avg_fn or get_swa_avg_fn())
        copied = _pairs(self.module.buffers(), model.buffers())
        averaged = _pairs(self.module.parameters(), model.parameters())
        if self.use_buffers:
            averaged, copied = averaged + copied, []
        captured = mode.recorder is not None        # a replay cannot read whether this is the first update
        if not captured and not self.n_averaged:
            averaged, copied = [], averaged + copied
        groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        for old, new in averaged:
            olds, news = groups.setdefault((old.device, old.dtype), ([], []))
            olds.append(old.detach())
            news.append(new.detach().to(old.device))
        with no_grad():
            for (device, _), lists in groups.items():
                count = self.n_averaged.to(device)
                update(*lists, count)
                if captured:
                    for old, new in zip(*lists, strict=True):
                        old.copy_(where(count == 0, new, old))
            for old, new in copied:
                old.copy_(new)
            self.n_averaged.add_(1)


def update_bn(loader: Iterable[Any], model: Module, device: DeviceLike = None) -> None:
    """Computes the running statistics of the batch norms of `model` anew: the means over the batches of `loader`.

    A batch is the model's argument, or a list or tuple that begins with it, and is moved to `device` if one is given.
    Modes (train, eval) and momentum are as before afterwards.
    """
    momenta = {module: module.momentum for module in model.modules() if isinstance(module, BatchNorm)}
    if not momenta:
        return
    modes = {module: module.training for module in model.modules()}
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None                        # the mean of all batches
    try:
        model.train()
        with no_grad():
            for batch in loader:
                input = batch[0] if isinstance(batch, list | tuple) else batch
                model(input if device is None else input.to(device))
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
