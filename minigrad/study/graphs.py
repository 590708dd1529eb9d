"""`study.graph`: the graph of a loss, as text and as a picture."""
from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from ..core.messages import meant
from ..core.op import Op, registry
from ..core.shape import fail
from ..core.table import at_least_one
from .drawing import Picture
from .folding import fold
from .listing import dot, text, title
from .reading import read
from .structure import Structure

_STYLE = """
body{margin:0;background:light-dark(#fff,#14181d);color:light-dark(#1b1f24,#e6e9ed);color-scheme:light dark}
#view{height:100vh;overflow:hidden;cursor:grab;touch-action:none} #view svg{width:100%;height:100%}
nav{position:absolute;top:10px;right:14px} button{font:13px sans-serif;min-width:2.2em;padding:4px 8px;margin-left:4px}
pre{padding:14px;overflow:auto;font-size:12px}
"""
# the picture opens fitted to the window: its box, which the browser scales, is what is seen of it
_SCRIPT = """
const svg = document.querySelector("#view svg"), view = document.getElementById("view");
const whole = svg.getAttribute("viewBox").split(" ").map(Number);
let box = [...whole];
const show = () => svg.setAttribute("viewBox", box.join(" "));
const scale = () => Math.max(box[2] / view.clientWidth, box[3] / view.clientHeight);        // of the picture in a pixel
function at(e) {                                    // a point of the window in the picture
  const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [p.x, p.y];
}
function zoom(factor, [x, y]) {
  const k = Math.min(Math.max(factor, 0.1 / scale()), Math.max(whole[2], whole[3]) * 2 / Math.max(box[2], box[3]));
  box = [x - (x - box[0]) * k, y - (y - box[1]) * k, box[2] * k, box[3] * k];
  show();
}
const middle = () => [box[0] + box[2] / 2, box[1] + box[3] / 2], fit = () => { box = [...whole]; show(); };
view.addEventListener("wheel", e => {
  e.preventDefault();
  zoom(Math.exp(e.deltaY * 0.0015), at(e));
}, {passive: false});
view.addEventListener("dblclick", fit);
view.addEventListener("pointerdown", e => view.setPointerCapture(e.pointerId));
view.addEventListener("pointermove", e => {
  if (e.buttons) { box[0] -= e.movementX * scale(); box[1] -= e.movementY * scale(); show(); }
});
const MOVES = {all: fit, in: () => zoom(0.77, middle()), out: () => zoom(1.3, middle())};
for (const id in MOVES) document.getElementById(id).onclick = MOVES[id];
addEventListener("keydown", e => ({"0": MOVES.all, "+": MOVES.in, "=": MOVES.in, "-": MOVES.out})[e.key]?.());
"""


class Graph(Structure):
    """The graph of a loss: the data of a `Structure`, as text (`str`), in Graphviz's language, and as a picture.

    In a notebook it shows its picture. Groups whose `folded` is True are drawn as one box.
    """

    def __str__(self) -> str:
        return text(self)

    def __repr__(self) -> str:
        return f"<{title(self)}>"

    def dot(self) -> str:
        """The graph in the language of Graphviz, for other programs."""
        return dot(self)

    def svg(self, backward: bool = False) -> str:
        """The picture: data flows down from the inputs to the loss; with `backward`, gradients from the loss to the
        leaves."""
        return Picture(self, backward).svg()

    def save(self, path: Any, backward: bool = False) -> None:
        """Writes the graph as the suffix says: .svg, .html (the picture, fitted to the window, with zoom by
        wheel, drag and the keys + - 0; below it the text), .dot or .txt. ValueError for
        another one."""
        made = {".svg": lambda: self.svg(backward), ".html": lambda: self._page(backward), ".dot": self.dot,
                ".txt": lambda: str(self) + "\n"}.get(Path(path).suffix)
        if made is None:
            raise ValueError(f"[graph] save needs a path that ends with .svg, .html, .dot or .txt; got {str(path)!r}; "
                             "a browser opens .svg and prints it")
        Path(path).write_text(made(), encoding="utf-8")

    def _page(self, backward: bool) -> str:
        """An HTML page."""
        return (f'<!doctype html><meta charset="utf-8"><title>graph</title><style>{_STYLE}</style>'
                f'<div id="view">{self.svg(backward)}</div><nav><button id="all">fit</button><button id="in">+</button>'
                f'<button id="out">−</button></nav><pre>{escape(str(self))}</pre><script>{_SCRIPT}</script>')

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        """For notebooks: the picture in a box that scrolls."""
        return f'<div style="overflow:auto;max-width:100%;max-height:85vh">{self.svg()}</div>'


def graph(what: Any, /, *args: Any, open: str | bool | Iterable[str] = (), most: int = 400, **kwargs: Any) -> Graph:
    """The graph that `backward` of a tensor would walk; or of what `what(*args, **kwargs)` returns.

    what    a tensor, or several in a list or tuple; or a function, which runs once. Lines, modules and launches are
            known of nodes that were recorded in `with study.Record():`, and always if a function is given
    open    composites that are shown as their definition, and checkpointed blocks as what they compute: names of ops
            ("layer_norm", "checkpoint"), or "all" (True). Their definition runs once more for this
    most    a picture has about as many boxes: in larger graphs, repeated blocks and inner groups are folded

    RuntimeError if no tensor requires a gradient. ValueError for an op that is no composite, and for `most` below 1.

        g = study.graph(lambda: F.cross_entropy(model(x), y))
        print(g)
        g.save("graph.svg")
    """
    chosen = "all" if open is True else open or ()
    names = {chosen} if isinstance(chosen, str) else set(chosen)
    at_least_one("graph", "most", most)
    met: set[str] = set()

    def opens(name: str) -> bool:
        met.add(name)
        return "all" in names or name in names
    found = Graph()
    read(found, what, args, kwargs, opens)
    composites = {"checkpoint", *[name for name, op in registry.items() if isinstance(op, Op)]}
    for name in sorted(names - composites - {"all"}):
        fix = meant(name, composites)[2:] or f"this graph has {', '.join(sorted(met & composites)) or 'none'}"
        fail("graph", "open takes names of composites, 'checkpoint' or 'all'", repr(name), fix, ValueError)
    fold(found, most)
    return found
