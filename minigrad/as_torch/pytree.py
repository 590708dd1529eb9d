"""`torch.utils._pytree`: nested tuples, lists and dicts as a flat list, and back."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["TreeSpec", "tree_flatten", "tree_leaves", "tree_map", "tree_unflatten"]


class TreeSpec(NamedTuple):
    """How a value is nested: the type of a tuple, list or dict, its keys, and the specs of its entries. A leaf has the
    type None."""

    type: Any
    context: Any
    children: tuple[TreeSpec, ...]

    @property
    def num_leaves(self) -> int:
        """The number of leaves."""
        return 1 if self.type is None else sum(child.num_leaves for child in self.children)


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """(the leaves in order, how they are nested)."""
    if is_leaf is None or not is_leaf(tree):
        if isinstance(tree, (tuple, list, dict)):
            entries = list(tree.values()) if isinstance(tree, dict) else tree
            parts = [tree_flatten(entry, is_leaf) for entry in entries]
            context = list(tree) if isinstance(tree, dict) else None
            return ([leaf for leaves, _ in parts for leaf in leaves],
                    TreeSpec(type(tree), context, tuple(spec for _, spec in parts)))
    return [tree], TreeSpec(None, None, ())


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> Any:
    """The value that `tree_flatten` took apart, with these leaves. ValueError if there are too few or too many."""
    given = list(leaves)
    if len(given) != treespec.num_leaves:
        raise ValueError(f"[tree_unflatten] the spec has {treespec.num_leaves} leaves; got {len(given)}")
    return _built(iter(given), treespec)


def _built(leaves: Iterator[Any], spec: TreeSpec) -> Any:
    if spec.type is None:
        return next(leaves)
    entries = [_built(leaves, child) for child in spec.children]
    if issubclass(spec.type, dict):
        return spec.type(zip(spec.context, entries, strict=True))
    return spec.type(*entries) if hasattr(spec.type, "_fields") else spec.type(entries)


def tree_map(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The value with `func` of each leaf in its place; further values of the same nesting give further arguments."""
    leaves, spec = tree_flatten(tree, is_leaf)
    return tree_unflatten(map(func, leaves, *[tree_flatten(r, is_leaf)[0] for r in rests]), spec)


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves in order."""
    return tree_flatten(tree, is_leaf)[0]
