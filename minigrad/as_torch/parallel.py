"""`torch.nn.parallel`: `DataParallel` on one device; several processes are refused."""
from __future__ import annotations

from typing import Any

from ..nn import Module
from .names import REFUSED
from .refused import refused

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]

DistributedDataParallel = refused("torch.nn.parallel.DistributedDataParallel", REFUSED["torch.distributed"])


class DataParallel(Module):
    """A module around `module` that calls it on the device where it is: one device, whatever `device_ids` says."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.module = module
        self.dim, self.output_device = dim, output_device
        self.device_ids: list[int] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module gives."""
        return self.module(*inputs, **kwargs)


def data_parallel(module: Module, inputs: Any, device_ids: Any = None, output_device: Any = None, dim: int = 0,
                  module_kwargs: dict[str, Any] | None = None) -> Any:
    """What the module gives for `inputs`, a tensor or a tuple of them."""
    return module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(module_kwargs or {}))
