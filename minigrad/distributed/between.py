"""Two primitives between processes, each the gradient of the other. So what is computed from them (SyncBatchNorm) has
derivatives of any order.

    y = gathered(x)       y[i] = x of process i                                 x's gradient = scattered(g)
    x = scattered(y)      x = sum over the processes of their y[rank]           y's gradient = gathered(g)

All processes must walk their graphs in the same order: they do, if they run the same program.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..core.op import Primitive
from ..core.tensor import Tensor
from ..devices.memory import Layout, layout
from ..devices.plan import Plan, host_plan
from .group import joined


def _prepare_gathered(x: Layout) -> Plan:
    """y[i] = x of process i: (*) -> (world_size, *). All processes must call it with the same shape and dtype."""
    call = f"gathered {x.dtype}{list(x.shape)}"

    def run(x: np.ndarray, out: np.ndarray) -> None:
        group = joined()
        group.run(call, lambda: group.all_gather(out, np.ascontiguousarray(x)))
    return host_plan(layout(x.device, x.dtype, (joined().size, *x.shape)), run, "MPI", (x,))


def _prepare_scattered(y: Layout) -> Plan:
    """x = the sum over all processes of their y[rank]: (world_size, *) -> (*). All must call it with the same shape."""
    call = f"scattered {y.dtype}{list(y.shape)}"

    def run(y: np.ndarray, out: np.ndarray) -> None:
        group = joined()
        group.run(call, lambda: group.reduce_scatter(out, np.ascontiguousarray(y), "sum"))
    return host_plan(layout(y.device, y.dtype, y.shape[1:]), run, "MPI", (y,))


scattered_op: Primitive
gathered_op = Primitive("gathered", _prepare_gathered, {"x": lambda g: scattered_op(g)})
scattered_op = Primitive("scattered", _prepare_scattered, {"y": lambda g: gathered_op(g)})


def gathered(x: Tensor) -> Any:
    """The tensors of all processes, stacked: (*) -> (world_size, *). Differentiable."""
    return gathered_op(x)
