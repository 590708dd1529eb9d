"""How a tensor is shown: as text (`repr`), and in notebooks as a table with its shape, dtype, device and graph node.

Reading values waits for the device, and is refused while a step is captured.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from .graph_node import shown
from .modes import mode
from .shape import BOOL, INT64, default_float, is_float
from .tape import Variable

_EDGE = 5           # rows and columns shown at each end


def host_values(t: Variable, reader: str) -> np.ndarray:
    """The values as a NumPy array; on the CPU it shares the tensor's memory. `reader` names the caller.

    RuntimeError while a step is captured: a replay could not read them.
    """
    if mode.recorder is not None:
        mode.recorder.refuse(reader)
    device = t.array.layout.device
    return t.array.np if device.type == "cpu" else device.download(t.array)


# ---- text ------------------------------------------------------------------------------------------------------------

@dataclass
class PrintOptions:
    """How tensors are shown as text; see `set_printoptions`."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {"default": PrintOptions(), "short": PrintOptions(precision=2, edgeitems=2),
             "full": PrintOptions(threshold=float("inf"))}
options = PrintOptions()


def set_printoptions(precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Says how `repr` and `print` show tensors, as `torch.set_printoptions` does.

    precision  digits after the point (4)
    threshold  of a tensor with more elements, only the ends of each dimension are shown (1000)
    edgeitems  so many at each end (3)
    linewidth  columns of a line (80)
    profile    "default", "short" (2 digits, 2 at each end) or "full" (all elements); the other options come on top
    sci_mode   True: 1.0000e+00, False: 1.0000; None, also if left out: by the values

    What is left out stays, but for `sci_mode`. ValueError for an unknown profile or a negative number.

        mg.set_printoptions(precision=2, threshold=50)
    """
    if profile is not None and profile not in _PROFILES:
        raise ValueError(f"[set_printoptions] profile must be 'default', 'short' or 'full'; got {profile!r}")
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None and not value >= 0:
            raise ValueError(f"[set_printoptions] {name} must be a number of at least 0; got {value!r}")
    chosen = vars(_PROFILES[profile]) if profile is not None else vars(options)
    vars(options).update({**chosen, **{n: v for n, v in given.items() if v is not None}, "sci_mode": sci_mode})


class _Numbers:
    """How the numbers of one tensor are written: with one width, and all in one form."""

    def __init__(self, values: np.ndarray, real: bool) -> None:
        self.real, self.whole, self.scientific = real, True, False
        if not real:
            self.width = max([1, *[len(str(v)) for v in values.ravel().tolist()]])
            return
        counted = values[np.isfinite(values) & (values != 0)]
        if counted.size:
            sizes = np.abs(counted)
            low, high = float(sizes.min()), float(sizes.max())
            self.whole = bool((counted == np.ceil(counted)).all())
            self.scientific = options.sci_mode if options.sci_mode is not None else (
                high / low > 1000 or high > 1e8 or low < 1e-4)
        self.width = max([1, *[len(self._form(v)) for v in counted.tolist()]])

    def _form(self, value: Any) -> str:
        if not self.real:
            return str(value)
        if self.scientific:
            return f"{value:.{options.precision}e}"
        if self.whole:
            return f"{value:.0f}" + ("." if isfinite(value) else "")
        return f"{value:.{options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._form(value).rjust(self.width)


def _ends(values: np.ndarray) -> tuple[np.ndarray, tuple[bool, ...]]:
    """The elements that are shown, and in which dimensions some are left out."""
    n = options.edgeitems
    cut = tuple(values.size > options.threshold and size > 2 * n for size in values.shape)
    kept = [np.r_[:n, size - n:size] if c else np.arange(size) for size, c in zip(values.shape, cut, strict=True)]
    return values[np.ix_(*kept)] if values.ndim else values, cut


def _nested(values: np.ndarray, cut: tuple[bool, ...], number: _Numbers, indent: int) -> str:
    """The elements in brackets; `indent` is the column of the first bracket."""
    if not values.ndim:
        return number(values.item())
    last = values.ndim == 1
    parts = [*map(number, values.tolist())] if last else [_nested(v, cut[1:], number, indent + 1) for v in values]
    if cut[0]:
        middle = len(parts) // 2
        parts[middle:middle] = [" ..." if last and parts else "..."]
    if not last:
        return "[" + ("," + "\n" * (values.ndim - 1) + " " * (indent + 1)).join(parts) + "]"
    each = max(1, (options.linewidth - indent) // (number.width + 2))
    lines = [", ".join(parts[i:i + each]) for i in range(0, len(parts), each)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def text(t: Variable) -> str:
    """`repr(t)`, in PyTorch's form: the values, and what differs from a leaf of the default dtype on the CPU."""
    layout = t.array.layout
    name = type(t).__name__
    head = "tensor(" if name in ("Tensor", "Parameter") else f"{name}("
    values = host_values(t, "repr()")
    real = is_float(layout.dtype)
    notes = [f"device='{layout.device}'"] if layout.device.type != "cpu" else []
    if layout.size == 0 and layout.ndim != 1 or layout.size and not options.edgeitems:
        notes.append(f"size={layout.shape}")
    if layout.dtype != default_float() and (layout.size == 0 or layout.dtype not in (INT64, BOOL)):
        notes.append(f"dtype={layout.dtype}")
    if t.node is not None:
        notes.append(f"grad_fn=<{type(shown(t.node)[0]).__name__}>")
    elif t._requires_grad:
        notes.append("requires_grad=True")
    values_text = "[]"
    if layout.size:
        few, cut = _ends(values)
        few = few.astype(np.float64) if real else few
        values_text = _nested(few, cut, _Numbers(few, real), len(head))
    found = head + values_text
    column = len(found) - found.rfind("\n") + 1
    for note in notes:
        fits = column + len(note) + 2 <= options.linewidth
        found += f", {note}" if fits else ",\n" + " " * len(head) + note
        column = column + len(note) + 2 if fits else len(head) + len(note)
    return found + ")"


# ---- other objects ---------------------------------------------------------------------------------------------------

def brief(value: Any) -> str:
    """A value in a few words: a tensor as float32[2, 3], a long list by its length, a function by its name."""
    if isinstance(value, Variable):
        return repr(value.array.layout)
    if isinstance(value, Counter):
        value = sorted(value.elements())
    if isinstance(value, (list, tuple)) and len(value) <= 6:
        return f"[{', '.join(map(brief, value))}]"
    if isinstance(value, Mapping) and len(value) <= 6:
        return f"{{{', '.join(f'{brief(k)}: {brief(v)}' for k, v in value.items())}}}"
    if isinstance(value, (Sequence, Mapping, np.ndarray)) and not isinstance(value, (str, bytes, range)):
        return f"{type(value).__name__} of {len(value)}"
    written = getattr(value, "__qualname__", None) or repr(value)
    short = len(written) <= 200 and "\n" not in written and " object at 0x" not in written
    return written if short else type(value).__name__


def constructed(value: Any) -> str:
    """The `repr` of an object by what it was made of: StepLR(SGD, step_size=30). Options at their defaults are left
    out, and so is what the object does not keep."""
    from inspect import signature  # not at import: it is slow
    parts: list[str] = []
    for name, p in list(signature(type(value).__init__).parameters.items())[1:]:
        kept = vars(value).get(name, vars(value).get(f"_{name}", p.empty))
        if kept is not p.empty and p.kind is p.VAR_POSITIONAL:
            parts += map(brief, kept)
        elif kept is not p.empty and p.default is p.empty and not isinstance(kept, (bool, int, float)):
            parts.append(brief(kept))
        elif kept is not p.empty and not (kept is p.default or type(kept) is type(p.default) and kept == p.default):
            parts.append(f"{name}={brief(kept)}")
    return f"{type(value).__name__}({', '.join(parts)})"


# ---- notebooks -------------------------------------------------------------------------------------------------------

def _shown(n: int) -> list[int | None]:
    """The indices that are shown of n rows or columns; None is the gap."""
    return list(range(n)) if n <= 2 * _EDGE + 1 else [*range(_EDGE), None, *range(n - _EDGE, n)]


def html(t: Variable) -> str:
    """The tensor as HTML: one or two dimensions as a table; of more, the last two at index 0 of the others."""
    from html import escape  # not at import: it loads a large table

    values: Any = host_values(t, "_repr_html_()")
    layout = t.array.layout
    notes = [f"tensor {list(layout.shape)}", str(layout.dtype), str(layout.device)]
    if t.node is not None:
        notes.append(f"grad_fn=<{type(shown(t.node)[0]).__name__}>")
    elif t._requires_grad:
        notes.append("requires_grad=True")
    if values.ndim > 2 and values.size:
        notes.append(f"shown: [{', '.join('0' * (values.ndim - 2))}, :, :]")
        values = values[(0,) * (values.ndim - 2)]
    rows = []
    if values.size:
        grid = np.atleast_2d(values)
        for i in _shown(grid.shape[0]):
            cells = ["⋮" if i is None else "…" if j is None else _number(grid[i, j]) for j in _shown(grid.shape[1])]
            rows.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    return f"<div><code>{escape(', '.join(notes))}</code><table>{''.join(rows)}</table></div>"


def _number(value: Any) -> str:
    """One value to so many digits as `set_printoptions` says."""
    return f"{float(value):.{options.precision}g}" if value.dtype.kind in "fV" else str(value)
