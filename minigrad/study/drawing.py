"""The picture of a graph, as SVG. Sizes of text are estimated, since fonts are known to the viewer only."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from textwrap import wrap
from typing import Any

from ..core.table import shortened, size
from .layered import Box, Layout, Route, arrange
from .listing import argument, kept, kept_bytes, title
from .structure import GraphNode, Group, Structure

_PATHS = {"fused": "fused kernel", "kernel": "kernel of a primitive", "NumPy": "NumPy: no kernel", "view": "view",
          "function": "autograd.Function", "checkpoint": "checkpoint", "gradient": "backward, recorded",
          "in place": "change in place"}
_KINDS = {"definition": "op without a kernel here: its definition", "opened": "opened to what it computes"}
_SMALL, _LINE = 6.65, 15.0         # of a small character and of a line, in pixels

_STYLE = """
.mg-graph{--page:#fff;--text:#1b1f24;--soft:#5b6470;--line:#7b8591;--box:#fff;--edge:#c3cad2;--group:#f5f7f9;
--group2:#ebeff3;--fused:#0072b2;--kernel:#8a949e;--numpy:#d55e00;--view:#b9c1c9;--function:#cc79a7;
--checkpoint:#b8860b;--gradient:#56b4e9;--inplace:#7b3294;--leaf:#009e73;
--param:#00714f;--leafbox:#e3f4ee;--data:#eef0f2;
font-family:ui-sans-serif,
system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){.mg-graph{DARK}}
[data-jp-theme-light="false"] .mg-graph,.dark .mg-graph{DARK}
.mg-graph .page{fill:var(--page)} .mg-graph text{fill:var(--text);font-size:13px}
.mg-graph .name{font-weight:600} .mg-graph .small{font:11px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
.mg-graph .soft{fill:var(--soft)} .mg-graph .group{fill:var(--group);stroke:var(--edge)}
.mg-graph .group.odd{fill:var(--group2)} .mg-graph .opened,
.mg-graph .definition{stroke:var(--fused);stroke-dasharray:5 3} .mg-graph .definition{stroke:var(--numpy)}
.mg-graph .head{font-weight:600;font-size:12px;stroke:var(--group);
stroke-width:4px;paint-order:stroke;stroke-linejoin:round} .mg-graph .head.odd{stroke:var(--group2)}
.mg-graph .box{fill:var(--box);stroke:var(--edge)} .mg-graph .folded .box{stroke-width:2}
.mg-graph .leaf .box{fill:var(--leafbox);stroke:var(--leaf)} .mg-graph .data .box{fill:var(--data);stroke:var(--edge)}
.mg-graph .view .box{stroke-dasharray:3 3} .mg-graph .output .box{stroke:var(--text);stroke-width:2}
.mg-graph .edge{fill:none;stroke:var(--line);stroke-width:1.3} .mg-graph .edge.constant{stroke-dasharray:3 3}
.mg-graph .tip{fill:var(--line);stroke:none} .mg-graph .param{fill:var(--param)}
.mg-graph .legend{font-size:12px}
"""
_DARK = ("--page:#14181d;--text:#e6e9ed;--soft:#a3adb8;--line:#8d98a4;--box:#20262d;--edge:#46505b;--group:#1a1f25;"
         "--group2:#20262e;--fused:#4aa8e0;--kernel:#77828e;--numpy:#f08a3c;--view:#5c6670;--function:#e39ac3;"
         "--checkpoint:#e0b040;--gradient:#7cc8f2;--inplace:#c08fe0;--leaf:#3cc79c;--param:#3cc79c;"
         "--leafbox:#17322a;--data:#262c33")
_COLOURS = {"NumPy": "numpy", "in place": "inplace"}


class Picture:
    """A picture being drawn. `backward`: the edges of gradients, from the loss to the leaves."""

    def __init__(self, structure: Structure, backward: bool) -> None:
        self.structure, self.backward, self.nodes = structure, backward, structure.nodes
        self.roots = {i for i, _ in structure.outputs}
        self.depths = _depths(structure.root)
        # a parameter that one node uses, or very many, is a line in their boxes
        self.inlined = {n.id for n in self.nodes.values()
                        if n.kind == "leaf" and n.path == "parameter" and (n.uses == 1 or n.uses > 3)}
        self.lines = {n.id: self.text_of(n) for n in self.nodes.values()}

    def drawn(self, i: int) -> bool:
        """Has a node a box of its own?"""
        return i not in self.inlined and not (self.backward and self.nodes[i].kind == "data")

    # ---- what stands in a box ----

    def text_of(self, node: GraphNode) -> list[tuple[str, str]]:
        """The small lines of a node: (class, text)."""
        found = [("", f"{i}: {o}") for i, o in enumerate(node.outputs) if len(node.outputs) > 1]
        if len(found) > 4:
            found = [*found[:3], ("", f"... {len(found)} outputs")]
        for x in node.inputs:
            if x.source in self.inlined:
                leaf = self.nodes[x.source]                                             # type: ignore[index]
                label = leaf.label.removeprefix(f"{node.module}.") + (".grad" if self.backward else "")
                found.append(("param", f"{label} {x.value}" + (f", one of {leaf.uses} uses" if leaf.uses > 1 else "")))
            elif x.number and not self.backward:
                found.append(("soft", f"{x.name} = {x.number}"))
        if kept(node) and not self.backward:
            found.append(("soft", f"keeps {size(kept_bytes([node]))}"))
        if node.freed:
            found.append(("soft", "freed"))
        if node.uses > 1 and (self.backward or node.kind == "leaf"):
            found.append(("soft", f"sums {node.uses} gradients"))
        return found

    def name(self, node: GraphNode) -> str:
        """The large line of a node."""
        backward = node.backward if node.kind == "op" else f"{node.label}.grad"
        return shortened(backward if self.backward else node.label, 44)

    def shape(self, node: GraphNode) -> str:
        """What stands beside the name: the output, if there is one."""
        return str(node.outputs[0]) if len(node.outputs) == 1 else ""

    def folded_text(self, group: Group) -> list[str]:
        """The lines of a folded group."""
        inside = [self.nodes[i] for i in group.ids()]
        ops = [n for n in inside if n.kind == "op"]
        kinds = Counter(n.op for n in ops).most_common()
        most = ", ".join(f"{c} {op}" for op, c in kinds[:2]) + (", …" if len(kinds) > 2 else "")
        return [f"{len(ops)} nodes: {most}", f"keeps {size(kept_bytes(ops))}"]

    def head(self, group: Group) -> str:
        """The title of a group."""
        return shortened(f"{group.name}  {group.note}".strip(), 60)

    def size(self, of: Any) -> tuple[float, float]:
        """The size of a node or folded group; for an open group, the width of its title."""
        if isinstance(of, Group):
            if not of.folded:
                return len(self.head(of)) * 7.2 + 24, 0.0
            inside = self.folded_text(of)
            wide = max(_wide(self.head(of)), max(map(len, inside)) * _SMALL)
            return wide + 26, 28 + _LINE * len(inside)
        node, lines = self.nodes[of], self.lines[of]
        number = len(str(of)) * _SMALL + 22 if node.kind == "op" else 4
        first = _wide(self.name(node)) + 8 + len(self.shape(node)) * _SMALL + number
        return max([first, *[len(t) * _SMALL for _, t in lines]]) + 24, 27 + _LINE * len(lines) + (3 if lines else 0)

    # ---- drawing ----

    def svg(self) -> str:
        """The picture."""
        edges = [(x.output, source, node.id, x.differentiable) for source, node, x in self.structure.edges()]
        if self.backward:
            pairs = [(t, 0, s) for _, s, t, differentiable in edges if differentiable]
        else:
            pairs = [(s, o, t) for o, s, t, _ in edges]
        layout = arrange(self.structure.root, pairs, self.size, self.drawn, reverse=self.backward)
        constant = {(s, o, t) for o, s, t, d in edges if not d}
        parts = [*self.group_boxes(layout), *self.edges(layout, constant), *self.heads(layout),
                 *[self.box(i, box) for i, box in layout.boxes.items()]]
        parts += [self.folded(group, box) for group, box in layout.groups if group.folded]
        head = ("backward of the " if self.backward else "") + title(self.structure)
        width, height, top = max(layout.width, _wide(head) + 28), layout.height, 40.0
        legend, deep = self.legend(width)
        total = height + top + deep
        return (f'<svg xmlns="http://www.w3.org/2000/svg" class="mg-graph" width="{width:.0f}" height="{total:.0f}" '
                f'viewBox="0 0 {width:.1f} {total:.1f}" role="img" aria-label="{escape(head)}"><style>'
                f'{_STYLE.replace("DARK", _DARK)}</style><rect class="page" width="100%" height="100%"/>'
                f'<text x="14" y="25" class="name">{escape(head)}</text>'
                f'<g transform="translate({(width - layout.width) / 2:.1f},{top})">{"".join(parts)}</g>'
                f'<g transform="translate(0,{height + top:.1f})">{legend}</g></svg>')

    def legend(self, width: float) -> tuple[str, float]:
        """What the colours and dashes mean, and the notes, below the picture; and the height of it."""
        paths = {n.path for n in self.nodes.values()}
        marks = [(_rect(Box(0, -9, 12, 12), "", 2, style=_fill(path)), text) for path, text in _PATHS.items()
                 if path in paths]
        kinds = {g.kind for g in self.structure.root.groups() if not g.folded}
        marks += [(_rect(Box(0, -9, 12, 12), f"group {kind}", 2), text) for kind, text in _KINDS.items()
                  if kind in kinds]
        if not self.backward and any(not x.differentiable for _, _, x in self.structure.edges()):
            marks.append(('<path class="edge constant" d="M0 -3h13"/>', "no gradient"))
        x, y, parts = 14.0, 14.0, []
        for mark, text in marks:
            wide = len(text) * 6.7 + 34
            if x > 14 and x + wide > width:
                x, y = 14.0, y + 20
            parts.append(f'<g transform="translate({x:.1f},{y:.1f})">{mark}'
                         f'{_text(18, 1, "soft legend", text)}</g>')
            x += wide
        for note in self.structure.notes:
            for line in wrap(note, max(40, int((width - 28) / _SMALL))):
                y += 17
                parts.append(_text(14, y, "small soft", escape(line)))
        return "".join(parts), y + 16

    def group_boxes(self, layout: Layout) -> Iterator[str]:
        """The frames of open groups."""
        for group, b in layout.groups:
            if not group.folded:
                tip = escape(f"{group.path} {group.note}".strip())
                yield _rect(b, f"group {group.kind}{self.odd(group)}", 8, f"<title>{tip}</title>")

    def heads(self, layout: Layout) -> Iterator[str]:
        """The titles of open groups, above the edges."""
        for group, b in layout.groups:
            if not group.folded:
                head = shortened(self.head(group), int((b.w - 20) / 7.0))
                note = f'<tspan class="soft" font-weight="400">{escape(head[len(group.name):])}</tspan>'
                yield _text(b.x + 10, b.y + 17, f"head{self.odd(group)}", escape(head[:len(group.name)]) + note)

    def odd(self, group: Group) -> str:
        """The class of every second depth."""
        return " odd" if self.depths[id(group)] % 2 else ""

    def edges(self, layout: Layout, constant: set[tuple[int, int, int]]) -> Iterator[str]:
        """The edges; those of one output run together where they can."""
        times = Counter((r.source, r.output, r.target) for r in layout.routes)
        drawn: dict[str, None] = {}
        marks: dict[str, None] = {}
        for r in layout.routes:
            ident = r.source, r.output, r.target
            style = "edge constant" if ident in constant and not self.backward else "edge"
            drawn[f'<path class="{style}" d="{_curve(r)}"/>'] = None
            x, y = r.points[-1]
            marks[f'<path class="tip" d="M{x:.1f} {y:.1f}l-4 -7h8z"/>'] = None
            if times[ident] > 1:
                marks[_text(x + 7, y - 5, "small soft", f"×{times[ident]}")] = None
        return iter([*drawn, *marks])

    def box(self, i: int, b: Box) -> str:
        """A node."""
        node = self.nodes[i]
        kinds = f"{node.kind} {node.path.replace(' ', '')}" + (" output" if i in self.roots else "")
        shape = f'<tspan class="small soft" dx="8">{escape(self.shape(node))}</tspan>'
        parts = [_rect(b, "box", 5 if node.kind == "op" else 14)]
        if node.kind == "op":
            parts += [_rect(Box(b.x, b.y, 6, b.h), "", 3, style=_fill(node.path)),
                      _text(b.x + b.w - 8, b.y + 18, "small soft", f"#{i}", 'text-anchor="end"')]
        parts += [_text(b.x + 14, b.y + 18, "name", escape(self.name(node)) + shape),
                  *[_text(b.x + 14, b.y + 33 + k * _LINE, f"small {kind}", escape(line))
                    for k, (kind, line) in enumerate(self.lines[i])]]
        return f'<g class="{kinds}" data-id="{i}"><title>{escape(self.tip(node))}</title>{"".join(parts)}</g>'

    def folded(self, group: Group, b: Box) -> str:
        """A folded group."""
        lines = [_text(b.x + 14, b.y + 33 + k * _LINE, "small soft", escape(line))
                 for k, line in enumerate(self.folded_text(group))]
        return (f'<g class="folded"><title>{escape(f"{group.path} {group.note}, folded")}</title>'
                f'{_rect(Box(b.x + 4, b.y + 4, b.w - 4, b.h - 4), "box", 6)}'
                f'{_rect(Box(b.x, b.y, b.w - 4, b.h - 4), "box", 6)}'
                f'{_text(b.x + 14, b.y + 18, "name", escape(self.head(group)))}{"".join(lines)}</g>')

    def tip(self, node: GraphNode) -> str:
        """What a viewer shows when the mouse rests on a node."""
        found = [f"#{node.id} {node.label}" + (f" ({node.backward})" if node.backward else "")]
        found += [f"in {node.module}"] if node.module else []
        found += [f"{node.line}: {node.lines[0][3]}"] if node.lines else []
        found += [node.why] if node.why else []
        found += [f"launches {', '.join(node.launches)}"] if node.launches else []
        found += [argument(x, self.structure) + (f" {x.value}" if x.value and x.source is not None else "")
                  for x in node.inputs]
        found += [f"keeps {s.name} {s.value}, {size(s.nbytes)}" + (f", made at {s.line}" if s.line else "")
                  for s in node.saved]
        if node.op in self.structure.ops and self.structure.ops[node.op].formula:
            found += ["", self.structure.ops[node.op].formula]
        return "\n".join(found)


def _wide(text: str) -> float:
    """The width of large letters in pixels, in the widest of the usual fonts."""
    return 13 * sum(0.45 if c in "fijlrt.,:;|()[]' " else 1.05 if c in "mwMW" else 0.78 if c.isupper() else 0.7
                    for c in text)


def _fill(path: str) -> str:
    return f'style="fill:var(--{_COLOURS.get(path, path)})"'


def _rect(b: Box, kind: str, round: float, inside: str = "", style: str = "") -> str:
    return (f'<rect class="{kind}" x="{b.x:.1f}" y="{b.y:.1f}" width="{b.w:.1f}" height="{b.h:.1f}" rx="{round}" '
            f'{style}>{inside}</rect>')


def _text(x: float, y: float, kind: str, content: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" {more}>{content}</text>'


def _depths(root: Group, depth: int = 0) -> dict[int, int]:
    found = {id(root): depth}
    for child in root.children:
        if isinstance(child, Group):
            found.update(_depths(child, depth + 1))
    return found


def _curve(r: Route) -> str:
    """The path of an edge: curves that begin and end vertically."""
    (x, y), *rest = r.points
    parts = [f"M{x:.1f} {y:.1f}"]
    for i, (a, b) in enumerate(rest):
        b = b - 6 if i == len(rest) - 1 else b
        if abs(a - x) < 0.5:
            parts.append(f"L{a:.1f} {b:.1f}")
        else:
            m = (y + b) / 2
            parts.append(f"C{x:.1f} {m:.1f} {a:.1f} {m:.1f} {a:.1f} {b:.1f}")
        x, y = a, b
    return "".join(parts)
