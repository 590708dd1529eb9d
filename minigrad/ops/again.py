"""Gradients that kernels computed, as nodes: what `Op.vjp` of activations and convolutions gives.

Read `core/op.py` first. A gradient that is to be differentiated need not be taken apart into primitives where its own
derivatives are gradients of the same kind: the kernels of the backward compute them all, to any order, and a node keeps
what they read.
"""
from __future__ import annotations

from typing import Any

from ..core.modes import mode
from ..core.op import GradOp
from ..core.saved import stale
from ..core.tape import Node, edge_of, recorded
from ..core.tensor import Tensor, new_tensor
from ..devices.memory import Array
from ..devices.plan import FusedPlan


class Again(GradOp):
    """A function of two tensors that kernels of a plan compute, with derivatives that they compute, too."""

    def noted(self, made: Array, plan: FusedPlan, *tensors: Tensor) -> Tensor:
        """What the kernels made of the first two of the tensors; the node keeps all of them."""
        edges = tuple([edge_of(t) if t._requires_grad else None for t in tensors[:2]])
        if not mode.grad or edges == (None, None):
            return new_tensor(made, None)
        version = sum([t.array.version for t in tensors])
        return new_tensor(made, recorded(self, edges, made.layout, tensors, version, None, {"plan": plan}))

    def kept(self, node: Node) -> tuple[Any, tuple]:
        """The plan and the tensors of a node. RuntimeError if one was changed since."""
        if sum([t.array.version for t in node.saved]) != node.version:
            stale(self.name, node)
        return (node.attrs or {})["plan"], node.saved
