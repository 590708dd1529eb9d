"""`explore`: one page that steps through a backward pass node by node, and shows each launch.

A `Record` sees what happens, `reading.py` reads the graph, and the page (`explore.html`) gets both as JSON.
"""
from __future__ import annotations

import json
import linecache
import math
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import count
from pathlib import Path
from threading import get_ident
from types import MethodType
from typing import Any

import numpy as np

from ..core.capture import Captured
from ..core.engine import fit, walk
from ..core.hooks import hooks, node_hooks, node_pre_hooks
from ..core.modes import no_grad
from ..core.place import doors, frames, is_own
from ..core.saved import input_names
from ..core.shape import fail
from ..core.tape import Edge, Node, Variable
from ..core.tensor import Tensor
from ..devices.base import Kernel
from ..devices.memory import Layout
from .layered import Box, arrange
from .order import run_backward
from .reading import Names, Reader, node_of, texts
from .record import Backward, Launch, Record, origins, unseen
from .structure import GraphNode, Group, Saved, Structure

_BINS, _GRID = 40, 32               # of a histogram; rows and columns of a heat map
_VALUES = 200_000                   # about as many values of heat maps has a page
_LEAVES = 4                         # so many lines name leaves in the box of a node
_ROUNDING = {8: 1e-14, 4: 1e-5, 2: 0.1}     # by the bytes of a number: how much a sum may change by rounding
doors.add(__file__)                 # like record.py, it stands between an op and its launch


@dataclass(frozen=True)
class Seen:
    """What is written down of a gradient: numbers for the page, its values if they are few, and whose memory it is."""

    about: dict[str, Any]
    grid: np.ndarray | None
    storage: int
    nbytes: int


def look(t: Tensor) -> Seen:
    """Looks at a gradient; `norm` is the Euclidean one."""
    storage = t.array.storage
    return Seen(*_summary(_values(t), t.array.layout), id(storage), storage.layout.nbytes)


def _values(t: Tensor) -> np.ndarray:
    """The values of a gradient."""
    values = t.array.np if t.array.layout.device.type == "cpu" else t.array.layout.device.download(t.array)
    return np.asarray(values, dtype=np.float64)


