"""`explore`: one page that steps through a backward pass node by node, and shows each launch.

A `Record` sees what happens, `reading.py` reads the graph, and the page (`explore.html`) gets both as JSON.
"""
from __future__ import annotations

import json
import linecache
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import count
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np

from ..core.capture import Captured
from ..core.saved import input_names
from ..core.shape import fail
from ..core.tape import Node, Variable
from ..core.tensor import Tensor
from ..devices.memory import Layout
from .layered import Box, arrange
from .order import run_backward
from .reading import Names, Reader, node_of, texts
from .record import Backward, Record, origins
from .structure import GraphNode, Group, Saved, Structure

_BINS, _GRID = 40, 32               # of a histogram; rows and columns of a heat map
_VALUES = 200_000                   # about as many values of heat maps has a page
_LEAVES = 4                         # so many lines name leaves in the box of a node


@dataclass(frozen=True)
class Seen:
    """What is written down of a gradient: numbers for the page, its values if they are few, and whose memory it is."""

    about: dict[str, Any]
    grid: np.ndarray | None
    storage: int
    nbytes: int


def look(t: Tensor) -> Seen:
    """Looks at a gradient; `norm` is the Euclidean one."""
    layout, storage = t.array.layout, t.array.storage
    values = t.array.np if layout.device.type == "cpu" else layout.device.download(t.array)
    values = np.asarray(values, dtype=np.float64)
    nan, inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    about = {**_described(layout), "size": layout.size, "nan": nan, "inf": inf, "zeros": int((values == 0).sum())}
    with np.errstate(all="ignore"):
        top = np.abs(values).max(initial=0.0)
        scaled = values / top if top > 0 and math.isfinite(top) else values
        about["norm"] = float(np.sqrt((scaled * scaled).sum())) * (float(top) if scaled is not values else 1.0)
        if layout.size:
            about |= {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}
    finite = values[np.isfinite(values)] if nan or inf else values
    if layout.size > 1 and finite.size:
        low, high = float(finite.min()), float(finite.max())
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        about["hist"] = {"low": low, "high": high, "counts": np.histogram(finite, _BINS, (low, high))[0].tolist()}
    grid = None
    if values.ndim and layout.size > 1:
        grid = np.atleast_2d(values[(0,) * (values.ndim - 2)] if values.ndim > 2 else values)
        about["heat"] = {"of": list(grid.shape), "leading": max(values.ndim - 2, 0)}
        grid = _thinned(grid, _GRID).astype(np.float32)
    return Seen(about, grid, id(storage), storage.layout.nbytes)


