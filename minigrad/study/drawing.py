"""`study.graph`: the graph of a loss as text and as a picture."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from .layered import Box, Layout, Route, arrange
from .reading import read
from .structure import GraphNode, Group, Input, Saved, Structure

_PATHS = {"fused": "fused kernel", "kernel": "kernel of a primitive", "NumPy": "NumPy: no kernel", "view": "view",
          "function": "autograd.Function", "checkpoint": "checkpoint", "gradient": "backward, recorded",
          "in place": "change in place"}
_SMALL, _LARGE, _LINE = 6.65, 8.1, 15.0         # of a character in small and large letters, and of a line, in pixels


def size_text(nbytes: float) -> str:
    """Bytes as text: 784 B, 1.5 KiB, 2.0 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length - 1] + "…"


def _kept(node: GraphNode) -> list[Saved]:
    """What a node keeps and the graph keeps alive by it: parameters live anyway."""
    return [s for s in node.saved if s.kind != "parameter"]


# ---- what is folded --------------------------------------------------------------------------------------------------

def _form(group: Group, nodes: dict[int, GraphNode]) -> tuple:
    """What makes two groups alike: their kinds, types and ops, in order."""
    return (group.kind, group.type, *[_form(c, nodes) if isinstance(c, Group) else nodes[c].op for c in group.children
                                      if isinstance(c, Group) or nodes[c].kind == "op"])


def _boxes(group: Group) -> int:
    """How many boxes a picture of the group has."""
    return 1 if group.folded else sum(_boxes(c) if isinstance(c, Group) else 1 for c in group.children)


def _fold_alike(group: Group, nodes: dict[int, GraphNode], notes: list[str]) -> None:
    """Folds the groups in a group that are like one before them; those that follow each other are one box."""
    first: dict[tuple, Group] = {}
    children: list[Any] = []
    for child in group.children:
        same = first.setdefault(_form(child, nodes), child) if isinstance(child, Group) else child
        if same is child or len(list(child.ids())) < 3:
            children.append(child)
            continue
        child.folded = True
        last = children[-1] if children else None
        if isinstance(last, Group) and last.folded and last.path == f"like {same.path}":
            last.children.append(child)
        else:
            children.append(last := Group("part", "", f"like {same.path}", children=[child], folded=True))
        run = last.children
        last.name = run[0].path if len(run) == 1 else f"{run[0].path} to {run[-1].path}"
        last.type = f"{child.type}, like {same.path}" if len(run) == 1 else f"{len(run)} like {same.path}"
    group.children = children
    notes += [f"folded: {c.name} ({c.type})" for c in children if isinstance(c, Group) and c.kind == "part"]


def _fold_depth(root: Group, most: int, notes: list[str]) -> None:
    """Folds the innermost groups, then those around them, until there are few enough boxes."""
    depths: list[list[Group]] = []

    def visit(group: Group, depth: int) -> None:
        if depth:
            depths.extend([[] for _ in range(depth - len(depths))])
            depths[depth - 1].append(group)
        for child in group.children:
            if isinstance(child, Group) and not child.folded:
                visit(child, depth + 1)
    visit(root, 0)
    for groups in depths[::-1]:
        if _boxes(root) <= most:
            return
        large = [g for g in groups if len(g.children) > 1]
        for g in large:
            g.folded = True
        if large:
            notes.append(f"folded: {len(large)} groups such as {large[0].path}")


