"""Inner names of `torch.optim.optimizer`: optimizers that began as copies of PyTorch's own import them."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ..core.modes import set_grad_enabled
from ..core.shape import default_float
from ..core.tensor import Tensor
from ..optim import Optimizer

DeviceDict = DeviceDtypeDict = dict
_params_doc = _foreach_doc = _fused_doc = _maximize_doc = _capturable_doc = _differentiable_doc = ""


def _use_grad_for_differentiable(func: Callable[..., Any]) -> Callable[..., Any]:
    """A `step` that records only with the option `differentiable`."""
    @wraps(func)
    def step(self: Any, *args: Any, **named: Any) -> Any:
        with set_grad_enabled(bool(self.defaults.get("differentiable"))):
            return func(self, *args, **named)
    return step


def _get_value(x: Any) -> Any:
    """The number."""
    return x.item() if isinstance(x, Tensor) else x


_to_scalar = _get_value


def _stack_if_compiling(x: Any) -> Any:
    """What it is given."""
    return x


def _dispatch_sqrt(x: Any) -> Any:
    """The root of a number or a tensor."""
    return x.sqrt() if isinstance(x, Tensor) else math.sqrt(x)


def _get_scalar_dtype(is_fused: bool | None = None) -> Any:
    """The dtype of `step`."""
    return np.dtype(np.float64 if default_float() == np.float64 and not is_fused else np.float32)


def _default_to_fused_or_foreach(params: Any, differentiable: bool, use_fused: bool = False) -> tuple[bool, bool]:
    """Neither: the plain loop."""
    return False, False


def _disable_dynamo_if_unsupported(single_tensor_fn: Any = None) -> Callable[[Any], Any]:
    """A decorator that gives the function back."""
    return lambda function: function


def _get_capturable_supported_devices(supports_xla: bool = True) -> list[str]:
    """The devices whose steps are captured."""
    return ["cuda"]


def _view_as_real(params: Any, *state_and_grads: Any) -> None:
    """Nothing: there are no complex parameters."""


_device_dtype_check_for_fused = _view_as_real


def _grouped(tensorlistlist: Sequence[Sequence[Any]], with_indices: bool = False) -> dict[Any, Any]:
    """{(device, dtype) of the first list's tensors: ([the lists' entries at those places], [the places])};
    a list may be empty."""
    found: dict[Any, list[int]] = {}
    for i, t in enumerate(tensorlistlist[0]):
        found.setdefault((t.device, t.dtype), []).append(i)
    return {key: ([[entries[i] for i in at] if entries else [] for entries in tensorlistlist], at)
            for key, at in found.items()}


# what these call of `Optimizer`
Optimizer._group_tensors_by_device_and_dtype = staticmethod(_grouped)               # type: ignore[attr-defined]
Optimizer._cuda_graph_capture_health_check = lambda self: None                      # type: ignore[attr-defined]
