"""Gradients as functions, functions with their own backward, and checks of derivatives and values."""
from __future__ import annotations

from typing import Any

from ..core import engine
from ..core.engine import grad
from ..core.tape import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from ..core.tensor import Tensor
from . import function, functional
from .anomaly import detect_anomaly, is_anomaly_check_nan_enabled, is_anomaly_enabled, set_detect_anomaly
from .checking import GradcheckError, gradcheck, gradgradcheck
from .function import Function

__all__ = ["Function", "GradcheckError", "backward", "detect_anomaly", "enable_grad", "function", "functional", "grad", "gradcheck",
           "gradgradcheck", "inference_mode", "is_anomaly_check_nan_enabled", "is_anomaly_enabled", "is_grad_enabled", "no_grad",
           "set_detect_anomaly", "set_grad_enabled"]


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
             inputs: Any = None) -> None:
    """Adds the gradients of several tensors to `.grad` of the leaves behind them."""
    if create_graph:
        raise RuntimeError("[autograd.backward] backward() never builds a graph; got create_graph=True; "
                           "use autograd.grad(..., create_graph=True)")
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [None] * len(roots) if grad_tensors is None else [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors)
    engine.backward(roots, given, bool(retain_graph), [inputs] if isinstance(inputs, Tensor) else inputs)
