"""What programs import from the modules below `torch.nn.modules` beside the layers: their base classes, and `utils`."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from ..nn import BatchNorm1d, Conv1d, ConvTranspose1d, CrossEntropyLoss, Dropout, InstanceNorm1d, L1Loss, Module
from ..nn.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)

__all__ = ["Module", "register_module_forward_hook", "register_module_forward_pre_hook",
           "register_module_full_backward_hook", "register_module_full_backward_pre_hook"]


def _common(*layers: type) -> type:
    """The class that all of these layers, and no others, have as their base."""
    first, *rest = [layer.__mro__ for layer in layers]
    return next(c for c in first[0 if rest else 1:] if all(c in mro for mro in rest))


register_module_backward_hook = register_module_full_backward_hook
_BatchNorm, _InstanceNorm, _DropoutNd = _common(BatchNorm1d), _common(InstanceNorm1d), _common(Dropout)
_ConvNd = _common(Conv1d, ConvTranspose1d)
_Loss, _WeightedLoss = _common(L1Loss), _common(CrossEntropyLoss)


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """A function that gives an iterable as a tuple, and anything else n times."""
    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))
    parse.__name__ = name
    return parse


_single, _pair, _triple, _quadruple = (_ntuple(n, name) for n, name in enumerate(
    ("_single", "_pair", "_triple", "_quadruple"), 1))
