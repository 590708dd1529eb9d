"""`study.gradient_flow`: norms of gradients, parameters and updates by layer, and units that no gradient passes."""
from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from threading import get_ident
from typing import Any, cast

import numpy as np

from ..core.engine import fit
from ..core.hooks import RemovableHandle
from ..core.modes import mode, no_grad
from ..core.place import note, places, warn_without_gradient
from ..core.shape import fail
from ..core.table import Shown, Table
from ..core.tape import Node, observers
from ..core.tensor import Tensor
from ..core.watch import watch_backward
from ..nn.module import Module
from .record import line_of, unseen

_NOTHING: tuple[tuple[int, int], Any] = (1, 0), None     # before all edges
_USUAL = 1e-3           # update-to-weight ratios are often near it


@dataclass
class Layer:
    """A parameter: norms of its values, its gradient and its update; None where there is none.

    The gradient is `.grad`; if this was dropped or set to zero in the block, what it was after the last backward.
    """

    name: str
    shape: tuple[int, ...]
    weight: float
    gradient: float | None
    update: float | None = None

    def ratio(self, of: float | None) -> float | None:
        """Of a norm to that of the values."""
        return None if of is None else of / self.weight if self.weight else math.inf if of else 0.0

    def odd(self) -> list[str]:
        """What a log axis cannot show: "no gradient", "gradient 0", "weight nan"."""
        return [f"{name} {value:g}" if value is not None else f"no {name}"
                for name, value in (("weight", self.weight), ("gradient", self.gradient)) if not _positive(value)]


@dataclass
class Activation:
    """The units of an activation function, and how many of them a gradient reached, but never passed, in the block."""

    name: str
    op: str
    units: int
    dead: int


def _flat(node: Node) -> bool:
    """Has the function parts of slope 0, where no gradient passes?"""
    return getattr(node.op, "flat", False)      # of those that `ops/activation.py` makes


def _positive(x: float | None) -> bool:
    """Is there a place for it on a log axis?"""
    return x is not None and 0 < x < math.inf


def _norm(values: np.ndarray[Any, Any]) -> float:
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(values.astype(np.float64).ravel()))


def _host(t: Tensor) -> np.ndarray[Any, Any]:
    """A copy of the values in host memory."""
    with unseen(), no_grad():
        values = np.array(t.array.layout.device.download(t.array))
    return values.astype(np.float32) if values.dtype.kind == "V" else values


