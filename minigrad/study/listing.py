"""A graph as text, and in Graphviz's language."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..core.table import aligned, shortened, size
from .structure import GraphNode, Group, Input, Saved, Structure


def kept(node: GraphNode) -> list[Saved]:
    """What the graph keeps alive by a node; parameters live anyway."""
    return [s for s in node.saved if s.kind != "parameter"]


def kept_bytes(nodes: Iterable[GraphNode]) -> int:
    """The bytes of it, each memory once."""
    return sum({s.memory: s.nbytes for n in nodes for s in kept(n)}.values())


# ---- text ------------------------------------------------------------------------------------------------------------

def argument(x: Input, structure: Structure, module: str = "") -> str:
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
            memory = size(kept_bytes(inside))
            note = child.note and (f" ({child.note})" if child.kind == "module" else f": {child.note}")
            yield (f"{pad}{child.name}{note}" + (f", {ops} nodes, keeps {memory}" if child.folded else ""),)
            if not child.folded:
                yield from _rows(child, structure, depth + 1)
            continue
        node = structure.nodes[child]
        if node.kind == "op":
            values = ", ".join(map(str, node.outputs))
            given = ", ".join(argument(x, structure, node.module) for x in node.inputs)
            arrays = ", ".join(f"{s.name} {size(s.nbytes)}" for s in kept(node))
            path = node.path if node.why == "primitive" or node.path == "view" else node.why
            yield (f"{pad}#{child} {shortened(f'{node.label}({given})', 70)}", f"-> {shortened(values, 60)}", path,
                   "freed" if node.freed else f"keeps {arrays}" if arrays else "", node.line)


def _backward_rows(structure: Structure) -> Iterator[tuple[str, ...]]:
    """The backward part, in the order in which it runs."""
    for node in sorted(structure.nodes.values(), key=lambda n: -n.id):
        if node.kind == "op" and node.backward:
            sources = [structure.nodes[x.source] for x in node.inputs if x.differentiable and x.source is not None]
            to = [f"#{n.id}" if n.kind == "op" else f"{n.label}.grad" for n in sources]
            given = ", ".join(map(str, node.outputs))
            yield (f"  #{node.id} {node.backward}", f"{given}{f', a sum of {node.uses}' if node.uses > 1 else ''}",
                   f"-> {', '.join(to)}")


def text(structure: Structure) -> str:
    """The graph as text: forward in the order of recording with the groups, then backward in the order it runs."""
    nodes = structure.nodes.values()
    lines = [title(structure), ""]
    lines += ["forward", *aligned(list(_rows(structure.root, structure, 1))), ""]
    if not any(g.folded for g in structure.root.groups()):
        lines += ["backward", *aligned(list(_backward_rows(structure)))]
    sums = [f"{n.label}.grad is a sum of {n.uses}" for n in nodes if n.kind == "leaf" and n.uses > 1]
    lines += [f"  {s}" for s in sums] + [f"note: {n}" for n in structure.notes]
    return "\n".join(lines).rstrip()


def title(structure: Structure) -> str:
    """How many nodes there are, and what they keep."""
    kinds = Counter(n.kind for n in structure.nodes.values())
    memory = size(kept_bytes(structure.nodes.values()))
    nodes, leaves = kinds["op"], kinds["leaf"]
    return (f"graph: {nodes} node{'' if nodes == 1 else 's'}, {leaves} {'leaf' if leaves == 1 else 'leaves'}; "
            f"keeps {memory} for backward")


# ---- Graphviz --------------------------------------------------------------------------------------------------------

def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _cluster(group: Group, structure: Structure, pad: str, number: str = "") -> Iterator[str]:
    """The lines of a group's nodes and groups."""
    for i, child in enumerate(group.children):
        if isinstance(child, Group):
            yield f"{pad}subgraph cluster{number}_{i} {{"
            yield f"{pad}  label={_quoted(f'{child.path} {child.note}'.strip())};"
            yield from _cluster(child, structure, pad + "  ", f"{number}_{i}")
            yield f"{pad}}}"
        else:
            node = structure.nodes[child]
            label = "\n".join([node.label, *map(str, node.outputs), *([node.why] if node.why else [])])
            shape = "" if node.kind == "op" else ", shape=ellipse"
            yield f"{pad}n{child} [label={_quoted(label)}{shape}];"


def dot(structure: Structure) -> str:
    """The graph in Graphviz's language, for other programs."""
    lines = ["digraph {", "  node [shape=box, fontname=Helvetica, fontsize=10];"]
    lines += _cluster(structure.root, structure, "  ")
    for source, node, x in structure.edges():
        style = "" if x.differentiable else ", style=dashed"
        lines.append(f"  n{source} -> n{node.id} [label={_quoted(x.name)}{style}];")
    return "\n".join([*lines, "}"]) + "\n"
