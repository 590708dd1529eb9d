"""What a picture of a graph shows, as plain data: nodes, edges, saved arrays, groups. `reading.py` reads a loss.

The text (`listing.py`), the picture (`drawing.py`) and the explorer's page are made of this data and of nothing else.
"""
from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..core.place import short_line
from ..core.tape import Edge


@dataclass(frozen=True)
class Output:
    """An output of a node: its shape, dtype and bytes."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass
class Input:
    """An input of a node, and the edge to what made it.

    name            in the op's definition: "x", "weight"
    source, output  the id of the node that made it, and which of its outputs it is; None if the tape does not know it,
                    because it needs no gradient and nothing saved it
    value           shape and dtype, None if not known
    number          its text if it is a number
    differentiable  does a gradient flow back to it?
    """

    name: str
    source: int | None = None
    output: int = 0
    value: Output | None = None
    number: str = ""
    differentiable: bool = False


@dataclass
class Saved:
    """An array that a node keeps for its backward.

    name    "x", "weight", "output", or "kernel" for what a fused kernel keeps (statistics, masks)
    kind    "parameter" (it lives anyway), "input", "output", "kernel", or "computed": by the forward of a `Function`,
            or by a hook of `saved_tensors_hooks`
    source  the id of the node that made it, None if not known
    line    the user's line that made it, "" if not known
    memory  a number: entries with the same one share their memory; nbytes is of all of it
    """

    name: str
    kind: str
    value: Output
    nbytes: int
    source: int | None
    line: str
    memory: int


@dataclass
class GraphNode:
    """A node of the picture: a recorded op, a leaf that gets a gradient, or data that an op saved.

    kind        "op", "leaf" or "data"
    op          the public name of the op ("layer_norm"), for others "leaf" or "data"
    backward    the name of the node in the graph ("LayerNormBackward0"), "" for data, and for
                an op that is only shown: no gradient flows through it
    label       the name of a leaf or of data ("model.0.weight"), else the op's
    path, why   what ran: "fused", "kernel", "NumPy", "view", "function" (an `autograd.Function`), "checkpoint" or
                "gradient" (of `create_graph`), and the reason; "" for leaves
    module      the path of the module that called it, "" if there is none or it is not known
    lines       the user's lines, innermost first: (file, number, function, text)
    launches    the kernels that ran, if a record knows them
    uses        by how many inputs an output is used, of several the most: its gradient is a sum of so many
    freed       did a backward free what it had saved?
    """

    id: int
    kind: str
    op: str
    backward: str
    label: str
    outputs: list[Output]
    inputs: list[Input] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    attrs: dict[str, str] = field(default_factory=dict)
    path: str = ""
    why: str = ""
    module: str = ""
    lines: list[tuple[str, int, str, str]] = field(default_factory=list)
    launches: list[str] = field(default_factory=list)
    uses: int = 0
    freed: bool = False

    @property
    def line(self) -> str:
        """The innermost of the user's lines as file:number, or an empty string."""
        return short_line(*self.lines[0][:2]) if self.lines else ""


@dataclass
class Group:
    """Nodes that belong together, in the order of recording.

    kind      "graph" (the outermost), "module", "definition" (an op ran by its definition), "opened" (a node that is
              shown as its definition, or a checkpointed block as what it computes), "part" (many nodes, folded)
    name      short: "0"; `path` the whole: "model.0"; `type` the module's type, or why a definition ran
    call      "call 2 of 4" for a module that is called several times
    children  ids of nodes, and groups
    folded    drawn as one box
    key       of an opened one: the groups around it, as `reading.py` finds them
    """

    kind: str
    name: str
    path: str = ""
    type: str = ""
    call: str = ""
    children: list[Any] = field(default_factory=list)
    folded: bool = False
    key: tuple[Any, ...] = ()

    @property
    def note(self) -> str:
        """What a title shows beside the name."""
        return ", ".join(part for part in (self.type, self.call) if part)

    def ids(self) -> Iterator[int]:
        """The ids of all nodes inside, in order."""
        for child in self.children:
            if isinstance(child, Group):
                yield from child.ids()
            else:
                yield child

    def chains(self, around: tuple[Group, ...] = ()) -> Iterator[tuple[int, tuple[Group, ...]]]:
        """The id of each node inside, and the groups around it, outermost first."""
        for child in self.children:
            if isinstance(child, Group):
                yield from child.chains((*around, self))
            else:
                yield child, (*around, self)

    def groups(self) -> Iterator[Group]:
        """This group and all inside it, outer ones first."""
        yield self
        for child in self.children:
            if isinstance(child, Group):
                yield from child.groups()


@dataclass
class OpText:
    """What is written of an op: its formula, the source of its definition, the source of its derivative."""

    formula: str = ""
    definition: str = ""
    derivative: str = ""


@dataclass
class Structure:
    """All that is known of a graph: `nodes` by id in the order of recording, `root` with the groups, `outputs` as
    (id, output), `ops` with texts by op name, `notes` that a reader should know."""

    nodes: dict[int, GraphNode] = field(default_factory=dict)
    root: Group = field(default_factory=lambda: Group("graph", "graph"))
    outputs: list[tuple[int, int]] = field(default_factory=list)
    ops: dict[str, OpText] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # of nodes and leaves, by their Python ids: a weak reference, since another object may get the same id later
    ids: dict[int, tuple[weakref.ref, int]] = field(default_factory=dict)

    def id_of(self, edge: Edge) -> int | None:
        """The id under which a living node or leaf is shown, None if it is not shown."""
        known, found = self.ids.get(id(edge), (None, None))
        return found if known is not None and known() is edge else None

    def edges(self) -> Iterator[tuple[int, GraphNode, Input]]:
        """(id of the source, node, its input) for each edge whose source is known."""
        for node in self.nodes.values():
            for x in node.inputs:
                if x.source is not None:
                    yield x.source, node, x
