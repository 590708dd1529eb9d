"""PyTorch's names for training on several devices. A process uses one device here: the module runs as it is."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.warning import warn
from .module import Module

__all__ = ["DataParallel", "data_parallel"]


def _one_device(device_ids: Sequence[Any] | None) -> None:
    if device_ids is not None and len(device_ids) > 1:
        warn(f"DataParallel runs the whole batch on the device of the module, not on the devices {list(device_ids)}")


class DataParallel(Module):
    """Runs `module` (an attribute, so that names in a state dict begin with "module.") on the device it is on.

    `device_ids` with more than one device warns: the batch is not split. `output_device` and `dim` are without effect.
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        _one_device(device_ids)
        self.module, self.dim, self.device_ids = module, dim, [] if device_ids is None else list(device_ids)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What `module` gives."""
        return self.module(*inputs, **kwargs)


def data_parallel(module: Module, inputs: Any, device_ids: Sequence[Any] | None = None, output_device: Any = None,
                  dim: int = 0, module_kwargs: dict[str, Any] | None = None) -> Any:
    """`module(*inputs, **module_kwargs)`; `inputs` is a tuple, or one input. Other arguments: see `DataParallel`."""
    _one_device(device_ids)
    return module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(module_kwargs or {}))
