"""What a node keeps for its backward: as attributes of the node, and packed by hooks. Read `tape.py` and `inplace.py`
first.

`node.saved` is a tuple of tensors; for an op with kernels a plan, the inputs and arrays; for a `Function` its context,
whose method `contents` gives such a tuple and `restore` takes one. `node.out` is the array of the output, if used.

While the hooks of `autograd.graph.saved_tensors_hooks` are on, each tensor and array in them is replaced by what the
pack hook returns: `node.saved` is then a `Packed`, which hooks of the node open for the time of its backward.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

from ..devices.memory import Array, Layout, alloc, layout, view
from .arrays import contiguous_copy, mover
from .engine import functions, refuse_freed
from .hooks import fitting, node_hooks, node_pre_hooks
from .inplace import untied
from .modes import mode, set_recording
from .shape import fail
from .tape import FREED, Node, located, recorded
from .tensor import Tensor, new_tensor


def stale(name: str, node: Node | None = None, what: str = "") -> None:
    """Raises because a saved tensor was changed in place: `what`, or something that `node` keeps."""
    found = what or ("" if node is None else " or ".join(_changed(node)))
    fail(name + " backward", "a tensor that the derivative needs has been modified by an inplace operation since the "
         f"forward pass{located(node)}", found and f"a change of {found}",
         "make the change out of place, or before the tensor is used")


def _changed(node: Node) -> list[str]:
    """What of a node's may have been changed. What its op made was new at recording, so its version is 0. Of what it
    was given only the sum of the versions is known: it may be any that was ever changed."""
    kept = contents(node)
    given = {id(v.array): f"{name} {v.array.layout}" for name, v in kept if isinstance(v, Tensor)}
    changed = {id(a): a for _, v in kept if (a := v.array if isinstance(v, Tensor) else v).version}
    made = [f"the output {a.layout}" for i, a in changed.items() if i not in given]
    return made[:1] or [given[i] for i in changed]


# ---- as attributes ---------------------------------------------------------------------------------------------------

@contextmanager
def opened(node: Any) -> Iterator[None]:
    """In the block, `node.saved` and `node.out` are what backward finds there. RuntimeError if they were freed."""
    packed = node.saved
    if packed is FREED:
        refuse_freed(node)
    if type(packed) is Packed:
        packed.open(node)
    try:
        yield
    finally:
        if type(packed) is Packed:
            packed.close(node)


def inside(value: Any) -> Iterator[Any]:
    """The tensors and arrays in nested tuples, lists and dicts, and what stands for packed ones, in order."""
    if isinstance(value, (Tensor, Array, _Gap)):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            yield from inside(v)


def _result(node: Any) -> Any:
    """The output, or what kernels saved besides the inputs: a tensor, or a tuple of several."""
    if node.out is not None or not hasattr(node.op, "fused"):       # a primitive keeps no output that no rule needs
        return None if node.out is None else new_tensor(node.out, node)
    _, inputs, saved = node.saved
    given = [id(t.array) for t in inputs if t is not None]
    made = tuple([new_tensor(a, None) for a in inside(saved) if id(a) not in given])
    return made[0] if len(made) == 1 else made or None


_PYTORCH = {"axis": "dim", "axes": "dim"}       # what PyTorch calls attributes


class SavedAttributes:
    """An op whose nodes show what they keep, under PyTorch's names: `_saved_self` is the input `input` (or `x`, `a`),
    `_saved_other` the one that the op calls `other`, `_saved_result` the output, `_saved_dim` an attribute.

    called   what the user calls that the op serves ("gelu" of gelu_erf), if that has another name: its nodes have it
    """

    called = ""
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]

    def node_attributes(self) -> dict[str, Any]:
        """What the op's nodes have besides: `_saved_...`, and a call, which runs their backward."""
        rules = getattr(self, "saves", None)            # of a primitive: which inputs each of its VJPs uses
        used = range(len(self.inputs)) if rules is None else sorted(frozenset().union(*rules.values()))
        found: dict[str, Any] = {f"_saved_{_PYTORCH.get(n, n)}": property(_attribute(n), doc=f"the attribute {n}")
                                 for n in self.attributes}
        for i in used:
            name = "self" if self.inputs[i] in ("input", "x", "a") else self.inputs[i]
            found[f"_saved_{name}"] = _shows(_input(i, rules is None), "an input, if it was kept")
        if getattr(self, "out_for", True):
            found["_saved_result"] = _shows(_result, "the output, or what kernels computed for the backward")
        found["__call__"] = _run
        return found


def _run(node: Any, *gradients: Tensor | None) -> Any:
    """Runs the backward of a node alone, without hooks: the gradient of its input, or a tuple for several. What it
    saved is kept."""
    several = type(node.layout) is tuple
    layouts = node.layout if several else (node.layout,)
    if len(gradients) != len(layouts):
        fail(node.name(), "a node takes a gradient for each output", f"{len(gradients)} for {len(layouts)}", "",
             TypeError)
    given = [None if g is None else fitting(node.name(), "what a node is called with", g, x)
             for g, x in zip(gradients, layouts, strict=True)]
    with opened(node):
        found = node.op.backward(node, given if several else given[0], [e is not None for e in node.inputs])
    return tuple(found) if len(found) > 1 else found[0]


