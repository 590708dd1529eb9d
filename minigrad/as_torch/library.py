"""`torch.library`, `torch.ops`, `torch._C`: PyTorch's registry of compiled ops. Nothing can be registered or loaded
here: what registers an op goes on without it, as on a machine where its library is missing."""
from __future__ import annotations

from typing import Any, NoReturn

from .refused import refused


def __getattr__(name: str) -> Any:
    """Classes of PyTorch's C++ (`torch._C.Value`), which programs import for annotations."""
    if name[:1].isupper():
        return refused(name, "minigrad has no classes of PyTorch's C++")
    raise AttributeError(name)


def load_library(path: str) -> NoReturn:
    """OSError: the library was compiled for PyTorch."""
    raise OSError(f"{path} was compiled for PyTorch, and minigrad cannot load it")


def register_fake(op: Any, func: Any = None, /, **named: Any) -> Any:
    """The function itself; also as a decorator."""
    return (lambda function: function) if func is None else func


impl = register_autograd = register_kernel = register_vmap = impl_abstract = register_fake


def _log_api_usage_once(event: str) -> None:
    """Nothing: no use is logged."""
