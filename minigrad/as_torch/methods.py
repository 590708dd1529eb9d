"""Methods of tensors that only old PyTorch programs ask for. `install` puts them on `Tensor`, `uninstall` removes them.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.tensor import Tensor
from .types import TensorType, named_type, type_name

_type = Tensor.type                         # type: ignore[attr-defined]


def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    """`x.type()` is an old name, "torch.FloatTensor"; `x.type(dtype)` converts, to a dtype or one of these names."""
    if dtype is None:
        return type_name(self)
    kind = named_type(dtype) if isinstance(dtype, str) and dtype.startswith("torch.") else dtype
    return self.to(device=kind.device, dtype=kind.dtype) if isinstance(kind, TensorType) else _type(self, kind)


def new(self: Tensor, *data: Any) -> Tensor:
    """A tensor of the same dtype on the same device: of sizes (uninitialised), or of the values of a sequence."""
    if all(isinstance(n, (int, np.integer)) for n in data):
        return self.new_empty(data or (0,))       # type: ignore[attr-defined,no-any-return]
    return self.new_tensor(data[0])         # type: ignore[attr-defined,no-any-return]


def get_device(self: Tensor) -> int:
    """The number of the tensor's GPU, -1 on the CPU."""
    return -1 if self.device.type == "cpu" else int(self.device.index or 0)     # type: ignore[attr-defined]


METHODS: dict[str, Any] = {
    "type": type_, "new": new, "get_device": get_device,
    **dict.fromkeys(("is_meta", "is_mkldnn", "is_mps", "is_quantized", "is_sparse", "is_xpu"), False)}


def put_on() -> None:
    """Gives `Tensor` the methods that it lacks, and another `type`."""
    for name, value in METHODS.items():
        if name == "type" or not hasattr(Tensor, name):
            setattr(Tensor, name, value)


def take_off() -> None:
    """`Tensor` as it was before."""
    for name, value in METHODS.items():
        if Tensor.__dict__.get(name) is value:
            delattr(Tensor, name)
    Tensor.type = _type