class GradientFlow(Shown):
    """How gradients flow through a model: `layers` and `activations`. Made by `gradient_flow`."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.layers: list[Layer] = []
        self.activations: list[Activation] = []
        self._before: dict[str, np.ndarray[Any, Any]] = {}
        self._seen: dict[tuple[str, str], np.ndarray[Any, Any]] = {}    # by unit: did a gradient reach it? pass it?
        self._given: dict[int, tuple[tuple[int, int], Any]] = {}    # by the id of a parameter: see `_note`
        self._warned: set[str] = set()      # names that a warning told; the end of a block tells only others
        self._depth = 0                     # of nodes whose backward runs
        self._watch: RemovableHandle | None = None
        self._thread = 0
        self._read()

    def _read(self) -> None:
        """Reads the norms of now."""
        self.layers = []
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                now, before = _host(p), self._before.get(name)
                with np.errstate(invalid="ignore"):     # inf - inf
                    change = None if before is None else _norm(now - before)
                gradient = None if p.grad is None else _norm(_host(p.grad))
                given = self._given.get(id(p), _NOTHING)[1]
                if not gradient and given is not None:
                    gradient = _norm(given)
                self.layers.append(Layer(name, tuple(p.shape), _norm(now), gradient, change))
        without = [x.name for x in self.layers if x.gradient is None]
        if len(without) < len(self.layers):             # else there was no backward yet, or its gradients were dropped
            warn_without_gradient("gradient_flow", [name for name in without if name not in self._warned])
            self._warned.update(without)

    # ---- a block ----

    def __enter__(self) -> GradientFlow:
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._before = {name: _host(p) for name, p in named.items()}
        self._given = {id(p): _NOTHING for p in named.values()}
        self._seen, self._depth, self._thread = {}, 0, get_ident()
        try:
            observers.append(self._recorded)
            self._watch = watch_backward(self._backward)
        except BaseException:                           # Ctrl-C
            self._off()
            raise
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._off()
        self.activations = [Activation(name, op, seen.shape[1], int((seen[0] & ~seen[1]).sum()))
                            for (name, op), seen in reversed(self._seen.items())]       # backward runs from the last
        if kind is None:
            self._read()
        self._given = {}

    def _off(self) -> None:
        if self._watch is not None:
            self._watch.remove()
        if self._recorded in observers:
            observers.remove(self._recorded)
        self._watch = None

    def _recorded(self, node: Node) -> None:
        if _flat(node) and get_ident() == self._thread:
            note(node, sys._getframe(1))

    def _backward(self, node: Node, given: list, run: Callable[[], Any]) -> Any:
        """Notes what parameters are given, and through which units of an activation function a gradient passes."""
        if get_ident() != self._thread:
            return run()
        self._depth += 1
        try:
            results = run()
        finally:
            self._depth -= 1
        if mode.recorder is not None:                   # values cannot be read
            return results
        if not self._depth:                             # else a part of a node's backward, which returns it again
            self._note(node, results)
        if _flat(node) and results[0] is not None and len(results[0].shape) > 1:
            count = len(results[0].shape)
            others = tuple(i for i in range(count) if i != (count - 1 if count < 4 else 1))
            now = np.stack([(_host(g) != 0).any(others) for g in (given[0], results[0])])
            place = places.get(node)
            where = (place.path().partition(".")[2] if place is not None and place.modules else "") or line_of(place)
            key = where, node.op.name
            before = self._seen.get(key)
            self._seen[key] = now if before is None or before.shape != now.shape else before | now
        return results

    def _note(self, node: Node, results: Any) -> None:
        """Notes the gradients of parameters, which hooks may drop at once: the last edge that gave one, and the sum.

        One backward takes the newest node first (`seq` counts down), and its edges in order. So an edge that does not
        follow the last one begins another backward, which adds to the `.grad` of then.
        """
        for i, (leaf, g) in enumerate(zip(node.inputs, results, strict=False)):
            if g is None or id(leaf) not in self._given:
                continue
            with unseen(), no_grad():
                given = _host(cast(Tensor, fit(g, leaf.array.layout)))
            last, total = self._given[id(leaf)]
            if (node.seq, i) <= last:
                total = None if leaf._grad is None else _host(leaf._grad)
            with np.errstate(all="ignore"):
                self._given[id(leaf)] = (node.seq, i), given if total is None else total + given

    # ---- showing ----

    def as_table(self) -> Table:
        """A line for each parameter, then one for each activation function."""
        def number(x: float | None) -> str:
            return "-" if x is None else f"{x:.3g}"
        rows = [[x.name, "x".join(map(str, x.shape)) or "()",
                 *map(number, (x.weight, x.gradient, x.ratio(x.gradient), x.ratio(x.update))),
                 "" if x.gradient is not None else "no gradient"] for x in self.layers]
        marked = [i for i, x in enumerate(self.layers)
                  if not _positive(x.gradient) or not math.isfinite(x.weight + (x.update or 0))]
        for a in self.activations:
            marked += [len(rows)] if 2 * a.dead > a.units else []
            rows.append([a.name, a.op, "", "", "", "", f"{a.dead} of {a.units} dead"])
        notes = ["norms are those of all elements (L2)"]
        if not self._before:
            notes.append("updates and dead units: with study.gradient_flow(model) as flow: forward, backward, step")
        elif self.activations:
            notes.append("dead units: gradients reached it, but none passed in the whole block")
        if self.layers and all(x.gradient is None for x in self.layers):
            notes.append("no parameter has a gradient: call backward() before, and zero_grad() only before that")
        return Table(["parameter", "shape", "weight", "gradient", "grad/weight", "update/weight", ""], rows,
                     numbers=("weight", "gradient", "grad/weight", "update/weight"), cut=("parameter", "shape"),
                     notes=notes, marked=marked)

    def plot(self, path: str | PathLike[str] | None = None) -> Any:
        """A figure of matplotlib: norms of parameters and gradients, update-to-weight ratios, dead units, in the order
        of the layers. With `path`, it is saved there (PNG, SVG, PDF by the name)."""
        from matplotlib.figure import Figure  # only here: few need it
        from matplotlib.ticker import PercentFormatter
        several = any(x.update is not None for x in self.layers)
        count, dead = len(self.layers), len(self.activations)
        heights = [max(count, 3), max(dead, 2)] if dead else [max(count, 3)]
        figure = Figure(figsize=(11 if several else 7.5, 1.8 + 0.24 * sum(heights)), layout="constrained")
        grid = figure.subplots(len(heights), 2 if several else 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        rows = np.arange(count)
        self._dots(grid[0, 0], [("weight", "o", [x.weight for x in self.layers]),
                                ("gradient", "D", [x.gradient for x in self.layers])],
                   [", ".join(x.odd()) for x in self.layers], "Norms")
        grid[0, 0].set_yticks(rows, [x.name for x in self.layers])
        if several:
            ratios = [x.ratio(x.update) for x in self.layers]
            odd = ["" if _positive(r) else f"update {r:g}" if r is not None else "no update" for r in ratios]
            self._dots(grid[0, 1], [("", "o", ratios)], odd, "Update / weight")
            grid[0, 1].axvline(_USUAL, color="grey", linestyle="--", label=f"{_USUAL:g}, often good")
            grid[0, 1].set_yticks(rows, [""] * count)
        for ax in grid[0]:
            ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderpad=0, handletextpad=0.2)
        if dead:
            self._bars(grid[1, 0], PercentFormatter(1.0))
            for ax in grid[1, 1:]:
                ax.axis("off")
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def _dots(self, ax: Any, series: list[tuple[str, str, list[float | None]]], odd: list[str], title: str) -> None:
        """Values on a log axis, a line for each parameter, the first one on top; beside it what has no place there."""
        ax.set(xscale="log", ylim=(len(self.layers) - 0.5, -0.5))
        for label, marker, values in series:
            shown = [(v, i) for i, v in enumerate(values) if v is not None and _positive(v)]
            ax.plot([v for v, _ in shown], [i for _, i in shown], marker, label=label, markersize=5)
        if not any(map(_positive, [v for _, _, values in series for v in values])):
            ax.set_xlim(_USUAL / 100, 1)                # else matplotlib warns of an axis without a length
        for i, text in enumerate(odd):
            ax.annotate(text, (1.01, i), va="center", xycoords=("axes fraction", "data"), color="firebrick", fontsize=8)
        ax.set_title(title, loc="left")
        ax.grid(True, alpha=0.3)

    def _bars(self, ax: Any, percent: Any) -> None:
        """The share of dead units of each activation function."""
        names = [f"{a.name} ({a.op})" for a in self.activations]
        bars = ax.barh(np.arange(len(names)), [a.dead / a.units for a in self.activations], color="tab:red")
        ax.bar_label(bars, [f"{a.dead} of {a.units}" for a in self.activations], padding=3, fontsize=8)
        ax.set_yticks(np.arange(len(names)), names)
        ax.set_title("Dead units", loc="left")
        ax.set(xlim=(0, 1.15), ylim=(len(names) - 0.5, -0.5), xticks=[0, 0.25, 0.5, 0.75, 1])    # then room for labels
        ax.xaxis.set_major_formatter(percent)
        ax.grid(True, axis="x", alpha=0.3)


def gradient_flow(model: Module) -> GradientFlow:
    """Norms of each parameter and its gradient, as a table (`print`) and a plot (`flow.plot("flow.png")`).

    Called after `backward()`, it reads the gradients that are there. As a context manager around training steps it also
    has those that backward gave in the block and that were dropped since; what changed from the begin of the block to
    its end: update-to-weight ratios, whatever the optimiser; and the dead units of activation functions with flat parts
    (ReLU, ReLU6, Hardtanh, Hardswish, Hardsigmoid), those that a gradient reached but passed for no sample of the
    block. A unit is an index of the last axis, or of axis 1 for tensors with four or more axes. Replays of a captured
    step have updates, but show no units.

    A warning names the parameters that got no gradient. TypeError for anything but a module.

    >>> with study.gradient_flow(model) as flow:
    ...     optimizer.zero_grad()
    ...     criterion(model(x), y).backward()
    ...     optimizer.step()
    >>> print(flow)
    """
    if not isinstance(model, Module):
        fail("gradient_flow", "model must be a module (nn.Module)", type(model).__name__,
             "pass the model that has the parameters", TypeError)
    return GradientFlow(model)
