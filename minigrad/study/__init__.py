"""Looking at the core: which path an op takes, and why."""
from __future__ import annotations

from typing import Any

from ..core.op import Op, signature
from ..core.tensor import Tensor
from ..devices import launch_hook, opened
from ..devices.base import Kernel

__all__ = ["explain", "launches"]


def explain(op: Any, *args: Any, **attrs: Any) -> str:
    """Which path `op(*args, **attrs)` takes (fused kernel, definition or NumPy), why, and what it launches.

    >>> print(study.explain(minigrad.layer_norm, x, w, b, normalized_shape=(512,)))
    layer_norm(float32[64, 512], float32[512], float32[512]): fused kernel on cpu
      launches layer_norm_forward_f32
    """
    name = getattr(op, "name", getattr(op, "__name__", str(op)))
    seen = launches(op, *args, **attrs)
    called = ", ".join(repr(a.array.layout) if isinstance(a, Tensor) else repr(a) for a in args)
    why = "a function of other ops"
    if isinstance(op, Op):
        plan = op.plans.get(signature(args, attrs))
        why = f"the definition runs: {plan}" if isinstance(plan, str) else plan.why if plan is not None else "the definition runs"
    elif hasattr(op, "plans"):
        key = (*[a.array.layout for a in args if isinstance(a, Tensor)], *attrs.items())
        plan = op.plans.get(key)
        why = plan.why if plan is not None and plan.why else "primitive"
    counts = dict.fromkeys(seen, 0)
    for kernel in seen:
        counts[kernel] += 1
    listed = ", ".join(k if n == 1 else f"{k} x{n}" for k, n in counts.items()) or "nothing: a view"
    return f"{name}({called}): {why}\n  launches {listed}"


def launches(function: Any, *args: Any, **kwargs: Any) -> list[str]:
    """The names of the kernels that a call launches, in order."""
    seen: list[str] = []

    def visit(kernel: Kernel, arguments: tuple) -> None:
        seen.append(kernel.name if kernel.name != "host" else f"NumPy {getattr(arguments[0], '__name__', 'function')}")
        kernel.function(*arguments)
    opened()
    with launch_hook(visit):
        function(*args, **kwargs)
    return seen
