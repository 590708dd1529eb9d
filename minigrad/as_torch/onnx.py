"""`torch.onnx`: nothing is written; how ops are to be written can be told all the same."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_in_onnx_export() -> bool:
    """False."""
    return False


def parse_args(*arg_descriptors: str) -> Callable[[Any], Any]:
    """A decorator that gives the function back."""
    return lambda function: function


def register_custom_op_symbolic(symbolic_name: str, symbolic_fn: Any, opset_version: int) -> None:
    """Nothing: no graph is written."""
