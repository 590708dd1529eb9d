"""`torch.cuda` beside `minigrad.cuda`: old names of tensors."""
from __future__ import annotations

from .types import TensorType, tensor_type


def __getattr__(name: str) -> TensorType:
    """`FloatTensor` and the like, on a GPU."""
    return tensor_type(name, "cuda")


def init() -> None:
    """Nothing: a GPU is opened when it is first used."""


def is_initialized() -> bool:
    """True where there is a GPU."""
    from ..cuda import is_available
    return is_available()


def ipc_collect() -> None:
    """Nothing: minigrad shares no memory between processes."""
