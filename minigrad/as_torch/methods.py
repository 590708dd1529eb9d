"""Methods of tensors that only old PyTorch programs ask for. `install` puts them on `Tensor`, `uninstall` removes them.
"""
from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor
from .types import TensorType, named_type, type_name

# what is replaced: their arguments have other names or meanings in PyTorch
_MODULE = Tensor.__module__
_BEFORE: dict[str, Any] = {name: getattr(Tensor, name) for name in ("type",)}


def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    """`x.type()` is an old name, "torch.FloatTensor"; `x.type(dtype)` converts, to a dtype or one of these names."""
    if dtype is None:
        return type_name(self)
    kind = named_type(dtype) if isinstance(dtype, str) and dtype.startswith("torch.") else dtype
    if isinstance(kind, TensorType):
        return self.to(device=kind.device, dtype=kind.dtype)
    return _BEFORE["type"](self, kind)


def get_device(self: Tensor) -> int:
    """The number of the tensor's GPU, -1 on the CPU."""
    return -1 if self.device.type == "cpu" else int(self.device.index or 0)     # type: ignore[attr-defined]


def to_dense(self: Tensor, dtype: Any = None) -> Tensor:
    """The tensor itself, or in another dtype."""
    return self if dtype is None else self.to(dtype=dtype)


def coalesce(self: Tensor) -> Tensor:
    """The tensor itself."""
    return self


def new_empty_strided(self: Tensor, size: Any, stride: Any, dtype: Any = None, device: Any = None,
                      requires_grad: bool = False, **ignored: Any) -> Tensor:
    """`empty_strided` of the tensor's dtype and device."""
    from .aten import empty_strided
    return empty_strided(size, stride, dtype=dtype or self.dtype, device=device or self.device,
                         requires_grad=requires_grad)


METHODS: dict[str, Any] = {
    "new_empty_strided": new_empty_strided, "__rdiv__": Tensor.__rtruediv__,        # type: ignore[attr-defined]
    "type": type_, "to_dense": to_dense, "coalesce": coalesce, "get_device": get_device,
    **dict.fromkeys(("is_meta", "is_mkldnn", "is_mps", "is_quantized", "is_sparse", "is_xpu"), False)}


def put_on() -> None:
    """Gives `Tensor` the methods that it lacks, and others in the place of those in `_BEFORE`. Its class is called
    `torch.Tensor`: so other packages know a tensor."""
    Tensor.__module__ = "torch"
    for name, value in METHODS.items():
        if name in _BEFORE or not hasattr(Tensor, name):
            setattr(Tensor, name, value)


def take_off() -> None:
    """`Tensor` as it was before."""
    for name, value in METHODS.items():
        if Tensor.__dict__.get(name) is value:
            delattr(Tensor, name)
    for name, value in _BEFORE.items():
        setattr(Tensor, name, value)
    Tensor.__module__ = _MODULE
