"""How a tensor is shown: as text (`repr`), and in notebooks as a table with its shape, dtype, device and graph node.

Reading values waits for the device, and is refused while a step is captured.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .modes import mode
from .shown import shown
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
        notes.append(f"grad_fn={shown(t.node)[0]}")
    elif t._requires_grad:
        notes.append("requires_grad=True")
    return f"tensor({', '.join([values, *notes])})"


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
        notes.append(f"grad_fn={shown(t.node)[0]}")
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
    """One value to four digits."""
    return f"{float(value):.4g}" if value.dtype.kind in "fV" else str(value)
