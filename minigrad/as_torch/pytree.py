"""`torch.utils._pytree`: nested tuples, lists and dicts as a flat list, and back."""
from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..core.tensor import Size

__all__ = ["LeafSpec", "NodeDef", "PyTree", "SUPPORTED_NODES", "TreeSpec", "register_pytree_node", "tree_flatten",
           "tree_leaves", "tree_map", "tree_map_only", "tree_unflatten"]

PyTree = Any


class NodeDef(NamedTuple):
    """How values of a type are taken apart, into entries and a context, and made again of them."""

    type: Any
    flatten_fn: Callable[[Any], tuple[Any, Any]]
    unflatten_fn: Callable[[Any, Any], Any]


class TreeSpec(NamedTuple):
    """How a value is nested: its type, its context (the keys of a dict), and the specs of its entries. A leaf has the
    type None."""

    type: Any
    context: Any
    children: Any

    @property
    def num_leaves(self) -> int:
        """The number of leaves."""
        return 1 if self.type is None else sum(child.num_leaves for child in self.children)


def LeafSpec() -> TreeSpec:
    """The spec of a leaf."""
    return TreeSpec(None, None, ())


def _entries(tree: Any) -> tuple[list[Any], Any]:
    return list(tree), None


def _values(tree: Any) -> tuple[list[Any], Any]:
    return list(tree.values()), list(tree)


class MappingKey(NamedTuple):
    """Where in a dict an entry is."""

    key: Any


def _dict_flatten_with_keys(d: Any) -> tuple[list[Any], Any]:
    """((where, entry) of each entry of a dict, its keys)."""
    return [(MappingKey(key), value) for key, value in d.items()], list(d)


SUPPORTED_NODES: dict[Any, NodeDef] = {kind: NodeDef(kind, apart, made) for kind, apart, made in (
    (tuple, _entries, lambda entries, _: tuple(entries)), (Size, _entries, lambda entries, _: tuple(entries)),
    (list, _entries, lambda entries, _: list(entries)),
    (dict, _values, lambda entries, keys: dict(zip(keys, entries, strict=True))),
    (OrderedDict, _values, lambda entries, keys: OrderedDict(zip(keys, entries, strict=True))),
    (namedtuple, lambda tree: (list(tree), type(tree)), lambda entries, kind: kind(*entries)),
    (deque, lambda tree: (list(tree), tree.maxlen), lambda entries, length: deque(entries, maxlen=length)),
    (defaultdict, lambda tree: (list(tree.values()), [tree.default_factory, list(tree)]),
     lambda entries, made: defaultdict(made[0], zip(made[1], entries, strict=True))))}


def _get_node_type(tree: Any) -> Any:
    """What a value is in `SUPPORTED_NODES`: `namedtuple` for each of its kind."""
    return namedtuple if isinstance(tree, tuple) and hasattr(tree, "_fields") else type(tree)


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """(the leaves in order, how they are nested)."""
    kind = _get_node_type(tree)
    if kind not in SUPPORTED_NODES or is_leaf is not None and is_leaf(tree):
        return [tree], LeafSpec()
    entries, context = SUPPORTED_NODES[kind].flatten_fn(tree)
    parts = [tree_flatten(entry, is_leaf) for entry in entries]
    return [leaf for leaves, _ in parts for leaf in leaves], TreeSpec(kind, context, tuple([spec for _, spec in parts]))


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> Any:
    """The value that `tree_flatten` took apart, with these leaves. ValueError if there are too few or too many."""
    given = list(leaves)
    if len(given) != treespec.num_leaves:
        raise ValueError(f"[tree_unflatten] the spec has {treespec.num_leaves} leaves; got {len(given)}")
    return _built(iter(given), treespec)


def _built(leaves: Iterator[Any], spec: TreeSpec) -> Any:
    if spec.type is None:
        return next(leaves)
    return SUPPORTED_NODES[spec.type].unflatten_fn([_built(leaves, child) for child in spec.children], spec.context)


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
    SUPPORTED_NODES[cls] = NodeDef(cls, flatten_fn, unflatten_fn)


_register_pytree_node = register_pytree_node