def _summary(values: np.ndarray, layout: Layout) -> tuple[dict[str, Any], np.ndarray | None]:
    """What the page says of values, and some of them."""
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
        largest = max(abs(low), abs(high))
        if high - low <= max(1e-12 * largest, 1e-300):      # bins would be narrower than numbers can be told apart
            half = (largest if largest > 1e-290 else 1.0) / 2
            low, high = low - half, high + half
        counts = np.histogram(finite.astype(np.float64), _BINS, (low, high))[0]
        about["hist"] = {"low": low, "high": high, "counts": counts.tolist()}
    grid = None
    if values.ndim and layout.size > 1:
        grid = np.atleast_2d(values[(0,) * (values.ndim - 2)] if values.ndim > 2 else values)
        about["heat"] = {"of": list(grid.shape), "leading": max(values.ndim - 2, 0)}
        grid = _thinned(grid, _GRID).astype(np.float32)
    return about, grid


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
    shown, with its kernel, sizes, bytes and time. If its recording is from before, it is recorded anew for this, which
    is two calls more: only then are ops and modules known. RuntimeError if there is neither a graph nor a launch, and
    for a loss with several elements; FileNotFoundError if the folder of `path` is not there.

    >>> study.explore(lambda: nn.functional.cross_entropy(model(x), y), "backward.html")
    >>> study.explore(train_step, "step.html", args=(x, y))
    """
    path = Path(path)
    if not path.parent.is_dir():
        fail("explore", f"the folder of the page is not there: {path.parent}", "", "make it first, or give another "
             "path", kind=FileNotFoundError)
    record = _observed(target, tuple(args))
    title = getattr(target, "__name__", "").replace("<lambda>", "") or "a loss"
    data = Page(record).data(title)
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    # no "<" inside: nothing in the data can end the page's script
    dumped = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    path.write_text(text.replace("{{title}}", escape(title)).replace("{{data}}", dumped), encoding="utf-8")
    return path


class _Steps(Record):
    """A record that also keeps the nodes whose backward ran (what the function returns may not keep them), and reads
    their graph before backward frees what it saved.

    after     by step: what the walk launched between it and the next one, casts and sums of gradients
    sums      the sum of the gradients that were sent to an edge so far, of their magnitudes, and if hooks are called
              between; for leaves that are used several times, and while there are hooks for all edges
    changed   (step, output): where the gradient that came in is not the sum of what was sent: a hook changed it
    created   of a node: how many steps had begun when it was recorded
    value     the loss
    """

    def __init__(self) -> None:
        super().__init__(look)
        self.value: float | None = None
        self.nodes: list[Node] = []
        self.created: weakref.WeakKeyDictionary[Node, int] = weakref.WeakKeyDictionary()
        self.begin()

    def begin(self) -> None:
        """Forgets the steps so far."""
        self.backwards.clear()
        self.nodes.clear()
        self.created.clear()
        self.structure = Structure()
        self.reader: Reader | None = None
        self.shown: list[Any] = []
        self.uses: Counter[int] = Counter()             # of what the picture shows, by its id
        self.after: dict[int, list[Launch]] = {}
        self.sums: dict[Any, tuple[np.ndarray, np.ndarray, bool]] = {}
        self.changed: set[tuple[int, int]] = set()

    def _recorded(self, node: Node) -> None:
        super()._recorded(node)
        if get_ident() == self.thread:
            self.created[node] = len(self.nodes)

    def _backward(self, node: Node, given: list, run: Callable[[], Any]) -> Any:
        if get_ident() != self.thread:
            return run()
        step, inner = len(self.nodes), bool(self._running)
        self.nodes.append(node)
        if not inner:
            if self.structure.id_of(node) is None:
                self.read(node)
            self.compare(step, node, given)
        results = super()._backward(node, given, run)
        if not inner:
            self.send(node, results)
        return results

    def read(self, node: Node) -> None:
        """Reads the graph of a node: nothing of it is freed yet, since all that uses the node came before it."""
        if self.reader is None:
            self.reader = Reader(Names(), lambda name: False, self.structure)
        self.shown += self.reader.add([node])
        self.uses = Counter(source for source, _, x in self.structure.edges() if x.differentiable)

    def finish(self) -> None:
        """Ends the reading."""
        if self.reader is not None:
            at, created = self.reader.at, {}
            for edge in self.reader.held:
                if isinstance(edge, Node) and id(edge) in at:
                    created[at[id(edge)][0][0]] = -edge.seq
            self.reader.read([n for s, n in zip(self.backwards, self.nodes, strict=True) if not s.depth],
                             sorted(self.shown, key=created.__getitem__))

    def send(self, node: Node, results: Sequence[Tensor | None]) -> None:
        """Adds the gradients that a node sends to the sums of those to whom they go."""
        every = hooks.tables or node_hooks.tables or node_pre_hooks.tables
        for edge, g in zip(node.inputs, results, strict=False):
            if edge is None or g is None:
                continue
            if every or isinstance(edge, Variable) and self.uses[self.structure.id_of(edge) or 0] > 1:
                with unseen(), no_grad():
                    values = np.array(_values(fit(g, edge.layout)))     # type: ignore[arg-type]
                total, magnitude, hooked = self.sums.get(_key(edge), (0.0, 0.0, False))
                between = hooks.of(edge) or node_pre_hooks.of(node_of(edge)) or node_hooks.of(node)
                with np.errstate(all="ignore"):
                    self.sums[_key(edge)] = total + values, magnitude + np.abs(values), hooked or bool(between)

    def compare(self, step: int, node: Node, given: list) -> None:
        """Notes where a gradient is not the sum of those that were sent."""
        for i, g in enumerate(given):
            total, magnitude, hooked = self.sums.pop((id(node), i), (0.0, 0.0, False))
            if hooked and g is not None:
                with unseen(), no_grad(), np.errstate(all="ignore"):
                    values, top = _values(g), float(np.max(magnitude, initial=0.0))
                    near = _ROUNDING.get(g.dtype.itemsize, 0.1) * (top if math.isfinite(top) else 0.0)
                    if not np.allclose(values, total, rtol=0, atol=near, equal_nan=True):
                        self.changed.add((step, i))

    def _launched(self, kernel: Kernel, arguments: tuple) -> None:
        before = len(self.launches)
        super()._launched(kernel, arguments)
        if len(self.launches) > before and not self._running and self.backwards and _between(sys._getframe(1)):
            step = max(i for i, s in enumerate(self.backwards) if not s.depth)
            self.after.setdefault(step, []).append(self.launches[-1])


def _key(edge: Edge) -> tuple[int, int]:
    return id(node_of(edge)), getattr(edge, "index", 0)


def _between(frame: Any) -> bool:
    """Does the walk itself ask for a launch, and not a hook of the user's?"""
    for f in frames(frame):
        if f.f_code is walk.__code__ or not is_own(f):
            return f.f_code is walk.__code__
    return False