def _fold_parts(root: Group, most: int, notes: list[str]) -> None:
    """Where one group alone has too many boxes, folds its children in runs."""
    for group in list(root.groups()):
        if not group.folded and len(group.children) > most:
            length = -(-len(group.children) // (most // 2))
            runs = [group.children[i:i + length] for i in range(0, len(group.children), length)]
            group.children = []
            for run in runs:
                part = Group("part", "part", children=run, folded=True)
                ids = list(part.ids())
                part.name = part.path = f"#{min(ids)} to #{max(ids)}"
                group.children.append(part)
            notes.append(f"folded: {len(runs)} runs of {length} in {group.path or 'the graph'}")


def fold(structure: Structure, most: int) -> None:
    """Folds groups until a picture has about `most` boxes, and notes which."""
    root = structure.root
    level = [root]
    while level and _boxes(root) > most:            # outer ones first: inside of one of several layers, all is shown
        for group in level:
            _fold_alike(group, structure.nodes, structure.notes)
        level = [c for g in level for c in g.children if isinstance(c, Group) and not c.folded]
    if _boxes(root) > most:
        _fold_depth(root, most, structure.notes)
    _fold_parts(root, most, structure.notes)


# ---- text ------------------------------------------------------------------------------------------------------------

def _argument(x: Input, structure: Structure, module: str = "") -> str:
    """An input in the text: `x=#7`, `weight=encoder.weight` (shorter inside `module`), or a number."""
    if x.number:
        return f"{x.name}={x.number}"
    if x.source is None:
        return f"{x.name}=?" if x.value is None else f"{x.name} {x.value}"
    source = structure.nodes[x.source]
    which = f".{x.output}" if len(source.outputs) > 1 else ""
    if source.kind == "op":
        return f"{x.name}=#{x.source}{which}"
    label = source.label.removeprefix(f"{module}.")
    return label if label == x.name else f"{x.name}={label}"


def _rows(group: Group, structure: Structure, depth: int) -> Iterator[tuple[str, ...]]:
    """The forward part: (node with its inputs, outputs, path, what it keeps, line) of each node; a group has one cell.
    """
    pad = "  " * depth
    for child in group.children:
        if isinstance(child, Group):
            inside = [structure.nodes[i] for i in child.ids()]
            ops = sum(n.kind == "op" for n in inside)
            kept = size_text(sum({s.memory: s.nbytes for n in inside for s in _kept(n)}.values()))
            note = child.note and (f" ({child.note})" if child.kind == "module" else f": {child.note}")
            yield (f"{pad}{child.name}{note}" + (f", {ops} nodes, keeps {kept}" if child.folded else ""),)
            if not child.folded:
                yield from _rows(child, structure, depth + 1)
            continue
        node = structure.nodes[child]
        if node.kind == "op":
            values = ", ".join(map(str, node.outputs))
            given = ", ".join(_argument(x, structure, node.module) for x in node.inputs)
            kept = ", ".join(f"{s.name} {size_text(s.nbytes)}" for s in _kept(node))
            path = node.path if node.why == "a primitive" or node.path == "view" else node.why
            yield (f"{pad}#{child} {_cut(f'{node.label}({given})', 70)}", f"-> {_cut(values, 60)}", path,
                   "freed" if node.freed else f"keeps {kept}" if kept else "", node.line)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows with aligned columns; a row of one cell is a line by itself."""
    count = max((len(r) for r in rows), default=0)
    widths = [max((len(r[i]) for r in rows if len(r) == count), default=0) for i in range(count)]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=False)).rstrip() if len(r) > 1 else r[0]
            for r in rows]


def _backward_rows(structure: Structure) -> Iterator[tuple[str, ...]]:
    """The backward part, in the order in which it runs."""
    for node in sorted(structure.nodes.values(), key=lambda n: -n.id):
        if node.kind == "op":
            to = [f"#{x.source}" if structure.nodes[x.source].kind == "op" else f"{structure.nodes[x.source].label}.grad"
                  for x in node.inputs if x.differentiable and x.source is not None]
            given = ", ".join(map(str, node.outputs))
            yield (f"  #{node.id} {node.backward}", f"{given}{f', a sum of {node.uses}' if node.uses > 1 else ''}",
                   f"-> {', '.join(to)}")


def text(structure: Structure) -> str:
    """The graph as text: forward in the order of recording with the groups, then backward in the order it runs."""
    nodes = structure.nodes.values()
    lines = [_title(structure), ""]
    lines += ["forward", *_table(list(_rows(structure.root, structure, 1))), ""]
    if not any(g.folded for g in structure.root.groups()):
        lines += ["backward", *_table(list(_backward_rows(structure)))]
    sums = [f"{n.label}.grad is a sum of {n.uses}" for n in nodes if n.kind == "leaf" and n.uses > 1]
    lines += [f"  {s}" for s in sums] + [f"note: {n}" for n in structure.notes]
    return "\n".join(lines).rstrip()


def _title(structure: Structure) -> str:
    """How many nodes there are, and what they keep."""
    kinds = Counter(n.kind for n in structure.nodes.values())
    return (f"graph: {kinds['op']} nodes, {kinds['leaf']} leaves; keeps {size_text(structure.saved_bytes())} for backward")


# ---- DOT -------------------------------------------------------------------------------------------------------------

def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def dot(structure: Structure) -> str:
    """The graph in Graphviz's language, for other programs."""
    lines = ["digraph {", "  node [shape=box, fontname=Helvetica, fontsize=10];", "  compound=true;"]

    def add(group: Group, pad: str) -> None:
        for child in group.children:
            if isinstance(child, Group):
                lines.append(f"{pad}subgraph cluster_{id(child)} {{")
                lines.append(f"{pad}  label={_quoted(f'{child.path} {child.note}'.strip())};")
                add(child, pad + "  ")
                lines.append(f"{pad}}}")
            else:
                node = structure.nodes[child]
                label = "\n".join([node.label, *map(str, node.outputs), *([node.why] if node.why else [])])
                shape = "" if node.kind == "op" else ", shape=ellipse"
                lines.append(f"{pad}n{child} [label={_quoted(label)}{shape}];")
    add(structure.root, "  ")
    for source, node, x in structure.edges():
        lines.append(f"  n{source} -> n{node.id} [label={_quoted(x.name)}{'' if x.differentiable else ', style=dashed'}];")
    return "\n".join([*lines, "}"]) + "\n"


# ---- SVG -------------------------------------------------------------------------------------------------------------

_STYLE = """
.mg-graph{--page:#fff;--text:#1b1f24;--soft:#5b6470;--line:#7b8591;--box:#fff;--edge:#c3cad2;--group:#f5f7f9;
--group2:#ebeff3;--fused:#0072b2;--kernel:#8a949e;--numpy:#d55e00;--view:#b9c1c9;--function:#cc79a7;--checkpoint:#b8860b;
--gradient:#56b4e9;--inplace:#7b3294;--leaf:#009e73;--leafbox:#e3f4ee;--data:#eef0f2;font-family:ui-sans-serif,
system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){.mg-graph{DARK}}
[data-jp-theme-light="false"] .mg-graph,.dark .mg-graph{DARK}
.mg-graph .page{fill:var(--page)} .mg-graph text{fill:var(--text);font-size:13px}
.mg-graph .name{font-weight:600} .mg-graph .small{font:11px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
.mg-graph .soft{fill:var(--soft)} .mg-graph .group{fill:var(--group);stroke:var(--edge)}
.mg-graph .group.odd{fill:var(--group2)} .mg-graph .opened,.mg-graph .definition{stroke:var(--fused);stroke-dasharray:5 3}
.mg-graph .definition{stroke:var(--numpy)} .mg-graph .head{font-weight:600;font-size:12px;stroke:var(--group);
stroke-width:4px;paint-order:stroke;stroke-linejoin:round} .mg-graph .head.odd{stroke:var(--group2)}
.mg-graph .box{fill:var(--box);stroke:var(--edge)} .mg-graph .folded .box{stroke-width:2}
.mg-graph .leaf .box{fill:var(--leafbox);stroke:var(--leaf)} .mg-graph .data .box{fill:var(--data);stroke:var(--edge)}
.mg-graph .view .box{stroke-dasharray:3 3} .mg-graph .output .box{stroke:var(--text);stroke-width:2}
.mg-graph .edge{fill:none;stroke:var(--line);stroke-width:1.3} .mg-graph .edge.constant{stroke-dasharray:3 3}
.mg-graph .tip{fill:var(--line);stroke:none} .mg-graph .param{fill:var(--leaf)}
"""
_DARK = ("--page:#14181d;--text:#e6e9ed;--soft:#a3adb8;--line:#8d98a4;--box:#20262d;--edge:#46505b;--group:#1a1f25;"
         "--group2:#20262e;--fused:#4aa8e0;--kernel:#77828e;--numpy:#f08a3c;--view:#5c6670;--function:#e39ac3;"
         "--checkpoint:#e0b040;--gradient:#7cc8f2;--inplace:#c08fe0;--leaf:#3cc79c;--leafbox:#17322a;--data:#262c33")
_COLOURS = {"NumPy": "numpy", "in place": "inplace"}


class _Picture:
    """A picture being drawn. `backward`: the edges of gradients, from the loss to the leaves."""

    def __init__(self, structure: Structure, backward: bool) -> None:
        self.structure, self.backward, self.nodes = structure, backward, structure.nodes
        self.roots = {i for i, _ in structure.outputs}
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
        kept = {s.memory: s.nbytes for s in _kept(node)}
        if kept and not self.backward:
            found.append(("soft", f"keeps {size_text(sum(kept.values()))}"))
        if node.freed:
            found.append(("soft", "freed"))
        if node.uses > 1 and (self.backward or node.kind == "leaf"):
            found.append(("soft", f"sums {node.uses} gradients"))
        return found

    def name(self, node: GraphNode) -> str:
        """The large line of a node."""
        return _cut((node.backward if node.kind == "op" else f"{node.label}.grad") if self.backward else node.label, 44)

    def shape(self, node: GraphNode) -> str:
        """What stands beside the name: the output, if there is one."""
        return str(node.outputs[0]) if len(node.outputs) == 1 else ""

    def folded_text(self, group: Group) -> list[str]:
        """The lines of a folded group."""
        inside = [self.nodes[i] for i in group.ids()]
        ops = [n for n in inside if n.kind == "op"]
        most = ", ".join(f"{c} {op}" for op, c in Counter(n.op for n in ops).most_common(2))
        kept = sum({s.memory: s.nbytes for n in ops for s in _kept(n)}.values())
        return [f"{len(ops)} nodes: {most}", f"keeps {size_text(kept)}"]

    def head(self, group: Group) -> str:
        """The title of a group."""
        return _cut(f"{group.name}  {group.note}".strip(), 60)

    def size(self, of: Any) -> tuple[float, float]:
        """The size of a node or folded group; for an open group, the width of its title."""
        if isinstance(of, Group):
            if not of.folded:
                return min(len(self.head(of)), 30) * 7.2 + 24, 0.0
            lines = self.folded_text(of)
            return max(len(self.head(of)) * _LARGE + 26, max(map(len, lines)) * _SMALL + 26), 28 + _LINE * len(lines)
        node, lines = self.nodes[of], self.lines[of]
        number = len(str(of)) * _SMALL + 22 if node.kind == "op" else 4
        first = len(self.name(node)) * _LARGE + 8 + len(self.shape(node)) * _SMALL + number
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
        title = ("backward of the " if self.backward else "") + _title(self.structure)
        width, height, top = max(layout.width, len(title) * _LARGE + 28), layout.height, 40.0
        legend, deep = self.legend(width)
        total = height + top + deep
        return (f'<svg xmlns="http://www.w3.org/2000/svg" class="mg-graph" width="{width:.0f}" height="{total:.0f}" '
                f'viewBox="0 0 {width:.1f} {total:.1f}" role="img" aria-label="{escape(title)}"><style>'
                f'{_STYLE.replace("DARK", _DARK)}</style><rect class="page" width="100%" height="100%"/>'
                f'<text x="14" y="25" class="name">{escape(title)}</text>'
                f'<g transform="translate({(width - layout.width) / 2:.1f},{top})">{"".join(parts)}</g>'
                f'<g transform="translate(0,{height + top:.1f})">{legend}</g></svg>')

    def legend(self, width: float) -> tuple[str, float]:
        """What the colours mean, and the notes, below the picture; and the height of it."""
        used = [p for p in _PATHS if any(n.path == p for n in self.nodes.values())]
        x, y, parts = 14.0, 14.0, []
        for path in used:
            wide = len(_PATHS[path]) * 6.7 + 34
            if x > 14 and x + wide > width:
                x, y = 14.0, y + 20
            parts.append(f'<rect x="{x}" y="{y - 9}" width="12" height="12" rx="2" {_fill(path)}/>'
                         f'<text x="{x + 18}" y="{y + 1}" class="soft" style="font-size:12px">{_PATHS[path]}</text>')
            x += wide
        letters = max(40, int((width - 28) / _SMALL))
        for note in self.structure.notes:
            for line in _wrapped(note, letters):
                y += 17
                parts.append(f'<text x="14" y="{y}" class="small soft">{escape(line)}</text>')
        return "".join(parts), y + 16

    def group_boxes(self, layout: Layout) -> Iterator[str]:
        """The frames of open groups."""
        depths = _depths(self.structure.root)
        for group, b in layout.groups:
            if not group.folded:
                odd = " odd" if depths[id(group)] % 2 else ""
                yield (f'<rect class="group {group.kind}{odd}" x="{b.x:.1f}" y="{b.y:.1f}" width="{b.w:.1f}" '
                       f'height="{b.h:.1f}" rx="8"><title>{escape(f"{group.path} {group.note}".strip())}</title></rect>')

    def heads(self, layout: Layout) -> Iterator[str]:
        """The titles of open groups, above the edges."""
        depths = _depths(self.structure.root)
        for group, b in layout.groups:
            if not group.folded:
                odd = " odd" if depths[id(group)] % 2 else ""
                head = _cut(self.head(group), int((b.w - 20) / 7.0))
                name, note = escape(head[:len(group.name)]), escape(head[len(group.name):])
                yield (f'<text class="head{odd}" x="{b.x + 10:.1f}" y="{b.y + 17:.1f}">{name}'
                       f'<tspan class="soft" font-weight="400">{note}</tspan></text>')

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
                marks[f'<text class="small soft" x="{x + 7:.1f}" y="{y - 5:.1f}">×{times[ident]}</text>'] = None
        return iter([*drawn, *marks])

    def box(self, i: int, b: Box) -> str:
        """A node."""
        node = self.nodes[i]
        kinds = f"{node.kind} {node.path.replace(' ', '')}" + (" output" if i in self.roots else "")
        parts = [f'<g class="{kinds}" data-id="{i}"><title>{escape(self.tip(node))}</title><rect class="box" '
                 f'x="{b.x:.1f}" y="{b.y:.1f}" width="{b.w:.1f}" height="{b.h:.1f}" rx="{5 if node.kind == "op" else 14}"/>']
        if node.kind == "op":
            parts.append(f'<rect x="{b.x:.1f}" y="{b.y:.1f}" width="6" height="{b.h:.1f}" rx="3" {_fill(node.path)}/>'
                         f'<text class="small soft" x="{b.x + b.w - 8:.1f}" y="{b.y + 18:.1f}" text-anchor="end">#{i}</text>')
        parts.append(f'<text class="name" x="{b.x + 14:.1f}" y="{b.y + 18:.1f}">{escape(self.name(node))}'
                     f'<tspan class="small soft" dx="8">{escape(self.shape(node))}</tspan></text>')
        for k, (kind, line) in enumerate(self.lines[i]):
            parts.append(f'<text class="small {kind}" x="{b.x + 14:.1f}" y="{b.y + 33 + k * _LINE:.1f}">{escape(line)}</text>')
        return "".join(parts) + "</g>"

    def folded(self, group: Group, b: Box) -> str:
        """A folded group."""
        lines = "".join(f'<text class="small soft" x="{b.x + 14:.1f}" y="{b.y + 33 + k * _LINE:.1f}">{escape(line)}</text>'
                        for k, line in enumerate(self.folded_text(group)))
        return (f'<g class="folded"><title>{escape(f"{group.path} {group.note}, folded")}</title><rect class="box" '
                f'x="{b.x + 4:.1f}" y="{b.y + 4:.1f}" width="{b.w - 4:.1f}" height="{b.h - 4:.1f}" rx="6"/><rect class="box" '
                f'x="{b.x:.1f}" y="{b.y:.1f}" width="{b.w - 4:.1f}" height="{b.h - 4:.1f}" rx="6"/>'
                f'<text class="name" x="{b.x + 14:.1f}" y="{b.y + 18:.1f}">{escape(self.head(group))}</text>{lines}</g>')

    def tip(self, node: GraphNode) -> str:
        """What a viewer shows when the mouse rests on a node."""
        found = [f"#{node.id} {node.label}" + (f" ({node.backward})" if node.backward else "")]
        found += [f"in {node.module}"] if node.module else []
        found += [f"{node.line}: {node.lines[0][3]}"] if node.lines else []
        found += [node.why] if node.why else []
        found += [f"launches {', '.join(node.launches)}"] if node.launches else []
        found += [_argument(x, self.structure) + (f" {x.value}" if x.value and x.source is not None else "")
                  for x in node.inputs]
        found += [f"keeps {s.name} {s.value}, {size_text(s.nbytes)}" + (f", made at {s.line}" if s.line else "")
                  for s in node.saved]
        if node.op in self.structure.ops and self.structure.ops[node.op].formula:
            found += ["", self.structure.ops[node.op].formula]
        return "\n".join(found)


def _fill(path: str) -> str:
    return f'style="fill:var(--{_COLOURS.get(path, path)})"'


def _wrapped(text: str, letters: int) -> list[str]:
    from textwrap import wrap
    return wrap(text, letters)


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


# ---- the graph -------------------------------------------------------------------------------------------------------

class Graph(Structure):
    """The graph of a loss: the data of a `Structure`, as text (`str`), in Graphviz's language, and as a picture.

    In a notebook it shows its picture. Groups whose `folded` is True are drawn as one box.
    """

    def __str__(self) -> str:
        return text(self)

    def __repr__(self) -> str:
        return f"<{_title(self)}>"

    def dot(self) -> str:
        """The graph in the language of Graphviz, for other programs."""
        return dot(self)

    def svg(self, backward: bool = False) -> str:
        """The picture: data flows down from the inputs to the loss; with `backward`, gradients from the loss to the
        leaves."""
        return _Picture(self, backward).svg()

    def save(self, path: Any, backward: bool = False) -> None:
        """Writes the graph as the suffix says: .svg, .html (the picture and the text), .dot or .txt. ValueError for
        another one."""
        made = {".svg": lambda: self.svg(backward), ".html": lambda: self._page(backward), ".dot": self.dot,
                ".txt": lambda: str(self) + "\n"}.get(Path(path).suffix)
        if made is None:
            raise ValueError(f"[graph] save needs a path that ends with .svg, .html, .dot or .txt; got {str(path)!r}; a "
                             "browser opens .svg and prints it as PDF or PNG")
        Path(path).write_text(made(), encoding="utf-8")

    def _page(self, backward: bool) -> str:
        """An HTML page."""
        return ('<!doctype html><meta charset="utf-8"><title>graph</title><style>body{margin:0;background:light-dark('
                '#fff,#14181d);color:light-dark(#1b1f24,#e6e9ed);color-scheme:light dark}pre{padding:14px;'
                f'overflow:auto;font-size:12px}}</style>{self._repr_html_(backward)}<pre>{escape(str(self))}</pre>')

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self, backward: bool = False) -> str:
        return f'<div style="overflow:auto;max-width:100%">{self.svg(backward)}</div>'


def graph(what: Any, /, *args: Any, open: str | Iterable[str] = (), most: int = 400, **kwargs: Any) -> Graph:
    """The graph that `backward` of a tensor would walk; or of what `what(*args, **kwargs)` returns.

    what    a tensor, or several in a list or tuple; or a function, which runs once. Lines, modules and launches are
            known of nodes that were recorded in `with study.Record():`, and always if a function is given
    open    composites that are shown as their definition, and checkpointed blocks as what they compute: names of ops
            ("layer_norm", "checkpoint"), or "all". Their definition runs once more for this
    most    a picture has about as many boxes: in larger graphs, repeated blocks and inner groups are folded

    RuntimeError if no tensor requires a gradient.

        g = study.graph(lambda: F.cross_entropy(model(x), y))
        print(g)
        g.save("graph.svg")
    """
    names = {open} if isinstance(open, str) else set(open)
    found = Graph()
    read(found, what, args, kwargs, lambda name: "all" in names or name in names)
    fold(found, most)
    return found
