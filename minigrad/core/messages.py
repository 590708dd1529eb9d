"""What users are told of a name that is not there: which one was meant, or that an option of PyTorch's is missing."""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import wraps
from inspect import CO_VARKEYWORDS, unwrap
from typing import Any, TypeVar

import numpy as np

from .out import call_into
from .shape import is_float, left_out
from .tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
NUMPY = {"axis": "dim", "keepdims": "keepdim"}          # NumPy's names, which PyTorch takes for its own
ALSO = {**{name: (ours,) for name, ours in NUMPY.items()}, "input": ("A", "L", "x", "tensor"), "b": ("B",),
        "B": ("input",), "tensor": ("tensor1",), "other": ("tensor2", "B"), "from": ("from_",), "input2": ("tau", "L"),
        "input3": ("other",), "element": ("elements",), "test_element": ("test_elements",),
        **dict.fromkeys(("indices", "sections", "tensor_indices_or_sections"), ("indices_or_sections",))}
OPTIONS = frozenset(("out", "layout", "memory_format", "pin_memory"))      # of PyTorch's functions


def meant(name: str, known: Iterable[str]) -> str:
    """"; did you mean 'dim'?" for the known name that `name` most likely stands for, or nothing.

    One that begins like it, that consists of its initials (`lr` for `learning_rate`), or that is spelled much like it.
    """
    from difflib import get_close_matches  # here: importing it takes longer than importing the rest of this file
    plain = {k.lower().replace("_", ""): k for k in sorted(known, reverse=True) if not k.startswith("_")}
    given = name.lower().replace("_", "")
    initials = "".join([word[:1] for word in name.lower().split("_")])
    near = [k for k in plain if len(k) > 1 and (k == given or k == initials)]
    near += [k for k in sorted(plain, key=len) if len(k) > 2 and (given.startswith(k) or k.startswith(given))]
    near = near[:1] or get_close_matches(given, plain, 1, 0.65)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""


class NoAttribute(AttributeError):
    """The error for a name that a module or an object lacks. The name that was meant is looked up when the text is
    read: `hasattr` costs nothing. It has no object, so that Python adds no suggestion of its own."""

    def __init__(self, what: str, name: str, known: Callable[[], Iterable[str]]) -> None:
        super().__init__(f"{what} has no attribute {name!r}", name=name)
        self.known = known

    def __str__(self) -> str:
        name = str(self.name)
        return self.args[0] + ("" if name.startswith("_") else meant(name, self.known()))

    def __reduce__(self) -> tuple[type[AttributeError], tuple[str]]:
        return AttributeError, (str(self),)


# a traceback shows the name of Python's own error, which is also what `except` clauses are written for
NoAttribute.__module__ = "builtins"
NoAttribute.__name__ = "AttributeError"
NoAttribute.__qualname__ = "AttributeError"


def unexpected(op: str, name: str, value: Any, known: Collection[str]) -> None:
    """Refuses a keyword argument: NotImplementedError for an option of PyTorch's, unless None or False leaves it out;
    TypeError for any other name."""
    if name not in OPTIONS:
        fix = meant(name, known) or f"; it takes {', '.join(known) or 'none'}"
        raise TypeError(f"[{op}] unexpected keyword argument {name!r}{fix}")
    left_out(op, name, value)


def taken(op: str, named: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The keyword arguments that are known; the others are refused by `unexpected`."""
    for name, value in named.items():
        if name not in known:
            unexpected(op, name, value, known)
    return {name: value for name, value in named.items() if name in known}


def one_dtype(input: np.dtype, weight: np.dtype) -> str:
    """What to do where an input has another dtype than the weights of its layer."""
    names = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "bfloat16"}
    fix = f"convert the input with .{names.get(str(weight), 'to')}()"
    return fix + f", or the layer with .{names[str(input)]}()" if is_float(input) and is_float(weight) else fix


def not_a_tensor(op: str, name: str, value: Any) -> TypeError:
    """The error for an argument that must be a Tensor and is something else, with what to do about it."""
    kind = type(value)
    if value is None:
        fix = "does the function or the forward that made it lack its `return`?"
    elif isinstance(value, (tuple, list)) and any(isinstance(v, Tensor) for v in value):
        fix = "take one of its tensors (`out, state = lstm(x)`), or join them with stack() or cat()"
    elif hasattr(value, "parameters"):
        fix = "call the module with its input, or pass one of its parameters"
    else:
        fix = "make one with minigrad.tensor(...)"
    got = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    return TypeError(f"[{op}] {name} must be a Tensor; got {'None' if value is None else got}; {fix}")


def explain_arguments(error: Exception, op: str, function: Callable[..., Any], args: tuple[Any, ...],
                      named: dict[str, Any]) -> None:
    """For a call that raised an AttributeError or TypeError that is not of the house: raises TypeError if an argument
    that is annotated `Tensor` is none."""
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None or str(error).startswith("["):
        return
    names = code.co_varnames[:code.co_argcount]
    names = names[1:] if names[:1] == ("self",) else names
    for name, value in (*zip(names, args, strict=False), *named.items()):
        wanted = function.__annotations__.get(name)
        if wanted in ("Tensor", Tensor) or wanted == "Tensor | None" and value is not None:
            if not isinstance(value, Tensor):
                raise not_a_tensor(op, name, value) from None


def guarded(function: Function, module: str = "", name: str = "") -> Function:
    """The function, which refuses keywords that it does not take by `unexpected`, and says which argument should be a
    Tensor. A call costs 80 ns more, with keywords 200 ns: so much takes a call with a star. The keywords are looked at
    after the function has refused them: other names stand for ours (`ALSO`), and a result is written into `out`. It is
    pickled as `name` of `module`."""
    plain = unwrap(function)
    code = plain.__code__
    if code.co_flags & CO_VARKEYWORDS:          # it takes any keyword, and looks at them itself
        return function
    names = frozenset(known := code.co_varnames[:code.co_argcount + code.co_kwonlyargcount])

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named) if named else function(*args)
        except (AttributeError, NotImplementedError, TypeError) as error:
            if names.issuperset(named):
                explain_arguments(error, function.__name__, plain, args, named)
                raise
        return _respelled(function, known, args, named)
    if module:
        call.__module__, call.__qualname__ = module, name
    return call     # type: ignore[return-value]


def _respelled(function: Callable, known: Collection[str], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """A call of a `guarded` function that has refused its keywords."""
    for other in [n for n in named if n in ALSO and n not in known]:
        for ours in [n for n in ALSO[other] if n in known and n not in named][:1]:
            named[ours] = named.pop(other)
    out = named.pop("out", None) if "out" not in known else None
    named = taken(function.__name__, named, known)
    return guarded(function)(*args, **named) if out is None else call_into(guarded(function), out, args, named)


def is_short(function: Callable[..., Any]) -> bool:
    """Is it too short for the check of `guarded`? Functions of `minigrad` have it all the same, and layers never: they
    call the functions where they are defined. So this decides for methods and for `nn.functional`. Those of a module
    with the name SHORT are."""
    plain: Any = unwrap(function)
    code = plain.__code__
    return "SHORT" in plain.__globals__ or code.co_varnames[:code.co_argcount] == ("input", "inplace")


class Guarded:
    """The base of classes whose constructors refuse unknown keywords by `unexpected`."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        code = getattr(cls.__init__, "__code__", None) if named else None
        if code is not None and not code.co_flags & CO_VARKEYWORDS:
            taken(cls.__name__, named, code.co_varnames[1:code.co_argcount + code.co_kwonlyargcount])
        new: Any = super().__new__
        return new(cls) if new is object.__new__ else new(cls, *args, **named)
