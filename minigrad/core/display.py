"""What is shown of a tensor: its text; for notebooks a table, with shape, dtype, device and place in the graph above."""
from __future__ import annotations

from typing import Any

import numpy as np

from .tape import Variable, mode

_EDGE = 5           # rows and columns shown at each end


def host_values(t: Variable, reader: str) -> np.ndarray:
    """The values as a NumPy array; a recording refuses it in the name of `reader`."""
    if mode.recorder is not None:
        mode.recorder.refuse(reader)
    device = t.array.layout.device
    return t.array.np if device.type == "cpu" else device.download(t.array)


def text(t: Variable) -> str:
    """`repr(t)`: values to four digits, and what differs from a float32 leaf on the CPU."""
    layout = t.array.layout
    values = np.array2string(host_values(t, "repr()"), separator=", ", prefix="tensor(", precision=4, threshold=1000)
    notes = []
    if layout.size == 0 and layout.shape != (0,):
        notes.append(f"size={layout.shape}")
    if layout.dtype not in (np.float32, np.int64, np.bool_) or layout.size == 0:
        notes.append(f"dtype={layout.dtype}")
    if layout.device.type != "cpu":
        notes.append(f"device='{layout.device}'")
    if t.node is not None:
        notes.append(f"grad_fn={t.node}")
    elif t.requires_grad:
        notes.append("requires_grad=True")
    return f"tensor({', '.join([values, *notes])})"


def _shown(n: int) -> list[int | None]:
    """The indices shown of n; None stands for those left out."""
    return list(range(n)) if n <= 2 * _EDGE + 1 else [*range(_EDGE), None, *range(n - _EDGE, n)]


def html(t: Variable) -> str:
    """As HTML: up to two dimensions as a table; of more, the last two, the first of each other."""
    from html import escape  # not at import: it brings its table of entities

    values: Any = host_values(t, "_repr_html_()")
    layout = t.array.layout
    notes = [f"tensor {list(layout.shape)}", str(layout.dtype), str(layout.device)]
    if t.node is not None:
        notes.append(f"grad_fn={t.node}")
    elif t.requires_grad:
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
    return f"{float(value):.4g}" if value.dtype.kind in "fV" else str(value)