def _shows(read: Callable[[Any], Any], doc: str) -> property:
    def value(node: Any) -> Any:
        with opened(node):
            return read(node)
    return property(value, doc=doc)


def _attribute(name: str) -> Callable[[Any], Any]:
    return lambda node: (node.attrs or {}).get(name)


def _input(i: int, by_kernels: bool) -> Callable[[Any], Any]:
    if by_kernels:
        return lambda node: node.saved[1][i]
    return lambda node: node.saved[i] if node.saved else None


# ---- all of it -------------------------------------------------------------------------------------------------------

def input_names(op: Any, count: int) -> list[str]:
    """The names of a node's inputs, as its op calls them."""
    of = getattr(op, "of", op)                              # of the backward of an op, which is an op
    names = list(getattr(of, "inputs", ()))
    more = count - len(names)
    if of is not op:
        names += [f"gradient {i}" if more > 1 else "gradient" for i in range(more)]
    elif isinstance(getattr(op, "function", None), type):   # a `Function`
        code = op.function.forward.__code__
        names = list(code.co_varnames[:code.co_argcount])[-count:]
    if len(names) == count:
        return names
    stem = names[0] if len(names) == 1 else "input"
    return [f"{stem} {i}" for i in range(count)]


def given(node: Any) -> tuple[Any, ...]:
    """What a node kept of the tensors that its op was given, by position; None for those it did not keep."""
    saved = node.saved.saved if type(node.saved) is Packed else node.saved
    if type(saved) is not tuple or saved is FREED or not isinstance(getattr(node.op, "of", node.op), SavedAttributes):
        return ()
    return saved[1] if hasattr(node.op, "fused") else saved


def contents(node: Any) -> list[tuple[str, Any]]:
    """All that a node keeps for its backward, by name: tensors that its op was given, and arrays that it made (the
    output, and what kernels computed). Of what hooks have packed: the tensors that they returned, as arrays unless
    their memory is that of the tensor that was given."""
    packed = node.saved if type(node.saved) is Packed else None
    saved, out = (node.saved, node.out) if packed is None else (packed.saved, packed.out)
    owner = saved if packed is None else packed.owner
    found: list[tuple[str, Any]] = []
    if owner is not None and hasattr(owner, "named"):
        found = owner.named(None if packed is None else saved)
    elif saved is not FREED:
        found = list(zip(input_names(node.op, len(node.inputs)), given(node), strict=False))
        if hasattr(node.op, "fused"):
            found += [("kernel", a) for a in inside(saved[2])]
    found.append(("output", out))
    if packed is not None:
        found = [(name, v) for name, value in found for v in packed.shown(value)]
    return [(name, v) for name, v in found if isinstance(v, (Tensor, Array))]


# ---- packed by hooks -------------------------------------------------------------------------------------------------

class _Gap:
    """Stands for item number `index` in the tuples that a node kept, where there was a tensor or (`bare`) an array."""

    __slots__ = ("index", "bare")

    def __init__(self, index: int, bare: bool) -> None:
        self.index, self.bare = index, bare


class _Item:
    """What the pack hook returned for a tensor, and what is known of the tensor.

    `edge`: where the tensor belongs in the graph, None outside of it. `held`: the array that owns the tensor's memory,
    if what was packed refers to it: changes in place are still seen then. A copy is right whatever is changed.
    """

    __slots__ = ("packed", "layout", "version", "edge", "held")

    def __init__(self, t: Tensor, pack: Callable[[Tensor], Any]) -> None:
        self.layout, self.version = t.array.layout, t.array.version
        before = set_recording(False)
        try:
            self.packed = pack(t)
        finally:
            set_recording(before)
        if t.array.version != self.version:
            fail("saved_tensors_hooks", "the pack hook must not change its input in place", self.layout,
                 "change a clone() of it")
        self.edge: Any = None if not t._requires_grad else t if t.node is None else t.node
        owner = t.array.storage
        self.held = owner if any(v.array.storage is owner for v in self.tensors()) else None

    def tensors(self) -> list[Tensor]:
        """The tensors in what was packed."""
        return [v for v in inside(self.packed) if isinstance(v, Tensor)]

    def array(self, given: Array) -> Array:
        """What the unpack hook returned, in the layout and with the version of what was packed."""
        given = _laid_out(given, self.layout)
        return given if given.version == self.version else untied(given, self.version)

    def tensor(self, given: Tensor) -> Tensor:
        """The same as a tensor, where what was packed is in the graph if that matters now."""
        array, edge = self.array(given.array), self.edge
        if given is edge:
            return given
        if isinstance(edge, Tensor) and mode.grad:      # an edge leads to a leaf itself, so this has a node before it
            edge = recorded(functions.alias, (edge,), array.layout, (), 0, None, {})
        return new_tensor(array, edge if mode.grad else None)


