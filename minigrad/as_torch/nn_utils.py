"""`torch.nn.utils` beside `minigrad.nn.utils`: names from before functions that write ended in `_`."""
from __future__ import annotations

from typing import Any

from ..nn import UninitializedBuffer, UninitializedParameter, utils
from .renamed import renamed


def skip_init(module_cls: Any, *args: Any, **kwargs: Any) -> Any:
    """The module, with its usual values: they are what nobody may rely on."""
    return module_cls(*args, **kwargs)


def is_lazy(param: Any) -> bool:
    """Does the parameter wait for its shape?"""
    return isinstance(param, (UninitializedBuffer, UninitializedParameter))


_NEW = {"clip_grad_norm": "clip_grad_norm_", "clip_grad_value": "clip_grad_value_"}


def __getattr__(name: str) -> Any:
    """The functions that were renamed."""
    return renamed(utils, name, _NEW.get(name, ""))
