"""What a notebook shows of a tensor: a table with its shape, dtype, device and place in the graph above it."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import mode
from ..tensor import Tensor

_EDGE = 5           # rows and columns shown at each end


def _shown(n: int) -> list[int | None]:
    """The indices shown of n; None stands for those left out."""
    return list(range(n)) if n <= 2 * _EDGE + 1 else [*range(_EDGE), None, *range(n - _EDGE, n)]


def _repr_html_(input: Tensor) -> str:
    """As HTML: up to two dimensions as a table; of more, the last two, the first of each other."""
    from html import escape  # not at import: it brings its table of entities

    if mode.recorder is not None:
        mode.recorder.refuse("_repr_html_()")
    layout = input.array.layout
    notes = [f"tensor {list(layout.shape)}", str(layout.dtype), str(layout.device)]
    if input.node is not None:
        notes.append(f"grad_fn={input.node}")
    elif input.requires_grad:
        notes.append("requires_grad=True")
    values: Any = input.detach().cpu().array.np
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


METHODS = {"_repr_html_": _repr_html_}
