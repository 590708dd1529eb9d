"""`torch.autograd` in minigrad: `grad`, `backward`, `Function`, `functional`, `gradcheck`, anomalies, `profiler`."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core import engine
from ..core.inference import inference_mode
from ..core.messages import NoAttribute as _NoAttribute
from ..core.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.join import stack
from . import function, functional, graph, profiler
from .anomaly import detect_anomaly, is_anomaly_check_nan_enabled, is_anomaly_enabled, set_detect_anomaly
from .checking import GradcheckError, gradcheck, gradgradcheck
from .function import Function
from .variable import Variable

__all__ = ["Function", "GradcheckError", "Variable", "backward", "detect_anomaly", "enable_grad", "function",
           "functional", "grad", "gradcheck", "gradgradcheck", "graph", "inference_mode",
           "is_anomaly_check_nan_enabled", "is_anomaly_enabled", "is_grad_enabled", "no_grad", "profiler",
           "set_detect_anomaly", "set_grad_enabled"]


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, one for each input; `.grad` does not change.

    `grad_outputs[i]` has the shape of `outputs[i]`; None means 1, for a scalar. With `create_graph=True` the gradients
    are recorded, and may be differentiated again, to any order. An input that the outputs do not depend on raises
    RuntimeError; `allow_unused=True` gives None for it, `materialize_grads=True` zeros.

    `is_grads_batched`: each of `grad_outputs` has a first dimension more, and so has each gradient; there is a walk for
    each of its entries.
    """
    if not is_grads_batched:
        return engine.grad(outputs, inputs, grad_outputs, retain_graph, create_graph, only_inputs, allow_unused,
                           materialize_grads)
    batches = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or ())
    sizes = {tuple(b.shape[:1]) for b in batches if b is not None}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        fail("autograd.grad", "with is_grads_batched, grad_outputs must have one first size, not 0",
             [None if b is None else b.layout for b in batches])
    (n,), = sizes
    rows = [engine.grad(outputs, inputs, [None if b is None else b[i] for b in batches],
                        retain_graph if i == n - 1 else True, create_graph, only_inputs, allow_unused,
                        materialize_grads) for i in range(n)]
    return tuple([None if column[0] is None else stack(column) for column in zip(*rows, strict=True)])


def backward(tensors: Tensor | Sequence[Tensor], grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
             retain_graph: bool | None = None, create_graph: bool = False,
             inputs: Tensor | Sequence[Tensor] | None = None) -> None:
    """Computes the gradients of one or more tensors, and adds them to `.grad` of the leaves they depend on.

    tensors       a tensor or several; or a `graph.GradientEdge`
    grad_tensors  the gradient of each, of its shape; None for a tensor with one element means 1
    retain_graph  keeps what was saved for backward, so that the same graph can be used again
    create_graph  records the gradients, so that they can be differentiated. `.grad` and its leaf then refer to each
                  other: a reference cycle, of which a warning is given; `autograd.grad` makes none
    inputs        the leaves that get gradients (default: all)

        autograd.backward([loss_a, loss_b])         # the same as (loss_a + loss_b).backward()
    """
    roots = engine.listed(tensors)
    given: list[Tensor | None] = [None] * len(roots)
    if grad_tensors is not None:
        given = [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors)
    engine.backward(roots, given, retain_graph, inputs, create_graph)

if not TYPE_CHECKING:
    def __getattr__(name: str) -> None:
        raise _NoAttribute("module 'minigrad.autograd'", name, lambda: __all__)