def _observed(target: Any, args: tuple) -> _Steps:
    """Runs what is to be explored."""
    if not isinstance(target, Tensor) and not callable(target):
        fail("explore", "it takes a loss, or a function that computes it", type(target).__name__,
             "for example explore(lambda: criterion(model(x), y), path)", TypeError)
    with _Steps() as record:
        result = target if isinstance(target, Tensor) else target(*args)
        loss: Any = result[0] if isinstance(result, tuple) and result else result
        node = loss.node if isinstance(loss, Tensor) else None
        if node is not None and node_of(node) not in record.nodes:
            if loss.array.layout.size != 1:
                fail("explore", "the loss must be a scalar", loss.array.layout, "reduce it first: loss.sum()")
            record.begin()                              # what came before are gradients inside the function
            run_backward(loss)
    if isinstance(getattr(target, "__func__", target), Captured) and not any(x.replayed for x in record.launches):
        with _Steps() as record:                        # the first call recorded the step, this one replays it
            loss = target(*args)
            loss = loss[0] if isinstance(loss, tuple) and loss else loss
    if any(x.nameless for x in record.launches) and not record.backwards:
        captured = getattr(target, "__func__", target)
        if isinstance(captured, Captured):              # recorded before: a new recording knows the names
            again = Captured(captured.function)
            return _observed(MethodType(again, target.__self__) if captured is not target else again, args)
    if not record.backwards and not record.launches:
        fail("explore", "needs a loss with a graph, or a function that computes something", type(result).__name__,
             "let a parameter require gradients, and do not compute under no_grad()")
    if isinstance(loss, (int, float)) or isinstance(loss, Tensor) and loss.array.layout.size == 1:
        record.value = float(loss)
    record.finish()
    return record


