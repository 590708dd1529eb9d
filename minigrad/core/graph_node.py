"""What a user sees of the graph: nodes as PyTorch has them, by `grad_fn` and `next_functions`. Read `hooks.py` first.

All nodes of the tape have one class, and an edge to a leaf is the leaf itself. Programs that walk a graph expect a
class for each op, `AddBackward0`, and a node `AccumulateGrad` for each leaf. Both are made when somebody looks at them:
recording does not pay for it.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from .hooks import RemovableHandle, node_hooks, node_pre_hooks
from .shape import fail

_classes: WeakKeyDictionary[Any, type] = WeakKeyDictionary()                    # of the nodes of an op
_accumulators: WeakValueDictionary[int, AccumulateGrad] = WeakValueDictionary()        # by the id of the leaf


def _called(op: Any) -> str:
    """What users call an op; the backward of an op, recorded, is called after it."""
    return f"{_called(op.of)}_backward" if hasattr(op, "of") else getattr(op, "called", "") or op.name


def node_name(op: Any) -> str:
    """The name of an op's nodes: what users call in capitals and "Backward0", as PyTorch's; or its `node_name`.

    PyTorch numbers the derivatives of its own ops; those of a `Function` have no number.
    """
    words = _called(op).split("_")
    return getattr(op, "node_name", "") or f"{''.join([w[:1].upper() + w[1:] for w in words])}Backward0"


class GraphNode:
    """A node, as a user sees it."""

    __slots__ = ()

    def _edge(self) -> Any:
        """What hooks of this node are registered on."""
        return self

    def register_prehook(self, hook: Callable) -> RemovableHandle:
        """Calls `hook(grad_outputs)`, of a tuple, before this node's backward. A tuple that it returns replaces it."""
        return node_pre_hooks.add(self._edge(), hook)

    def register_hook(self, hook: Callable) -> RemovableHandle:
        """Calls `hook(grad_inputs, grad_outputs)` after this node's backward. A tuple replaces `grad_inputs`."""
        return node_hooks.add(self._edge(), hook)

    def as_output(self) -> tuple[Any, int]:
        """This node and 0. From now on it has the class of its op's nodes."""
        of: Any = self
        cls = type(of)
        if "op" in cls.__dict__:                            # no class of an op yet
            of.__class__ = _class_of(of.op, cls)
        return of, 0

    @property
    def metadata(self) -> dict:
        """A dictionary for notes about this node."""
        edge = self._edge()
        if not hasattr(edge, "_hooks"):
            edge._hooks = {}
        return edge._hooks.setdefault("metadata", {})

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, output number) for each input: the node that made it, the `AccumulateGrad` of a leaf, or None."""
        of: Any = self
        return tuple([shown(edge) for edge in of.inputs])

    def name(self) -> str:
        """The op's name in capitals and "Backward0". PyTorch's names of other nodes begin with "torch::autograd::"."""
        of: Any = self
        name = node_name(of.op)
        return name if "Backward" in name else f"torch::autograd::{name}"

    def _sequence_nr(self) -> int:
        """A number that grows with each node that is recorded."""
        of: Any = self
        return -of.seq

    def __repr__(self) -> str:
        return f"<{self.name().rpartition('::')[2]} object at {id(self):#x}>"


class AccumulateGrad(GraphNode):
    """The node of a leaf, `variable`, which adds to its `.grad`. A leaf has one, as long as somebody holds it."""

    __slots__ = ("variable", "__weakref__")
    seq = 1 - (1 << 64)                 # it runs before any node

    def __init__(self, variable: Any) -> None:
        self.variable = variable

    def _edge(self) -> Any:
        return self.variable

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """None: a leaf was made by no op."""
        return ()

    def name(self) -> str:
        """ "torch::autograd::AccumulateGrad", as in PyTorch."""
        return "torch::autograd::AccumulateGrad"


def shown(edge: Any) -> tuple[Any, int]:
    """An edge of the tape as a user sees it: a node, and which of its outputs; `(None, 0)` for no edge."""
    if edge is None:
        return None, 0
    if hasattr(type(edge), "as_output"):                    # a node, or one of its outputs
        return edge.as_output()
    found = _accumulators.get(id(edge))
    if found is None:
        found = _accumulators[id(edge)] = AccumulateGrad(edge)
    return found, 0


class GradientEdge(NamedTuple):
    """A place in the graph: an output of a node. `autograd.grad` takes it as an input or output, in place of a tensor,
    which need not be kept then. `ownership_token` keeps the place alive."""

    node: GraphNode
    output_nr: int
    ownership_token: Any = None

    def edge(self) -> Any:
        """The same place as an edge of the tape."""
        if self.ownership_token is not None:
            return self.ownership_token
        if type(getattr(self.node, "layout", None)) is tuple:       # each output has an edge of its own
            fail("GradientEdge", "an output of several needs its ownership_token", self.node.name(),
                 "make it with autograd.graph.get_gradient_edge(tensor)")
        return self.node._edge()


def _class_of(op: Any, base: type) -> type:
    """The class of an op's nodes: `base` with what the op adds (`node_attributes`), and no more slots."""
    found = _classes.get(op)
    if found is None:
        attributes = op.node_attributes() if hasattr(op, "node_attributes") else {}
        found = _classes[op] = type(node_name(op), (base,), {"__slots__": (), "__doc__": base.__doc__, **attributes})
    return found
