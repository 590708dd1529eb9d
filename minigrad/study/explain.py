"""`study.explain`: which path an op or each layer of a model takes, and why. `study.launches`: what a call launches."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from ..core.display import brief
from ..core.shape import fail
from ..core.table import Shown, Table, duration
from ..core.tensor import Tensor
from ..devices.base import split
from ..nn.module import Module
from .record import Launch, Record
from .trace import shapes

_SMALL = 256        # bytes: a copy of less is one of a counter or a state
_NONE = "no fused kernel is defined"        # the reason that `core/op.py` gives: then the definition is no fallback


@overload
def explain(op: Module, *args: Any, **attrs: Any) -> Explanation: ...
@overload
def explain(op: Any, *args: Any, **attrs: Any) -> str: ...
def explain(op: Any, *args: Any, **attrs: Any) -> str | Explanation:
    """Runs `op(*args, **attrs)` and says which path it took (fused kernel, definition or NumPy), why, and what it
    launched; of a function that calls several ops, the path of each. Of a model, it says so for each call of an op in
    each layer, and marks copies and fallbacks.

    A model is called once, as it is: in training mode its running statistics move.

    >>> from minigrad.ops.norm import layer_norm
    >>> print(study.explain(layer_norm, x, w, b, normalized_shape=(512,)))
    layer_norm(float32[64, 512], float32[512], float32[512]): fused kernel on cpu
      launches layer_norm_forward_f32
    >>> print(study.explain(model, x))
    """
    if isinstance(op, Module):
        return Explanation(op, args, attrs)
    if not callable(op):
        fail("explain", "it takes a model, an op or a function, then its arguments", type(op).__name__,
             "for example explain(model, x)", TypeError)
    with Record() as record:
        op(*args, **attrs)
    calls = {x.call: x for x in record.launches}            # the last launch of each call
    paths = dict.fromkeys((x.op, x.why) for x in calls.values())
    why = next(iter(paths))[1] if len(paths) == 1 else "no kernel runs" if not paths else (
        f"a function of other ops; {', '.join(f'{name}: {why}' for name, why in paths)}")
    called = ", ".join([*map(brief, args), *[f"{n}={brief(v)}" for n, v in attrs.items() if isinstance(v, Tensor)]])
    seen = _counted([x.kernel for x in record.launches]) or "nothing: a view"
    return f"{getattr(op, 'name', getattr(op, '__name__', str(op)))}({called}): {why}\n  launches {seen}"


def launches(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    """Runs `function(*args, **kwargs)` and returns the names of the kernels it launched, in order.

    A computation by NumPy is listed as "NumPy" and the name of its function.

    >>> study.launches(lambda: x + y)
    ['add_f32']
    """
    if not callable(function):
        fail("launches", "it takes a function, then its arguments", type(function).__name__,
             "for example launches(lambda: x + y)", TypeError)
    with Record() as record:
        function(*args, **kwargs)
    return [x.kernel for x in record.launches]


def _counted(names: list[str]) -> str:
    """ "copy_i32, mul_f32 x3" """
    counts = dict.fromkeys(names, 0)
    for name in names:
        counts[name] += 1
    return ", ".join(k if n == 1 else f"{k} x{n}" for k, n in counts.items())


class Explanation(Shown):
    """The calls of ops in one forward pass of a model: `calls`, each a list of launches. The table is wider than asked
    for where a reason needs it: the path is not shortened."""

    def __init__(self, model: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with Record() as record:
            model(*args, **kwargs)
        groups: dict[int, list[Launch]] = {}
        for x in record.launches:
            groups.setdefault(x.call, []).append(x)
        self.calls = list(groups.values())
        self.types = {path: type(module).__name__ for path, module in model.named_modules()}
        ran = {_inner(x.module) for x in record.launches}
        parents = {path.rpartition(".")[0] for path in self.types}
        self.silent = [path for path in self.types if path not in ran and path not in parents and path]

    def as_table(self) -> Table:
        """A line for each call; those with a copy, or with another path than their kernels, are marked."""
        rows, marked = [], []
        for i, call in enumerate(self.calls):
            first = call[0]
            path, trouble = _inner(first.module), _trouble(call)
            rows.append([path, self.types.get(path, ""), first.op, shapes(call[-1].operands), trouble or call[-1].why,
                         _counted([x.kernel for x in call]), duration(sum(x.time for x in call))])
            marked += [i] if trouble else []
        rows += [[path, self.types[path], "", "", "no launch", "", ""] for path in self.silent]
        notes = [f"! {len(marked)} of {len(self.calls)} calls copy, or do not run their kernels"] if marked else [
            f"all {len(self.calls)} calls run their kernels, without a copy"]
        notes += ["no launch: only views, or not called"] if self.silent else []
        return Table(["layer", "type", "op", "shapes", "path", "launches", "time"], rows, numbers=("time",),
                     cut=("launches", "shapes", "layer", "type", "op"), notes=notes, marked=marked,
                     spare=("time",))


def _inner(module: str) -> str:
    """The path within the model: without the model's own name."""
    return module.partition(".")[2]


def _trouble(call: list[Launch]) -> str:
    """What slows a call down: NumPy, a definition in the place of kernels, copies; "" if nothing does."""
    by_numpy = [x.kernel for x in call if x.kernel.startswith("NumPy")]
    if by_numpy:
        return f"{by_numpy[0]} runs: no kernel"
    why = call[-1].why                          # before its first launches, an op may not have decided
    if why.startswith("definition") and _NONE not in why:
        return why
    copies = sum(split(x.kernel)[0] == "copy" and x.nbytes >= _SMALL for x in call)
    if copies and why.startswith("fused"):
        return f"{'a copy' if copies == 1 else f'{copies} copies'}, then {why}"
    return "a copy" if copies == len(call) else ""
