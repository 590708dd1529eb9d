"""Which groups of a graph are folded, so that its picture and its text stay readable."""
from __future__ import annotations

from typing import Any

from .structure import GraphNode, Group, Structure


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
    depths = [[root]]
    while depths[-1]:
        depths.append([c for g in depths[-1] for c in g.children if isinstance(c, Group) and not c.folded])
    for groups in depths[:0:-1]:
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
