"""`torch.library`, `torch.ops`, `torch._C`: PyTorch's registry of ops. Those of Python functions run. Compiled ones
cannot be registered or loaded: what registers them goes on, as on a machine where its library is missing."""
from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from types import SimpleNamespace
from typing import Any, NoReturn

from ..autograd import Function
from ..core.modes import no_grad
from ..devices import open_device
from ..linalg import LinAlgError as _LinAlgError  # noqa: F401 (programs import it from here)
from ..nn.module import target_of
from .refused import refused

_OPS: dict[str, CustomOpDef] = {}
_SPACES: dict[str, SimpleNamespace] = {}


class CustomOpDef:
    """An op: an `autograd.Function`, or, where it changes arguments, a function outside the graph."""

    def __init__(self, function: Callable[..., Any], mutates: bool) -> None:
        self._function, self._mutates = function, mutates
        self.register_autograd(Function.backward)

    def __call__(self, *args: Any, **named: Any) -> Any:
        given = signature(self._function).bind(*args, **named)
        given.apply_defaults()
        if not self._mutates:
            return self._op.apply(*given.args, **given.kwargs)
        with no_grad():
            return self._function(*given.args, **given.kwargs)

    def register_autograd(self, backward: Any, /, *, setup_context: Any = None) -> None:
        """Gives it a derivative, as `Function` has it."""
        names = {"forward": self._function, "backward": backward, "setup_context": setup_context or (lambda *_: None)}
        self._op: Any = type(self._function.__name__, (Function,), {k: staticmethod(f) for k, f in names.items()})

    def register_fake(self, function: Any, /) -> Any:
        """The function itself: nothing is traced."""
        return function


def custom_op(name: str, fn: Any = None, /, *, mutates_args: Any, **options: Any) -> Any:
    """An op of a Python function, `torch.ops.name` too; also as a decorator."""
    if fn is None:
        return lambda function: custom_op(name, function, mutates_args=mutates_args)
    space, _, own = name.partition("::")
    made = _OPS[name] = CustomOpDef(fn, bool(mutates_args))
    setattr(_SPACES.setdefault(space, SimpleNamespace()), own, made)
    return made


def register_autograd(op: Any, backward: Any, /, *, setup_context: Any = None, **named: Any) -> None:
    """Gives an op or that of a name its derivative, if it is here."""
    op = _OPS.get(op, op) if isinstance(op, str) else op
    if isinstance(op, CustomOpDef):
        op.register_autograd(backward, setup_context=setup_context)


def opcheck(op: Any, args: Any, kwargs: Any = None, **options: Any) -> dict[str, str]:
    """Runs the op."""
    op(*args, **kwargs or {})
    return {}


def __getattr__(name: str) -> Any:
    """The ops under a name before "::", and classes of PyTorch's C++ (`torch._C.Value`), which programs import for
    annotations."""
    if name in _SPACES:
        return _SPACES[name]
    if name == "ops":                                   # of torch._ops
        return import_module("torch.ops")
    if name.startswith("_jit_") or name == "_get_tracing_state":
        return _log_api_usage_once                      # None: nothing is traced, and fuses or profiles
    if name[:1].isupper():
        return refused(name, "minigrad has no classes of PyTorch's C++")
    raise AttributeError(name)


def _parse_to(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """(device, dtype, non_blocking, memory_format) of the arguments of `Module.to`, None for what is not given."""
    flag = next((v for v in (*args, kwargs.get("non_blocking")) if isinstance(v, bool)), False)
    device, dtype = target_of(*args, **kwargs)
    return device if device is None else open_device(device), dtype, flag, kwargs.get("memory_format")


has_lapack = True


def load_library(path: str) -> NoReturn:
    """OSError: the library was compiled for PyTorch."""
    raise OSError(f"{path} was compiled for PyTorch, and minigrad cannot load it")


def register_fake(op: Any, func: Any = None, /, **named: Any) -> Any:
    """The function itself; also as a decorator."""
    return (lambda function: function) if func is None else func


impl = register_kernel = register_vmap = impl_abstract = register_fake


def _log_api_usage_once(*given: Any) -> None:
    """Nothing: no use is logged."""