def _laid_out(array: Array, to: Layout) -> Array:
    """The values in a layout of the same shape: kernels walk what they saved by its strides, and sum in its order."""
    if array.layout is to:
        return array
    if to.contiguous:
        return contiguous_copy(array)
    reach = [(n - 1) * s for n, s in zip(to.shape, to.strides, strict=True)]
    first = -sum([r for r in reach if r < 0])               # where element 0 lies
    memory = alloc(layout(to.device, to.dtype, (sum([abs(r) for r in reach]) + 1,)))
    found = view(memory, to, first * to.dtype.itemsize)
    mover(to, array.layout)(found, 0, array)                # elements that share a place have one value
    return found


class Packed:
    """What a node kept, packed: stands in `node.saved`."""

    __slots__ = ("items", "saved", "out", "owner", "unpack", "name")

    def __init__(self, node: Node, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Any],
                 left: Callable[[Tensor], bool]) -> None:
        """Packs what `node` keeps; tensors for which `left` is true stay as they are."""
        self.items: list[_Item] = []
        self.unpack, self.name = unpack, node.op.name
        self.owner = node.saved if hasattr(node.saved, "contents") else None
        replace = partial(self._packed, pack, left, {})
        self.saved = _mapped(node.saved if self.owner is None else self.owner.contents(), replace)
        self.out = replace(node.out)

    def _packed(self, pack: Callable[[Tensor], Any], left: Callable[[Tensor], bool], known: dict[int, int],
                value: Any) -> Any:
        """What stands for a value; `known` has the items of arrays, by their ids: an input's array is packed once."""
        t = value if isinstance(value, Tensor) else None
        if isinstance(value, Array):
            if id(value) in known:
                return _Gap(known[id(value)], True)
            t = new_tensor(value, None)
        if t is None or t is value and left(t):
            return value
        known.setdefault(id(t.array), len(self.items))
        self.items.append(_Item(t, pack))
        return _Gap(len(self.items) - 1, t is not value)

    def shown(self, value: Any) -> list[Any]:
        """What stands in memory for a value of `saved`; see `contents`."""
        if type(value) is not _Gap:
            return [value]
        item = self.items[value.index]
        same = item.held is not None and not value.bare
        return [v if same else v.array for v in item.tensors()]

    def close(self, node: Any) -> None:
        """Puts this in the place of what the node kept."""
        if self.owner is not None:
            self.owner.restore(None)
        node.saved, node.out = self, None

    def open(self, node: Any) -> None:
        """Puts what was kept back: as many calls of the unpack hook as there were of the pack hook."""
        given = [self._unpacked(node, item) for item in self.items]

        back = partial(self._back, given)
        saved = _mapped(self.saved, back)
        node.out = back(self.out)
        if self.owner is not None:
            self.owner.restore(saved)
        node.saved = saved if self.owner is None else self.owner

    def _back(self, given: list[Tensor], value: Any) -> Any:
        if type(value) is not _Gap:
            return value
        item, t = self.items[value.index], given[value.index]
        return item.array(t.array) if value.bare else item.tensor(t)

    def _unpacked(self, node: Any, item: _Item) -> Tensor:
        if item.held is not None and item.held.version != item.version:
            stale(self.name, node, f"a saved tensor {item.layout}")
        return fitting("saved_tensors_hooks", "what the unpack hook returns", self.unpack(item.packed), item.layout)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """`value` with `function` applied to what is in its tuples. A list is an array and its version."""
    if type(value) is list:
        array = function(value[0])
        return [array, array.version if isinstance(array, Array) else value[1]]
    if isinstance(value, tuple):
        parts = [_mapped(v, function) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return function(value)


class _Around:
    """The hooks of a packed node: they open it for its backward."""

    __slots__ = ("node", "packed")

    def __init__(self, node: Node) -> None:
        self.node = ref(node)                               # no cycle: the node holds its hooks
        self.packed: Packed | None = None

    def before(self, gradients: tuple) -> None:
        node: Any = self.node()
        if type(node.saved) is Packed:
            self.packed = node.saved
            self.packed.open(node)

    def after(self, results: tuple, gradients: tuple) -> None:
        node, packed = self.node(), self.packed
        self.packed = None
        if packed is not None:
            packed.close(node)


def pack(node: Node, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Any],
         left: Callable[[Tensor], bool]) -> None:
    """Packs what a new node keeps; nothing for one that keeps nothing."""
    packed = Packed(node, pack, unpack, left)
    if packed.items:
        packed.close(node)
        around = _Around(node)
        node_pre_hooks.add(node, around.before)
        node_hooks.add(node, around.after)
