"""`study.backward_order`: what runs in backward, in which order. `study.saved`: what is kept for it."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from sys import getrefcount
from typing import Any, NamedTuple

from ..core import engine
from ..core.hooks import hooks
from ..core.place import parameters_behind, places, warn_without_gradient
from ..core.saved import contents
from ..core.shape import fail
from ..core.table import Shown, Table, duration, size
from ..core.tape import FREED, Node, edge_of
from ..core.tensor import Tensor
from ..devices.memory import Array, Layout
from ..nn.module import Module
from .record import Backward, Record, line_of, memory_of
from .trace import shapes


class Kept(NamedTuple):
    """Memory that a node keeps for its backward: the array, and "parameter", "input" or "activation"."""

    array: Array
    kind: str

    @property
    def nbytes(self) -> int:
        """The bytes of the whole memory, also where the array is a view of a part."""
        return self.array.storage.layout.nbytes


def _kept(nodes: list[Node], leaves: list[Tensor]) -> list[list[Kept]]:
    """What each node keeps, each memory once. `leaves`: those that ask for gradients."""
    parameters, outside = {id(t.array.storage) for t in leaves}, _held_outside(nodes)

    def kind(storage: int, given: bool) -> str:
        return "parameter" if storage in parameters else "input" if given and storage in outside else "activation"
    return [[Kept(array, kind(id(array.storage), given)) for array, given in memory_of(node)] for node in nodes]


def _held_outside(nodes: list[Node]) -> set[int]:
    """The ids of the storages of saved tensors without a graph that something besides the graph refers to, such as a
    variable of the user: more references than those counted here."""
    kept = [value for node in nodes for _, value in contents(node)]
    given = {id(t): t for t in kept if isinstance(t, Tensor) and t.node is None}
    by_nodes = Counter(map(id, kept))
    arrays = [t.array for t in given.values()] + [a for a in kept if isinstance(a, Array)]
    by_graph = Counter(id(a.storage) for a in arrays)
    storages = {id(a.storage): a.storage for a in arrays}
    del kept, arrays                                            # they would count
    held = {id(given[key].array.storage) for key in given if getrefcount(given[key]) > by_nodes[key] + _OWN}
    return held | {key for key in storages if getrefcount(storages[key]) > by_graph[key] + _OWN}


_OWN = 2            # the references of the table here, and of the call of getrefcount


Losses = Tensor | Sequence[Tensor]          # one, or several


def _graph(loss: Losses | Callable[[], Losses], by: str) -> tuple[list[Tensor], list[Node], list[Tensor]]:
    """The losses, their nodes (oldest first), and the leaves that ask for gradients. A function is run to make them."""
    made: Any = loss
    if callable(loss) and not isinstance(loss, Module):
        with Record():
            made = loss()
    losses = list(made) if isinstance(made, (list, tuple)) else [made]
    for t in losses or [None]:
        if not isinstance(t, Tensor):
            fail(by, "it takes a loss, several in a list, or a function without arguments that computes them",
                 type(t).__name__, f"for example {by}(lambda: criterion(model(x), y))", TypeError)
        if not t._requires_grad:
            fail(by, "the loss must require a gradient", t.array.layout,
                 "compute it outside no_grad(), from parameters")
    nodes = [n for n in engine.reachable(list(map(edge_of, losses)), frozenset()) if isinstance(n, Node)]
    found = {id(e): e for n in nodes for e in n.inputs if isinstance(e, Tensor)}
    if any(n.saved is FREED for n in nodes):
        fail(by, "the graph was freed by an earlier backward()", "", "call it before backward()")
    return losses, nodes, list(found.values())


# ---- saved -----------------------------------------------------------------------------------------------------------

@dataclass
class SavedRow:
    """What the nodes of one op at one line keep. `layouts`: of the arrays; the bytes by kind."""

    op: str
    module: str
    line: str
    nodes: int = 0
    layouts: list[Layout] = field(default_factory=list)
    nbytes: dict[str, int] = field(default_factory=lambda: {"activation": 0, "input": 0, "parameter": 0})


class Saved(Shown):
    """What a graph keeps for backward: `rows` by op and line; bytes: `activations`, `inputs`, `parameters`, `total`."""

    def __init__(self, nodes: list[Node], leaves: list[Tensor]) -> None:
        found: dict[tuple, SavedRow] = {}
        seen: set[int] = set()
        record = Record()
        for node, keeps in zip(nodes, _kept(nodes, leaves), strict=True):
            place = places.get(node)
            key = (node.op.name, record.path(place), line_of(place))
            row = found.setdefault(key, SavedRow(*key))
            row.nodes += 1
            for kept in keeps:
                if id(kept.array.storage) not in seen:
                    seen.add(id(kept.array.storage))
                    row.nbytes[kept.kind] += kept.nbytes
                    row.layouts.append(kept.array.layout)
        self.rows = sorted(found.values(), key=lambda r: -r.nbytes["activation"])
        self.activations, self.inputs, self.parameters = (
            sum(row.nbytes[kind] for row in self.rows) for kind in ("activation", "input", "parameter"))
        self.total = self.activations + self.inputs + self.parameters

    def as_table(self) -> Table:
        """The rows, those that keep most first, and the sums."""
        rows = [[r.op, r.module, r.line, str(r.nodes), shapes(tuple(r.layouts)),
                 *[size(r.nbytes[k]) if r.nbytes[k] else "" for k in ("activation", "input", "parameter")]]
                for r in self.rows]
        rows.append(["total", "", "", str(sum(r.nodes for r in self.rows)), "",
                     *map(size, (self.activations, self.inputs, self.parameters))])
        notes = ["each memory once, at the first op that keeps it; parameters and inputs stay in any case"]
        if not any(r.line for r in self.rows):
            notes.append("lines and modules are known of what is recorded while a study looks: saved(lambda: ...)")
        return Table(["op", "module", "line", "nodes", "shapes", "activations", "inputs", "parameters"], rows,
                     numbers=("nodes", "activations", "inputs", "parameters"), cut=("shapes", "line", "module", "op"),
                     notes=notes)


def saved(loss: Losses | Callable[[], Losses]) -> Saved:
    """What the graph of `loss` keeps for backward: bytes by op and line, each memory once, parameters apart.

    `loss` is a tensor, or several in a list. Give a function that computes them, and the lines and modules are known
    too. RuntimeError if the graph was freed by a backward before.

    >>> print(study.saved(lambda: criterion(model(x), y)))
    """
    _, nodes, leaves = _graph(loss, "saved")
    return Saved(nodes, leaves)


# ---- backward_order --------------------------------------------------------------------------------------------------

class Step(NamedTuple):
    """One step of a backward: what ran (`backward`), where its op was called, what it kept, what was then free, and
    what the rest of the graph still keeps (bytes, without parameters and inputs)."""

    backward: Backward
    module: str
    line: str
    saved: int
    freed: int
    held: int


class Order(Shown):
    """The steps of a backward, in order: `steps`."""

    def __init__(self, nodes: list[Node], leaves: list[Tensor], record: Record) -> None:
        keeps = {id(node): {id(k.array.storage): k.nbytes for k in kept if k.kind == "activation"}
                 for node, kept in zip(nodes, _kept(nodes, leaves), strict=True)}
        users: dict[int, int] = {}
        for memory in keeps.values():
            for m in memory:
                users[m] = users.get(m, 0) + 1
        held = sum({m: n for memory in keeps.values() for m, n in memory.items()}.values())
        self.steps: list[Step] = []
        self.before = held
        for b in record.backwards:
            mine, freed = keeps.get(id(b.node), {}) if b.depth == 0 else {}, 0
            for m, nbytes in mine.items():
                users[m] -= 1
                freed += 0 if users[m] else nbytes
            held -= freed
            self.steps.append(Step(b, record.path(b.place), line_of(b.place), sum(mine.values()), freed, held))

    def as_table(self) -> Table:
        """The steps, one a line; the nodes of a definition that ran are indented below their op."""
        def shown(gradients: list[Any]) -> str:
            return ", ".join("-" if g is None else "x".join(map(str, g.shape)) or "()" for g in gradients)
        rows = [[str(i), "  " * s.backward.depth + s.backward.op, s.module, s.line,
                 shown(s.backward.given), shown(s.backward.results), size(s.saved), size(s.freed), size(s.held),
                 duration(s.backward.time)] for i, s in enumerate(self.steps, 1)]
        notes = [f"{size(self.before)} were kept before; freed: memory that no later step keeps, free unless a "
                 "variable of yours holds it; parameters and inputs are left out", "-: no gradient is needed there"]
        if not any(s.line for s in self.steps):
            notes.append("lines and modules are known of what is recorded while a study looks: "
                         "study.backward_order(lambda: ...)")
        head = ["#", "op", "module", "line", "gradient in", "gradients out", "saved", "freed", "held", "time"]
        return Table(head, rows, numbers=("#", "saved", "freed", "held", "time"), notes=notes, spare=("time",),
                     cut=("gradients out", "gradient in", "line", "module", "op"))


def backward_order(loss: Losses | Callable[[], Losses]) -> Order:
    """Runs the backward of a scalar `loss`, and says what ran, in which order, what each step had saved, what became
    free then, and how long it took. `.grad` stays as it was, and the graph stays usable. Hooks of tensors are called.

    Give a function that computes the loss, and the lines and modules are known too; then a warning names the
    parameters of the model that no gradient reaches. Of several losses in a list, it is one backward of all.

    >>> print(study.backward_order(lambda: criterion(model(x), y)))
    """
    losses, nodes, leaves = _graph(loss, "backward_order")
    for t in losses:
        if t.numel() != 1:
            fail("backward_order", "the loss must be a scalar", t.array.layout, "reduce it first: loss.sum()")
    if not nodes:
        fail("backward_order", "the loss must be the result of an op", f"the leaf {losses[0].array.layout}",
             "compute something of it")
    with Record() as record:
        run_backward(losses)
    reached = set(map(id, leaves))
    warn_without_gradient("backward_order", [n for n, p in parameters_behind(losses).items() if id(p) not in reached])
    return Order(nodes, leaves, record)


def run_backward(loss: Losses) -> None:
    """Runs the backward of a loss, or of several; keeps the graph, and changes no `.grad`, also not of what
    `retain_grad` was called."""
    edges = engine.reachable([edge_of(t) for t in engine.listed(loss)], frozenset())
    leaves = dict.fromkeys(e for edge in edges for e in edge.inputs if isinstance(e, Tensor))
    retained = [(edge, hooks.of(edge)[-1]) for edge in edges if hooks.retains(edge)]
    for edge, _ in retained:
        hooks.release(edge)
    try:
        engine.grad(loss, list(leaves), retain_graph=True, allow_unused=True)
    finally:
        for edge, function in retained:
            hooks.retain(edge, function)