def _thinned(grid: np.ndarray, most: int) -> np.ndarray:
    """At most `most` rows and columns, evenly spaced."""
    rows, columns = [-(-n // most) for n in grid.shape]
    return grid[::max(rows, 1), ::max(columns, 1)].copy()


def _described(layout: Layout) -> dict[str, Any]:
    return {"shape": list(layout.shape), "dtype": layout.dtype.name}


def explore(target: Tensor | Callable[..., Any], path: str | Path, args: Sequence[Any] = ()) -> Path:
    """Writes a page, one file without any other, that steps through a backward pass. Returns its path.

    `target` is a scalar loss, a function that returns one (or a tuple that begins with it), or a captured function;
    functions are called with `args`, once. The page shows for each node the gradient that flows in and out (shape,
    norm, histogram, values), what the graph saved and after which step it lets it go, the formula and the source of
    the definition, the kernels and their times, and the memory held. For a function, modules, lines and forward kernels
    are known too.

    Backward is run here, and keeps the graph; `.grad` of all tensors stays as it is. If the function itself ran
    backward, that is shown. A captured function is called until it is replayed (twice at most): each replayed launch is
    shown, with its kernel, sizes, bytes and time. RuntimeError if there is neither a graph nor a launch.

    >>> study.explore(lambda: nn.functional.cross_entropy(model(x), y), "backward.html")
    >>> study.explore(train_step, "step.html", args=(x, y))
    """
    record, structure = _observed(target, tuple(args))
    title = getattr(target, "__name__", "").replace("<lambda>", "") or "a loss"
    data = Page(record, structure).data(title)
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    # no "<" inside: nothing in the data can end the page's script
    dumped = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    path = Path(path)
    path.write_text(text.replace("{{title}}", escape(title)).replace("{{data}}", dumped), encoding="utf-8")
    return path


class _Steps(Record):
    """A record that keeps the nodes whose backward ran: what the function returns may not keep them."""

    def __init__(self) -> None:
        super().__init__(look)
        self.nodes: list[Node] = []

    def _backward(self, node: Node, given: list, run: Callable[[], Any]) -> Any:
        if get_ident() == self.thread:
            self.nodes.append(node)
        return super()._backward(node, given, run)


def _observed(target: Any, args: tuple) -> tuple[_Steps, Structure]:
    """Runs what is to be explored."""
    names, structure = Names(), Structure()
    with _Steps() as record:
        result = target if isinstance(target, Tensor) else target(*args)
        loss: Any = result[0] if isinstance(result, tuple) and result else result
        node = loss.node if isinstance(loss, Tensor) else None
        if node is not None and node_of(node) not in record.nodes:
            record.backwards.clear()                    # of gradients inside the function
            record.nodes.clear()
            run_backward(loss)
    if isinstance(getattr(target, "__func__", target), Captured) and not any(x.replayed for x in record.launches):
        with _Steps() as record:                        # the first call recorded the step, this one replays it
            target(*args)
    if not record.backwards and not record.launches:
        fail("explore", "needs a loss with a graph, or a function that computes something", type(result).__name__,
             "let a parameter require gradients, and do not compute under no_grad()")
    Reader(names, lambda name: False, structure).read(
        [node for s, node in zip(record.backwards, record.nodes, strict=True) if not s.depth])
    return record, structure


class Page:
    """The data of a page: steps (the backward of each node), launches, graph, sources."""

    def __init__(self, record: _Steps, structure: Structure) -> None:
        self.record, self.structure = record, structure
        self.steps, self.nodes = record.backwards, record.nodes
        self.index = {id(node): i for i, node in enumerate(self.nodes)}         # of a node's step
        self.shown = [self.known(node) for node in self.nodes]
        self.freed = {x.memory: i for i, node in enumerate(self.shown) if node
                      for x in node.saved if not self.kept(x)}                  # the last step that uses a memory
        self.groups: list[dict[str, Any]] = []
        self.group_of: dict[int, int] = {}              # the innermost group of a node of the picture, by its id
        self.leaves: dict[int, list[str]] = {}          # that a node of the picture gives gradients to, by its id
        gradients = sum(g is not None for s in self.steps for g in (*s.given, *s.results))
        self.most = max(8, min(_GRID, math.isqrt(_VALUES // max(gradients, 1))))

    def known(self, edge: Any) -> GraphNode | None:
        """The node of the picture for a node or leaf of the graph."""
        return self.structure.nodes.get(self.structure.id_of(edge))        # type: ignore[arg-type]

    def data(self, title: str) -> dict[str, Any]:
        """All that the page shows."""
        nodes, edges = self.picture()
        launches, at = self.launches(), {id(x): i for i, x in enumerate(self.record.launches)}
        steps = []
        for i, (s, node) in enumerate(zip(self.steps, self.shown, strict=True)):
            origin = origins.get(self.nodes[i]) if not s.depth else None        # what runs again is made in backward
            made = [at[id(x)] for x in origin.launches if id(x) in at] if origin is not None else []
            step = {**self.step(i, s, node), "saved": self.saved(i), "launches": [at[id(x)] for x in s.launches],
                    "forward": made}
            steps.append(step)
            for k in (*step["launches"], *step["forward"]):
                launches[k]["group"] = step["group"]
            for k in step["launches"]:
                launches[k]["step"] = i
        about = ([f"{len(steps)} steps of backward"] if steps else []) + [f"{len(launches)} launches"]
        return {"title": title, "about": ", ".join(about),
                "notes": self.structure.notes, "steps": steps, "nodes": nodes, "edges": edges, "groups": self.groups,
                "ops": self.sources(), "memory": self.memory(), "launches": launches}

    # ---- the picture ----

    def picture(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The nodes and edges of backward, from the loss to the leaves, with their places; fills `groups`."""
        structure = self.structure
        order: dict[int, int] = {}
        for node in structure.nodes.values():
            if node.kind == "op":
                order[node.id] = len(order)
                leaves = [f"{_last(structure.nodes[x.source].label)} {x.value}" for x in node.inputs
                          if x.differentiable and x.source is not None and x.source not in order]
                if len(leaves) > _LEAVES:
                    leaves[_LEAVES - 1:] = [f"and {len(leaves) - _LEAVES + 1} more leaves"]
                self.leaves[node.id] = leaves
        pairs = [(node.id, 0, source) for source, node, x in structure.edges() if x.differentiable and source in order]
        layout = arrange(structure.root, pairs, self.size, order.__contains__, reverse=True)
        self.add_groups(structure.root, -1, {id(g): box for g, box in layout.groups})
        step_of = {node.id: i for i, node in enumerate(self.shown) if node is not None}
        nodes = [{"label": n.label, "sub": str(n.outputs[0]), "leaves": self.leaves[k], "step": step_of.get(k, -1),
                  "group": self.group_of[k], **_rounded(layout.boxes[k])}
                 for k in order for n in (structure.nodes[k],)]
        return nodes, [{"from": order[e.source], "to": order[e.target],
                        "points": [[round(x, 1), round(y, 1)] for x, y in e.points]} for e in layout.routes]

    def size(self, of: Any) -> tuple[float, float]:
        """The width and height of a node; of a group, the width of its title."""
        if isinstance(of, Group):
            return 7.2 * len(_title(of)) + 24, 0.0
        node, leaves = self.structure.nodes[of], self.leaves[of]
        small = max(map(len, [str(node.outputs[0]), *leaves]))
        return max(8.2 * len(node.label), 6.8 * small) + 24, 42.0 + (15 * len(leaves) + 5 if leaves else 0)

    def add_groups(self, group: Group, above: int, boxes: dict[int, Box]) -> None:
        """Adds what is in a group to `groups`."""
        for child in group.children:
            if isinstance(child, Group):
                self.groups.append({"path": child.path, "type": child.note, "kind": child.kind, "parent": above,
                                    "title": _title(child), **_rounded(boxes[id(child)])})
                self.add_groups(child, len(self.groups) - 1, boxes)
            else:
                self.group_of[child] = above

    # ---- launches ----

    def launches(self) -> list[dict[str, Any]]:
        """All launches."""
        return [{"kernel": x.kernel, "op": x.op, "direction": x.direction, "group": -1, "step": -1,
                 "module": x.module, "line": x.line, "code": linecache.getline(*x.called_at.lines[0][:2]).strip()
                 if x.called_at is not None and x.called_at.lines else "", "why": x.why, "flops": x.flops or 0,
                 "sizes": {k: _number(v) for k, v in x.sizes.items()},
                 "operands": [repr(o) if o is not None else "other memory" for o in x.operands], "bytes": x.nbytes,
                 "time": x.time, "replayed": x.replayed} for x in self.record.launches]

    # ---- steps ----

    def gradient(self, seen: Seen | None, **more: Any) -> dict[str, Any] | None:
        """A gradient."""
        if seen is None:
            return None
        about = {k: _number(v) for k, v in seen.about.items()}
        if seen.grid is not None:
            grid = _thinned(seen.grid, self.most)
            finite = np.abs(grid[np.isfinite(grid)])
            about["heat"] = {**seen.about["heat"], "rows": grid.shape[0], "columns": grid.shape[1],
                             "top": float(finite.max(initial=0.0)),
                             "values": [_number(float(f"{v:.3g}")) for v in grid.ravel()]}
        return {**about, **more}

    def step(self, i: int, s: Backward, node: GraphNode | None) -> dict[str, Any]:
        """The backward of a node."""
        of = self.nodes[i]
        names = input_names(of.op, len(of.inputs))
        return {"op": s.op, "name": node.label if node else s.op, "depth": s.depth,
                "group": self.group_of[node.id] if node else -1, "given": [self.gradient(g) for g in s.given],
                "results": [self.gradient(g, name=n, **self.target(e))
                            for g, n, e in zip(s.results, names, of.inputs, strict=False)],
                "line": node.line if node else "", "code": node.lines[0][3] if node and node.lines else "",
                "backward": node.backward if node else "", "why": node.why if node else "",
                "attrs": ", ".join(f"{k}={v}" for k, v in node.attrs.items()) if node else ""}

    def target(self, edge: Any) -> dict[str, Any]:
        """Where a gradient goes: to a step, or to a leaf by name."""
        if isinstance(edge, Variable):
            node = self.known(edge)
            return {"to": -1, "leaf": node.label if node else "leaf"}
        return {"to": self.index.get(id(node_of(edge)), -1), "leaf": ""}

    # ---- what is saved, and the memory ----

    def kept(self, x: Saved) -> str:
        """Why the graph goes on holding a saved array after backward."""
        leaf = x.source is not None and self.structure.nodes[x.source].kind == "leaf"
        return "a parameter" if x.kind == "parameter" else "a leaf" if leaf else ""

    def saved(self, i: int) -> list[dict[str, Any]]:
        """What was kept for a step."""
        node = self.shown[i]
        if node is None or node.freed:
            return [{"what": "array", **_described(x), "bytes": x.nbytes, "line": "", "freed": i, "kept": ""}
                    for x in self.steps[i].saved]
        return [{"what": x.name if x.kind != "kernel" else "kept by the kernel", "shape": list(x.value.shape),
                 "dtype": x.value.dtype, "bytes": x.nbytes, "line": x.line, "freed": self.freed.get(x.memory, -1),
                 "kept": self.kept(x)} for x in node.saved]

    def memory(self) -> list[tuple[int, int]]:
        """While each step runs: the bytes saved that are not free yet, and those of gradients that are held."""
        freed, sizes = self.freed, {x.memory: x.nbytes for n in self.structure.nodes.values() for x in n.saved}
        held = sum(sizes[m] for m in freed)
        pending: dict[Any, tuple[int, int]] = {}            # by edge: a gradient's memory and its bytes
        numbers = count()
        found: list[tuple[int, int]] = []
        for i, s in enumerate(self.steps):
            if s.depth:                                     # inside of the step before, which needs no more afterwards
                found.append(found[-1])
                continue
            own = sorted((e for e in pending if node_of(e) is self.nodes[i]), key=lambda e: getattr(e, "index", 0))
            given = {g.storage: pending.pop(e) for e, g in zip(own, [g for g in s.given if g], strict=False)}
            made = [(e, given.get(g.storage) or given.setdefault(g.storage, (next(numbers), g.nbytes)))
                    for e, g in zip(self.nodes[i].inputs, s.results, strict=False) if e is not None and g is not None]
            found.append((held, sum(dict([*pending.values(), *given.values()]).values())))
            for edge, memory in made:
                pending.setdefault(edge, memory)            # or it is added to what is there
            held -= sum(sizes[m] for m, last in freed.items() if last == i)
        return found

    def sources(self) -> dict[str, Any]:
        """What is written of each op of the steps."""
        return {name: asdict(texts(op)) for name, op in {node.op.name: node.op for node in self.nodes}.items()}


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _title(group: Group) -> str:
    return f"{group.name} {group.note}".strip()


def _rounded(box: Box) -> dict[str, float]:
    return {k: round(v, 1) for k, v in asdict(box).items()}


def _number(x: Any) -> Any:
    """A number as JSON has it: nan and infinities as text."""
    return x if not isinstance(x, float) or math.isfinite(x) else str(x)
