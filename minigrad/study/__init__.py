"""Shows what the core does: which path an op takes and why, and which kernels a call launches."""
from __future__ import annotations

from typing import Any

from ..core.op import Op, Primitive, complete
from ..core.tensor import Tensor
from ..devices import launch_hook
from ..devices.base import Kernel
from .explore import explore
from .graphs import Graph, graph
from .record import Record

__all__ = ["Graph", "Record", "explain", "explore", "graph", "launches"]


def explain(op: Any, *args: Any, **attrs: Any) -> str:
    """Runs `op(*args, **attrs)` and says which path it took (fused kernel, definition or NumPy), why, and what it
    launched.

    >>> from minigrad.ops.norm import layer_norm
    >>> print(study.explain(layer_norm, x, w, b, normalized_shape=(512,)))
    layer_norm(float32[64, 512], float32[512], float32[512]): fused kernel on cpu
      launches layer_norm_forward_f32
    """
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
    counts = dict.fromkeys(seen, 0)
    for kernel in seen:
        counts[kernel] += 1
    listed = ", ".join(k if n == 1 else f"{k} x{n}" for k, n in counts.items()) or "nothing: a view"
    return f"{name}({called}): {why}\n  launches {listed}"


def launches(function: Any, *args: Any, **kwargs: Any) -> list[str]:
    """Runs `function(*args, **kwargs)` and returns the names of the kernels it launched, in order.

    A computation by NumPy is listed as "NumPy" and the name of its function.

    >>> study.launches(lambda: x + y)
    ['add_f32']
    """
    seen: list[str] = []

    def visit(kernel: Kernel, arguments: tuple[Any, ...]) -> None:
        seen.append(kernel.name if kernel.name != "host" else f"NumPy {getattr(arguments[0], '__name__', 'function')}")
        kernel.function(*arguments)
    with launch_hook(visit):
        function(*args, **kwargs)
    return seen
