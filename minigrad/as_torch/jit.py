"""`torch.jit`, `torch.compile`, `torch.compiler`: minigrad runs a program as it is written, so all of them give back
what they get. `minigrad.capture` records a training step and replays it."""
from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeVar

from ..core.shape import fail
from ..core.warning import warn
from ..nn import Module

__all__ = ["Final", "ScriptFunction", "ScriptModule", "TracerWarning", "annotate", "compile", "disable", "export",
           "freeze", "ignore", "is_compiling", "is_dynamo_compiling", "is_scripting", "is_tracing", "load",
           "optimize_for_inference", "reset", "save", "script", "script_method", "trace", "trace_module", "unused"]

Function = TypeVar("Function", bound=Callable[..., Any])
BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list


class _Options:
    """Options of `torch._dynamo` and `torch._inductor`: what is set there has no effect. One that is read before is
    false, and has options of its own (`config.triton.cudagraphs = True`)."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, _Options())
        return getattr(self, name)

    def __bool__(self) -> bool:
        return False

    def patch(self, *options: Any, **named: Any) -> Any:
        """A block or decorator that changes nothing."""
        return contextmanager(lambda: (None for _ in "1"))()


config = triton = cpp = _Options()            # the last two and `patch`: of the module `torch._inductor.config`
patch = config.patch


class ScriptModule(Module):
    """A module. `script` makes none: it gives back what it gets."""


class ScriptFunction:
    """What `script` would make of a function. It makes none."""


class OptimizedModule(Module):
    """What `compile` would make of a module. It makes none."""


class Unsupported(RuntimeError):
    """What `torch._dynamo` would raise. It compiles nothing."""


class TracerWarning(Warning):
    """What `trace` would warn of. It traces nothing."""


def compile(model: Any = None, **options: Any) -> Any:
    """The model or function itself; also as a decorator, with or without options."""
    return (lambda function: function) if model is None else model


def script(obj: Any, *args: Any, **named: Any) -> Any:
    """The module or function itself, with a warning."""
    warn("[jit.script] gives back what it gets: minigrad runs the program as it is written")
    return obj


def trace(func: Any, example_inputs: Any = None, *args: Any, **named: Any) -> Any:
    """The module or function itself, with a warning."""
    warn("[jit.trace] gives back what it gets: minigrad runs the program as it is written")
    return func


trace_module = trace


def save(m: Any, f: Any, *args: Any, **named: Any) -> None:
    """NotImplementedError: there is no program to save."""
    fail("jit.save", "programs are not saved", "", "save the state dict with torch.save", NotImplementedError)


def load(f: Any, *args: Any, **named: Any) -> Any:
    """NotImplementedError: there is no program to load."""
    fail("jit.load", "TorchScript files hold a program, which minigrad does not read", "",
         "make the module, and load its state dict", NotImplementedError)


def export(fn: Function) -> Function:
    """The function itself."""
    return fn


script_method = unused = allow_in_graph = assume_constant_result = _overload_method = export
script_if_tracing = _script_if_tracing = export


def ignore(drop: Any = False, **named: Any) -> Any:
    """The function itself; also with arguments."""
    return drop if callable(drop) else lambda function: function


def disable(fn: Any = None, recursive: bool = True) -> Any:
    """The function itself; also with arguments."""
    return ignore(fn)


def freeze(mod: Module, *args: Any, **named: Any) -> Module:
    """The module itself."""
    return mod


optimize_for_inference = freeze


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value."""
    return the_value


def is_scripting() -> bool:
    """False."""
    return False


def is_compile_supported(device_type: str) -> bool:
    """False."""
    return False


is_tracing = is_compiling = is_dynamo_compiling = is_exporting = is_scripting


def fuser(name: str) -> Any:
    """A `with` block that changes nothing."""
    return nullcontext()


def reset() -> None:
    """Nothing was compiled."""


TransformGetItemToIndex = nullcontext                   # of torch._dynamo: a 0-d tensor is an index as it is
