"""Two primitives between processes, each the gradient of the other. So what is computed from them (SyncBatchNorm) has
derivatives of any order.

    y = gathered(x)       y[i] = x of process i                                 x's gradient = scattered(g)
    x = scattered(y)      x = sum over the processes of their y[rank]           y's gradient = gathered(g)

All processes must walk their graphs in the same order: they do, if they run the same program.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.arrays import dense
from ..core.op import Primitive
from ..core.tensor import Tensor
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, not_half
from .group import exchange, joined


def _plan(call: str, to: Layout, x: Layout, begin: Callable[[Any, Any], Any]) -> Plan:
    """The plan of a collective `begin(out, x)`."""
    not_half("it is computed in float32", x)

    def run(x: Array) -> Array:
        y = alloc(to)
        exchange(f"{call} {x.layout.dtype}{list(x.layout.shape)}", begin, y, dense(x))()
        return y
    return Plan(run, to, joined().name)


def _prepare_gathered(x: Layout) -> Plan:
    """y[i] = x of process i: (*) -> (world_size, *). All processes must call it with the same shape and dtype."""
    return _plan("gathered", layout(x.device, x.dtype, (joined().size, *x.shape)), x,
                 lambda out, x: joined().all_gather(out, x))


def _prepare_scattered(y: Layout) -> Plan:
    """x = the sum over all processes of their y[rank]: (world_size, *) -> (*). All must call it with the same shape."""
    return _plan("scattered", layout(y.device, y.dtype, y.shape[1:]), y,
                 lambda out, y: joined().reduce_scatter(out, y, "sum"))


scattered_op: Primitive
gathered_op = Primitive("gathered", _prepare_gathered, {"x": lambda g: scattered_op(g)})
scattered_op = Primitive("scattered", _prepare_scattered, {"y": lambda g: gathered_op(g)})


def gathered(x: Tensor) -> Any:
    """The tensors of all processes, stacked: (*) -> (world_size, *). Differentiable."""
    return gathered_op(x)
