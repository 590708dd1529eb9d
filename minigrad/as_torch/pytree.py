"""`torch.utils._pytree`: nested tuples, lists and dicts as a flat list, and back."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["PyTree", "TreeSpec", "register_pytree_node", "tree_flatten", "tree_leaves", "tree_map", "tree_map_only",
           "tree_unflatten"]

PyTree = Any
_OWN: dict[type, tuple[Callable[[Any], tuple[Any, Any]], Callable[[Any, Any], Any]]] = {}


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
        own = _OWN.get(type(tree))
        if own or isinstance(tree, (tuple, list, dict)):
            entries, context = own[0](tree) if own else \
                (list(tree.values()), list(tree)) if isinstance(tree, dict) else (tree, None)
            parts = [tree_flatten(entry, is_leaf) for entry in entries]
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
    if spec.type in _OWN:
        return _OWN[spec.type][1](entries, spec.context)
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


def tree_map_only(type_or_types: Any, func: Callable[[Any], Any], tree: Any) -> Any:
    """The value with `func` of each leaf of these types in its place."""
    return tree_map(lambda leaf: func(leaf) if isinstance(leaf, type_or_types) else leaf, tree)


def register_pytree_node(cls: type, flatten_fn: Callable[[Any], tuple[Any, Any]],
                         unflatten_fn: Callable[[Any, Any], Any], **options: Any) -> None:
    """Lets a class be nested: `flatten_fn(value)` gives its entries and a context, of which `unflatten_fn(entries,
    context)` makes a value."""
    _OWN[cls] = flatten_fn, unflatten_fn


_register_pytree_node = register_pytree_node