class Page:
    """The data of a page: steps (the backward of each node), launches, graph, sources."""

    def __init__(self, record: _Steps) -> None:
        self.record, self.structure = record, record.structure
        self.steps, self.nodes = record.backwards, record.nodes
        self.index = {id(node): i for i, node in enumerate(self.nodes)}         # of a node's step
        self.shown = [self.known(node) for node in self.nodes]
        self.freed = {x.memory: i for i, node in enumerate(self.shown) if node
                      for x in node.saved if not self.kept(x)}                  # the last step that uses a memory
        self.groups: list[dict[str, Any]] = []
        self.group_of: dict[int, int] = {}              # the innermost group of a node of the picture, by its id
        self.leaves: dict[int, list[str]] = {}          # that a node of the picture gives gradients to, by its id
        gradients = sum(g is not None for s in self.steps for g in (*s.given, *s.results))
        leaves = [id(e) for s, of in zip(self.steps, self.nodes, strict=True) if not s.depth
                  for g, e in zip(s.results, of.inputs, strict=False) if g is not None and isinstance(e, Variable)]
        self.parts, self.reached = Counter(leaves), Counter[int]()      # gradients of a leaf: all, and those shown
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
            after = [at[id(x)] for x in self.record.after.get(i, ())]
            step = {**self.step(i, s, node), "saved": self.saved(i), "forward": made,
                    "launches": [*[at[id(x)] for x in s.launches], *after]}
            steps.append(step)
            for k in after:
                launches[k]["after"] = True
            for k in (*step["launches"], *step["forward"]):
                launches[k]["group"] = step["group"]
            for k in step["launches"]:
                launches[k]["step"] = i
        self.place(launches)
        value = self.record.value
        about = [f"value {value:.6g}"] if value is not None else []
        about += [f"{len(steps)} steps of backward"] * bool(steps) + [f"{len(launches)} launches"]
        return {"title": title, "about": ", ".join(about),
                "notes": [*self.structure.notes, *self.record.doubts()], "steps": steps, "nodes": nodes,
                "edges": edges, "groups": self.groups, "ops": self.sources(),
                "memory": self.memory(), "launches": launches}

    def place(self, launches: list[dict[str, Any]]) -> None:
        """Puts the launches that belong to no node (counters, running statistics) into the group of their module's
        call, if something of the graph is in it."""
        calls = [x.called_at.calls[-1] if x.called_at is not None and x.called_at.calls else 0
                 for x in self.record.launches]
        groups: dict[int, int] = {}
        for x, call in zip(launches, calls, strict=True):
            k = x["group"]
            while k >= 0 and (self.groups[k]["kind"], self.groups[k]["path"]) != ("module", x["module"]):
                k = self.groups[k]["parent"]
            if call and k >= 0:
                groups[call] = k
        for x, call in zip(launches, calls, strict=True):
            if x["group"] < 0:
                x["group"] = groups.get(call, -1)

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
                 "after": False, "module": x.module, "line": x.line, "code":
                 linecache.getline(*x.called_at.lines[0][:2]).strip()
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
                "group": self.group_of[node.id] if node else -1,
                "given": [self.gradient(g, hooked=(i, k) in self.record.changed) for k, g in enumerate(s.given)],
                "results": [self.gradient(g, name=n, **self.target(e), **self.part(s, g, e))
                            for g, n, e in zip(s.results, names, of.inputs, strict=False)],
                "line": node.line if node else "", "code": node.lines[0][3] if node and node.lines else "",
                "backward": node.backward if node else "", "why": node.why if node else "",
                "attrs": ", ".join(f"{k}={v}" for k, v in node.attrs.items()) if node else ""}

    def part(self, s: Backward, g: Seen | None, edge: Any) -> dict[str, Any]:
        """Which part of its gradient a leaf gets, if there are several; with the last one their sum."""
        n = self.parts[id(edge)] if isinstance(edge, Variable) and g is not None and not s.depth else 0
        if n < 2:
            return {}
        self.reached[id(edge)] += 1
        part: dict[str, Any] = {"part": self.reached[id(edge)], "parts": n}
        found = self.record.sums.get(_key(edge)) if part["part"] == n else None
        if found is not None:
            part["total"] = self.gradient(Seen(*_summary(found[0], edge.layout), 0, 0))
        return part

    def target(self, edge: Any) -> dict[str, Any]:
        """Where a gradient goes: to a step, or to a leaf by name."""
        if isinstance(edge, Variable):
            node = self.known(edge)
            return {"to": -1, "leaf": node.label if node else "leaf", "hooks": bool(hooks.of(edge))}
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
        first: dict[int, int] = {}                          # by memory: the step before which it was there
        for node, shown in zip(self.nodes, self.shown, strict=True):
            for x in shown.saved if shown is not None else ():
                begin = self.record.created.get(node, 0)
                first[x.memory] = min(first.get(x.memory, begin), begin)
        held, later = 0, Counter[int]()
        for m in freed:
            later[first[m]] += sizes[m]
        pending: dict[Any, tuple[int, int]] = {}            # by edge: a gradient's memory and its bytes
        numbers = count()
        found: list[tuple[int, int]] = []
        for i, s in enumerate(self.steps):
            held += later[i]
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
    note = group.note.removeprefix(group.name) if group.note.split(",")[0] == group.name else group.note
    return f"{group.name} {note.lstrip(', ')}".strip()


def _rounded(box: Box) -> dict[str, float]:
    return {k: round(v, 1) for k, v in asdict(box).items()}


def _number(x: Any) -> Any:
    """A number as JSON has it: nan and infinities as text."""
    return x if not isinstance(x, float) or math.isfinite(x) else str(x)
