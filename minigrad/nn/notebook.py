"""What a notebook shows of a module: its tree, with the parameters and buffers of each module, to open and close."""
from __future__ import annotations

from html import escape
from typing import Any

from ..core.tensor import Tensor

_OPEN = 2               # so many levels are open at first
_STYLE = ("<style>.mg-module{font-size:13px;line-height:1.5}.mg-module details{margin-left:1.1em}"
          ".mg-module>details{margin-left:0}.mg-module summary{cursor:pointer}.mg-module .leaf{margin-left:2.2em}"
          ".mg-module code{background:none}.mg-module .soft{opacity:.7}</style>")


def module_html(module: Any) -> str:
    """The tree of a module as HTML. Modules in a row that look alike are shown once."""
    return f'<div class="mg-module">{_STYLE}{_tree("", module, 0)}</div>'


def _tree(name: str, module: Any, depth: int) -> str:
    label = f"{escape(name)} " if name else ""
    extra = escape(module.extra_repr().replace("\n", ", "))
    count = sum(p.numel() for p in module.parameters())
    size = f' <span class="soft">{count:,} parameters</span>' if count else ""
    title = f"{label}<b>{escape(type(module).__name__)}</b><code>({extra})</code>{size}"
    inside = [_tensor(n, p) for n, p in module._parameters.items() if p is not None]
    inside += [_tensor(n, b, "buffer") for n, b in module._buffers.items() if b is not None]
    runs: list[tuple[str, str, str, Any]] = []       # (first name, last name, text, module) of those that look alike
    for n, child in module._modules.items():
        if child is None:
            continue
        text = repr(child)
        if runs and runs[-1][2] == text:
            runs[-1] = (runs[-1][0], n, text, runs[-1][3])
        else:
            runs.append((n, n, text, child))
    inside += [_tree(a if a == b else f"{a} to {b}, each", child, depth + 1) for a, b, _, child in runs]
    if not inside:
        return f'<div class="leaf">{title}</div>'
    return f"<details{' open' if depth < _OPEN else ''}><summary>{title}</summary>{''.join(inside)}</details>"


def _tensor(name: str, t: Tensor, kind: str = "") -> str:
    note = kind or ("" if t.requires_grad else "not trained")
    return (f'<div class="leaf"><code>{escape(name)} {t.dtype}{list(t.shape)}</code> '
            f'<span class="soft">{note}</span></div>')
