"""`study.explain`: which path an op or each layer of a model takes, and why. `study.launches`: what a call launches."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from ..core.op import Op, Primitive, complete
from ..core.tensor import Tensor
from ..devices.base import split
from ..nn.module import Module
from .record import Launch, Record
from .table import Shown, Table, duration
from .trace import shapes

_SMALL = 256        # bytes: a copy of less is one of a counter or a state
_NONE = "no fused kernel is defined"        # the reason that `core/op.py` gives: then the definition is no fallback


@overload
def explain(op: Module, *args: Any, **attrs: Any) -> Explanation: ...
@overload
def explain(op: Any, *args: Any, **attrs: Any) -> str: ...
def explain(op: Any, *args: Any, **attrs: Any) -> str | Explanation:
    """Runs `op(*args, **attrs)` and says which path it took (fused kernel, definition or NumPy), why, and what it
    launched. Of a model, it says so for each call of an op in each layer, and marks copies and fallbacks.

    A model is called once, as it is: in training mode its running statistics move.

    >>> from minigrad.ops.norm import layer_norm
    >>> print(study.explain(layer_norm, x, w, b, normalized_shape=(512,)))
    layer_norm(float32[64, 512], float32[512], float32[512]): fused kernel on cpu
      launches layer_norm_forward_f32
    >>> print(study.explain(model, x))
    """
    if isinstance(op, Module):
        return Explanation(op, args, attrs)
    name = getattr(op, "name", getattr(op, "__name__", str(op)))
    seen = launches(op, *args, **attrs)
    called = ", ".join(repr(a.array.layout) if isinstance(a, Tensor) else repr(a) for a in args)
    why = "a function of other ops"
    found = getattr(op, "op", op)
    if isinstance(found, Op):
        attrs = {**dict(zip(found.attributes, args[len(found.inputs):], strict=False)), **attrs}    # of an activation
        plan = found.plan(args[:len(found.inputs)], attrs)
        why = "the definition runs"
        if plan is not None:
            why = f"{why}: {plan}" if isinstance(plan, str) else plan.why
    elif isinstance(found, Primitive):
        full = complete(found.name, found.attributes, found.defaults, attrs)
        layouts = [a.array.layout for a in args if isinstance(a, Tensor)]
        known = found.plans.get((*layouts, *[full[n] for n in found.attributes]))
        why = known.why if known is not None and known.why else "primitive"
    return f"{name}({called}): {why}\n  launches {_counted(seen) or 'nothing: a view'}"


def launches(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    """Runs `function(*args, **kwargs)` and returns the names of the kernels it launched, in order.

    A computation by NumPy is listed as "NumPy" and the name of its function.

    >>> study.launches(lambda: x + y)
    ['add_f32']
    """
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
    """The calls of ops in one forward pass of a model: `calls`, each a list of launches."""

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
            rows.append([path, self.types.get(path, ""), first.op, shapes(call[-1].operands), trouble or first.why,
                         _counted([x.kernel for x in call]), duration(sum(x.time for x in call))])
            marked += [i] if trouble else []
        rows += [[path, self.types[path], "", "", "no launch", "", ""] for path in self.silent]
        notes = [f"! {len(marked)} of {len(self.calls)} calls copy, or do not run their kernels"] if marked else [
            f"all {len(self.calls)} calls run their kernels, without a copy"]
        notes += ["no launch: only views, or not called"] if self.silent else []
        return Table(["layer", "type", "op", "shapes", "path", "launches", "time"], rows, numbers=("time",),
                     cut=("launches", "shapes", "path", "layer", "type", "op"), notes=notes, marked=marked,
                     spare=("time",))


def _inner(module: str) -> str:
    """The path within the model: without the model's own name."""
    return module.partition(".")[2]


def _trouble(call: list[Launch]) -> str:
    """What slows a call down: NumPy, a definition in the place of kernels, copies; "" if nothing does."""
    by_numpy = [x.kernel for x in call if x.kernel.startswith("NumPy")]
    if by_numpy:
        return f"{by_numpy[0]} runs: no kernel"
    first = call[0]
    if first.why.startswith("definition") and _NONE not in first.why:
        return first.why
    copies = sum(split(x.kernel)[0] == "copy" and x.nbytes >= _SMALL for x in call)
    if copies and first.why.startswith("fused"):
        return f"{'a copy' if copies == 1 else f'{copies} copies'}, then {first.why}"
    return "a copy" if copies == len(call) else ""
