"""The old names of tensors by dtype and device: `torch.FloatTensor(2, 3)`, `x.type(torch.LongTensor)`,
`isinstance(x, torch.cuda.FloatTensor)`."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.tensor import Size, Tensor
from ..ops.creation import as_tensor, empty

_DTYPES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Byte": "uint8",
           "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Bool": "bool"}
_WORDS = {dtype: word for word, dtype in _DTYPES.items()}


class TensorType(type):
    """The class of these names: tensors of that dtype on that device are their instances, and a call makes one."""

    dtype: np.dtype
    device: str

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Tensor) and value.dtype == cls.dtype and value.device.type == cls.device

    def __call__(cls, *data: Any) -> Tensor:
        """Of sizes or a shape: uninitialised. Of a sequence, an array or a tensor: the values."""
        if all(isinstance(n, (int, np.integer, Size)) for n in data):
            return empty(*data or (0,), dtype=cls.dtype, device=cls.device)
        return as_tensor(data[0], dtype=cls.dtype, device=cls.device)


def _made(word: str, device: str) -> TensorType:
    name = f"torch.{'' if device == 'cpu' else device + '.'}{word}Tensor"
    if word == "BFloat16":
        import ml_dtypes  # noqa: F401 (registers the dtype with NumPy)
    return TensorType(name, (), {"dtype": np.dtype(_DTYPES[word]), "device": device})


_MADE: dict[tuple[str, str], TensorType] = {}


def tensor_type(name: str, device: str) -> TensorType:
    """The class of a name such as "FloatTensor". AttributeError for other names."""
    word = name.removesuffix("Tensor")
    if word not in _DTYPES or word == name:
        raise AttributeError(name)
    found = _MADE.get((word, device))
    if found is None:
        found = _MADE[word, device] = _made(word, device)
    return found


def type_name(input: Tensor) -> str:
    """What PyTorch's `x.type()` says: "torch.FloatTensor", "torch.cuda.LongTensor"."""
    device = "" if input.device.type == "cpu" else input.device.type + "."
    return f"torch.{device}{_WORDS.get(str(input.dtype), str(input.dtype))}Tensor"


def named_type(name: str) -> TensorType:
    """The class of a full name, "torch.cuda.FloatTensor". ValueError for other names."""
    parts = name.split(".")
    if parts[0] != "torch" or len(parts) not in (2, 3):
        raise ValueError(f"[type] a type is 'torch.FloatTensor' or the like; got {name!r}; use a dtype")
    try:
        return tensor_type(parts[-1], parts[1] if len(parts) == 3 else "cpu")
    except AttributeError:
        raise ValueError(f"[type] there is no type {name!r}; use a dtype") from None
