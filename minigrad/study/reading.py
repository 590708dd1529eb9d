"""Reads the graph of a loss into a `Structure`. Nothing is computed, but for definitions that are to be opened."""
from __future__ import annotations

import inspect
import linecache
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from textwrap import dedent
from typing import Any

from ..core.graph_node import node_name
from ..core.modes import enable_grad
from ..core.op import GradOp, Op, Primitive
from ..core.place import is_own, variables
from ..core.saved import Packed, contents, given, input_names, inside
from ..core.shape import fail, is_float
from ..core.table import shortened
from ..core.tape import FREED, Edge, Node, Slot, edge_of, observers
from ..core.tensor import Tensor
from ..nn.module import Module, parameter_names
from .record import Origin, Record, constants, note_constants, number_of, origins
from .structure import GraphNode, Group, Input, OpText, Output, Saved, Structure

Key = tuple[Any, ...]           # the groups of a node, outermost first: (kind, name, path, type, call) of each


# ---- names -----------------------------------------------------------------------------------------------------------

class Names:
    """The names of tensors, by `id`: parameters of living modules, and the user's variables on the stack."""

    def __init__(self) -> None:
        self.tensors: dict[int, str] = {}
        self.parameters = parameter_names()
        self.held: list[Tensor] = []                    # what is known by its id must not go meanwhile
        self.known: set[int] = set()                    # ids of outermost modules that a record told
        self.inside: dict[tuple[int, int], str] = {}    # (id of a module, id of one in it): its path there
        frame: Any = sys._getframe()
        while frame is not None:
            if not is_own(frame):
                for scope in (variables(frame), frame.f_globals):
                    for name, value in list(scope.items()):
                        if isinstance(value, Tensor) and not name.startswith("_"):
                            self.tensors.setdefault(id(value), name)
                        elif isinstance(value, Module) and not name.startswith("_"):
                            self.root(name, value)
            frame = frame.f_back

    def know(self, origin: Origin) -> None:
        """Takes over the names that a record knows."""
        for reference, name in origin.names:
            t = reference()
            if t is not None:
                self.held.append(t)
                self.tensors.setdefault(id(t), name)
        module = origin.place.refs[0]() if origin.place.refs else None
        if module is not None and id(module) not in self.known:
            self.known.add(id(module))
            self.root(origin.place.root, module)

    def root(self, name: str, module: Any) -> None:
        """Names the parameters of a module that no other contains by the variable that holds it."""
        for path, p in module.named_parameters():
            old = self.parameters.get(id(p), "")
            if old == f"{type(module).__name__}.{path}":
                self.parameters[id(p)] = f"{name}.{path}"

    def path_in(self, outer: Any, inner: Any) -> str:
        """The path of a module in another one; empty if it is not there, or one of them is gone."""
        key = id(outer), id(inner)
        if key not in self.inside and outer is not None and inner is not None:
            for path, module in outer.named_modules():
                self.inside[id(outer), id(module)] = path
        return self.inside.get(key, "")

    def of(self, t: Any, otherwise: str) -> str:
        """The name of a tensor."""
        return self.parameters.get(id(t)) or self.tensors.get(id(t)) or otherwise


# ---- what a node is --------------------------------------------------------------------------------------------------

def _output(layout: Any) -> Output:
    return Output(tuple(layout.shape), layout.dtype.name, layout.nbytes)


def _layout(edge: Edge) -> Any:
    """The layout of what an edge carries."""
    return edge.array.layout if isinstance(edge, Tensor) else edge.layout


def node_of(edge: Edge) -> Any:
    """The node of an edge, or the leaf."""
    return edge.inputs[0] if type(edge) is Slot else edge


def _is_function(op: Any) -> bool:
    """Is it the op of an `autograd.Function`?"""
    return isinstance(getattr(op, "function", None), type)


def _data_name(name: str, op: Any) -> str:
    """A name for data that no variable holds."""
    return name if len(name) > 2 and name not in ("input", "other") else f"{name} of {op.name}"


def texts(op: Any) -> OpText:
    """What is written of an op."""
    of = op.of if isinstance(op, GradOp) else op
    doc = inspect.cleandoc(getattr(of, "__doc__", None) or "") if isinstance(of, (Op, Primitive)) else ""
    text = OpText(doc.partition("\n\nShapes:")[0])
    try:
        if isinstance(of, Op):
            text.definition = dedent(inspect.getsource(of.definition))
        elif isinstance(of, Primitive):
            text.derivative = "\n".join(dict.fromkeys(dedent(inspect.getsource(v)).strip() for v in of.vjps.values()))
        elif _is_function(of):
            text.formula = inspect.cleandoc(of.function.__doc__ or "")
            text.definition = dedent(inspect.getsource(of.function.forward))
            text.derivative = dedent(inspect.getsource(of.function._derivative()))
    except (OSError, TypeError):                # the source is not in a file
        pass
    return text


# ---- the reader ------------------------------------------------------------------------------------------------------

class Reader:
    """Reads a graph. `opens(name)`: is a composite of this name, or a checkpoint, shown as what it computes?"""

    def __init__(self, names: Names, opens: Callable[[str], bool], into: Structure) -> None:
        self.names, self.opens, self.found = names, opens, into
        self.at: dict[int, list[tuple[int, int]]] = {}          # by the id of a node or leaf: (id, output) of outputs
        self.held: list[Any] = []               # what is known by its Python id must not go meanwhile
        self.memory: dict[int, int] = {}
        self.packed = 0                         # of how many nodes hooks have packed what they keep
        self.plans: dict[Any, str] = {}
        self.keys: dict[int, Key] = {}          # of shown nodes

    def read(self, edges: Sequence[Edge], before: Sequence[Any] = ()) -> None:
        """Reads the graph of the roots. `before`: what was added, in the order of recording."""
        shown = [*before, *self.add(edges)]
        self.found.outputs = [self.shown_at(e) for e in edges]
        uses = Counter((source, x.output) for source, _, x in self.found.edges() if x.differentiable)
        for (source, _), number in uses.items():
            self.found.nodes[source].uses = max(self.found.nodes[source].uses, number)
        self.name_outputs_of_kernels()
        used = {source for source, _, _ in self.found.edges()}
        for i in [n.id for n in self.found.nodes.values() if n.kind == "data" and n.id not in used]:
            del self.found.nodes[i]             # only a composite that was opened has it as an input
        self.found.root = self.grouped(shown)
        self.note()

    def note(self) -> None:
        """Tells what could not be known."""
        ops = [n for n in self.found.nodes.values() if n.kind == "op"]
        unknown = sum(not n.lines for n in ops)
        if unknown:
            self.found.notes.append(
                f"the lines and launches of {'all' if unknown == len(ops) else unknown} nodes are not known: run the "
                "forward pass in `with study.Record():`, or pass the function instead of its result")
        freed = sum(n.freed for n in ops)
        if freed:
            self.found.notes.append(f"a backward pass has freed what {freed} nodes had saved "
                                    "(backward(retain_graph=True) keeps it)")
        if self.packed:
            self.found.notes.append(f"what {self.packed} nodes keep was packed by saved_tensors_hooks: it is not shown")

    # ---- nodes ----

    def add(self, roots: Iterable[Edge]) -> list[Any]:
        """Adds all nodes that lead to the roots. Returns what is shown for the ops, in the order of recording."""
        nodes: list[Node] = []
        leaves: list[Any] = []
        stack = [node_of(e) for e in roots]
        seen = set(self.at)
        while stack:
            edge = stack.pop()
            if edge is None or id(edge) in seen:
                continue
            seen.add(id(edge))
            self.held.append(edge)
            if isinstance(edge, Node):
                nodes.append(edge)
                stack.extend(map(node_of, edge.inputs))
            else:
                leaves.append(edge)
        for origin in filter(None, map(origins.get, nodes)):
            self.names.know(origin)
        for t in reversed(leaves):
            self.leaf(t)
        return [self.node(node) for node in sorted(nodes, key=lambda n: -n.seq)]

    def shown_at(self, edge: Edge) -> tuple[int, int]:
        """The id and the output of an edge that was added."""
        return self.at[id(node_of(edge))][edge.index if type(edge) is Slot else 0]

    def new(self, of: Any, kind: str, op: str, backward: str, label: str, outputs: list[Output]) -> GraphNode:
        """Adds a node for a node or tensor."""
        made = GraphNode(len(self.found.nodes), kind, op, backward, label, outputs)
        self.found.nodes[made.id] = made
        self.found.ids[id(of)] = weakref.ref(of), made.id
        self.at[id(of)] = [(made.id, i) for i in range(len(outputs))]
        self.held.append(of)
        return made

    def leaf(self, t: Any) -> None:
        """Adds a leaf."""
        made = self.new(t, "leaf", "leaf", "AccumulateGrad", self.names.of(t, "leaf"), [_output(t.array.layout)])
        made.path = "parameter" if id(t) in self.names.parameters else ""

    def data(self, t: Tensor, name: str) -> tuple[int, int]:
        """Where a tensor that gets no gradient is shown; added if need be. `name` is for one without a variable."""
        edge = edge_of(t)
        if id(node_of(edge)) not in self.at:
            self.new(edge, "data", "data", "", self.names.of(t, name), [_output(t.array.layout)])
        return self.shown_at(edge)

    def node(self, node: Node) -> Any:
        """Adds a node, or its definition; returns the id, or the group."""
        name = node.op.name
        if self.opens(name):
            group = self.opened(node, name)
            if group is not None:
                return group
        layouts = node.layout if type(node.layout) is tuple else (node.layout,)
        inputs = self.inputs(node)              # before the node: data that it uses comes first
        made = self.new(node, "op", name, node_name(node.op), name, [_output(x) for x in layouts])
        made.inputs, made.freed = inputs, node.saved is FREED
        made.attrs = {k: shortened(repr(v), 60) for k, v in (node.attrs or {}).items()
                      if k not in ("context", "views", "of")}
        origin = origins.get(node)
        if origin is not None:
            self.locate(made, origin)
        self.keys[made.id] = self.key(node, origin)
        made.module = next((k[2] for k in reversed(self.keys[made.id]) if k[0] == "module"), "")
        made.path, made.why = self.path(node, origin)
        made.saved = self.saved(node, made)
        self.packed += type(node.saved) is Packed and not made.saved
        if name not in self.found.ops:
            self.found.ops[name] = texts(node.op)
        return made.id

    def locate(self, made: GraphNode, origin: Origin) -> None:
        """Says where a node was recorded, and what ran."""
        made.launches = [x.kernel for x in origin.launches]
        made.lines = [(*line, linecache.getline(line[0], line[1]).strip()) for line in origin.place.lines]

    def inputs(self, node: Node) -> list[Input]:
        """The inputs of a node."""
        tensors = [*given(node), *[None] * len(node.inputs)]
        found, seen = [], constants.get(node, {})
        names = input_names(node.op, len(node.inputs))
        for i, (name, edge, t) in enumerate(zip(names, node.inputs, tensors, strict=False)):
            x = Input(name)
            if edge is not None:
                (x.source, x.output), x.value, x.differentiable = self.shown_at(edge), _output(_layout(edge)), True
            elif isinstance(t, Tensor):
                x.value = _output(t.array.layout)
                x.number = number_of(t) if id(t) not in self.names.tensors else ""
                if not x.number:
                    x.source, x.output = self.data(t, _data_name(name, node.op))
            elif isinstance(seen.get(i), str):
                x.number = seen[i]
            elif i in seen:
                x.value = _output(seen[i])
            elif t is None and isinstance(node.op, (Op, GradOp)) and node.saved is not FREED:
                continue                        # it was left out
            found.append(x)
        return found

    def saved(self, node: Node, made: GraphNode) -> list[Saved]:
        """The arrays that a node keeps; numbers are left out."""
        found: dict[int, Saved] = {}
        for name, value in contents(node):
            array = value.array if isinstance(value, Tensor) else value
            if id(array.storage) in found or isinstance(value, Tensor) and not array.layout.shape:
                continue
            kind, source = {"output": ("output", made.id), "kernel": ("kernel", None)}.get(name, ("computed", None))
            if isinstance(value, Tensor):
                kind = "parameter" if id(value) in self.names.parameters else "input"
                edge = edge_of(value)
                source = self.shown_at(edge)[0] if id(node_of(edge)) in self.at else None
            maker = made if not isinstance(value, Tensor) else self.found.nodes.get(source)     # type: ignore[arg-type]
            self.held.append(array.storage)
            number = self.memory.setdefault(id(array.storage), len(self.memory))
            found[id(array.storage)] = Saved(name, kind, _output(array.layout), array.storage.layout.nbytes, source,
                                             maker.line if maker is not None else "", number)
        return list(found.values())

    def name_outputs_of_kernels(self) -> None:
        """What a kernel keeps is the node's output, if another node keeps the same memory as its input from there."""
        known = {s.memory: s.source for n in self.found.nodes.values() for s in n.saved if s.source is not None}
        for node in self.found.nodes.values():
            for s in node.saved:
                if s.source is None and known.get(s.memory) == node.id:
                    s.name, s.kind, s.source = "output", "output", node.id

    # ---- what ran ----

    def path(self, node: Node, origin: Origin | None) -> tuple[str, str]:
        """What ran for a node, and why: what a record saw, or what is still known."""
        op = node.op
        if isinstance(op, Op):
            kept = node.saved.saved if type(node.saved) is Packed else node.saved
            return "fused", origin.why if origin is not None else "fused kernel" if kept is FREED else kept[0].why
        if isinstance(op, GradOp):
            return "gradient", f"the backward of {op.of.name}, recorded by create_graph=True"
        if isinstance(op, Primitive):
            why = origin.why if origin is not None and origin.why else self.plan(op, node)
            if why in ("view", "views"):
                return "view", "a view: nothing is computed"
            return "NumPy" if "NumPy" in why else "kernel", why
        if _is_function(op):
            return "function", f"autograd.Function {op.function.__qualname__}"
        if op.name == "checkpoint":
            return "checkpoint", "computed again in backward instead of being kept"
        return "in place", "a change of a tensor, or of one of its views"

    def plan(self, op: Primitive, node: Node) -> str:
        """The reason of a primitive that no record saw: from its plan for these layouts, as far as they are known."""
        tensors = [*given(node), *[None] * len(node.inputs)]
        layouts = tuple([_layout(e) if e is not None else t.array.layout if isinstance(t, Tensor) else None
                         for e, t in zip(node.inputs, tensors, strict=False)])
        key = op, layouts, node.layout, repr(node.attrs)
        if key not in self.plans:
            plan = next((p for k, p in list(op.plans.items()) if p.layout is node.layout and
                         (p.attrs or {}) == (node.attrs or {}) and len(k) >= len(layouts) and
                         all(x is None or x is y for x, y in zip(layouts, k, strict=False))), None)
            self.plans[key] = plan.why if plan is not None and plan.why else "primitive"
        return self.plans[key]

    # ---- definitions ----

    def opened(self, node: Node, name: str) -> Group | None:
        """What a composite's definition or a checkpointed block computes, as a group; None for other nodes, and where
        what it needs was freed."""
        if hasattr(node.saved, "run_again"):
            outputs: Any = node.saved.run_again()
            why = "computed again in backward"
        elif isinstance(node.op, Op) and type(node.saved) is tuple and node.saved is not FREED:
            plan, tensors, _ = node.saved
            aliases = [None if t is None else self.alias(t, e, _data_name(n, node.op))
                       for t, e, n in zip(tensors, node.inputs, node.op.inputs, strict=True)]
            observers.append(note_constants)
            try:
                with enable_grad():
                    outputs = node.op.definition(*aliases, **(node.attrs or {}))
            finally:
                observers.remove(note_constants)
            why = f"opened to its definition; {plan.why} ran"
        else:
            return None
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        self.held.append(outputs)
        origin, first = origins.get(node), len(self.found.nodes)
        inside = self.add([edge_of(o) for o in outputs if o._requires_grad])
        self.settle(first)
        group = Group("opened", name, name, why, children=inside)
        self.at[id(node)] = [self.shown_at(edge_of(o)) if o._requires_grad else (-1, 0) for o in outputs]
        self.found.ids[id(node)] = weakref.ref(node), self.at[id(node)][0][0]
        group.key = key = self.key(node, origin)
        for i in range(first, len(self.found.nodes)):
            made = self.found.nodes[i]
            if origin is not None and made.kind == "op":
                self.locate(made, origin)
                made.launches = []
            made.module = next((k[2] for k in reversed(key) if k[0] == "module"), "")
        return group

    def settle(self, first: int) -> None:
        """Of the nodes from number `first` on, those of an opened definition: no gradient flows to what is computed of
        data alone, and nothing is kept for it. It was recorded to be shown."""
        constant: set[int] = set()
        for i in range(first, len(self.found.nodes)):
            made = self.found.nodes[i]
            for x in made.inputs:
                if x.source is not None and (x.source in constant or self.found.nodes[x.source].kind == "data"):
                    x.differentiable = False
            if made.kind == "op" and not any(x.differentiable for x in made.inputs):
                constant.add(i)
                made.backward, made.saved = "", []

    def alias(self, t: Tensor, edge: Edge, name: str) -> Tensor:
        """A tensor in the place of an input, for a second run of a definition, which is recorded as a whole."""
        made = t.detach()
        made._requires_grad = is_float(t.array.layout.dtype)        # of a new tensor
        self.at[id(made)] = [self.shown_at(edge) if edge is not None else self.data(t, name)]
        self.held.append(made)
        return made

    # ---- groups ----

    def key(self, node: Node, origin: Origin | None) -> Key:
        """The groups of a node. Where no record knows it: the module of a parameter that it uses."""
        if origin is None:
            paths = [self.names.parameters[id(e)].split(".")[:-1] for e in node.inputs
                     if isinstance(e, Tensor) and id(e) in self.names.parameters]
            if not paths:
                return ()
            return tuple([("module", name, ".".join(paths[0][:i + 1]), "", 0) for i, name in enumerate(paths[0])])
        keys, path, outer, place = [], "", None, origin.place
        for i, (reference, call) in enumerate(zip(place.refs, place.calls, strict=True)):
            module = reference()
            kind = place.types[i]
            name = place.root if not i else self.names.path_in(outer, module) or kind
            path = f"{path}.{name}" if path else name
            keys.append(("module", name, path, kind, call))
            outer = module
        return (*keys, *[("definition", name, name, why, call) for name, why, call in place.within])

    def grouped(self, shown: list[Any]) -> Group:
        """The tree of groups. A group is a run of nodes recorded one after the other, so no edge leaves it and comes
        back: each call of a module is a group."""
        root = Group("graph", "graph")
        keys = [x.key if isinstance(x, Group) else self.keys[x] for x in shown]
        if not any(k[0][4] for k in keys if k):         # no record: nodes between two of a module belong to it
            keys = _filled(keys)
        open_groups: list[tuple[Any, Group]] = [((), root)]
        for x, key in zip(shown, keys, strict=True):
            same = 0
            while same < min(len(key), len(open_groups) - 1) and open_groups[same + 1][0] == key[same]:
                same += 1
            del open_groups[same + 1:]
            for part in key[same:]:
                inner = Group(*part[:4])
                open_groups[-1][1].children.append(inner)
                open_groups.append((part, inner))
            open_groups[-1][1].children.append(x)
        self.place_leaves(root)
        _count_calls(root)
        return root

    def place_leaves(self, root: Group) -> None:
        """Puts each leaf, and data, into the innermost group that holds all its users, before the first of them."""
        chains = dict(root.chains())
        users: dict[int, list[int]] = {}
        for source, node, _ in self.found.edges():
            if source not in chains:
                users.setdefault(source, []).append(node.id)
        new: dict[int, dict[int, list[int]]] = {}       # by the id of a group: child or id of its group -> leaves
        for leaf in [n.id for n in self.found.nodes.values() if n.id not in chains]:
            found = [chains[u] for u in users.get(leaf, ())]
            depth = 0
            while found and all(len(c) > depth for c in found) and len({id(c[depth]) for c in found}) == 1:
                depth += 1
            group = found[0][depth - 1] if found else root
            before = [id(c[depth]) if len(c) > depth else u for c, u in zip(found, users.get(leaf, ()), strict=True)]
            new.setdefault(id(group), {}).setdefault(before[0] if before else -1, []).append(leaf)
        for group in list(root.groups()):
            at = new.get(id(group), {})
            group.children = [y for x in group.children
                              for y in (*at.pop(id(x) if isinstance(x, Group) else x, ()), x)]
            group.children += [leaf for leaves in at.values() for leaf in leaves]


def _count_calls(root: Group) -> None:
    """Says of each group of a module that is called several times which call it is."""
    groups: dict[str, list[Group]] = {}
    for group in root.groups():
        if group.kind == "module":
            groups.setdefault(group.path, []).append(group)
    for same in groups.values():
        for i, group in enumerate(same if len(same) > 1 else ()):
            group.call = f"call {i + 1} of {len(same)}"


def _filled(keys: list[Key]) -> list[Key]:
    """Keys where those that are empty have what the neighbours on both sides have in common."""
    before: Key = ()
    found = []
    following: list[Key] = [()] * len(keys)
    after: Key = ()
    for i in range(len(keys) - 1, -1, -1):
        after = keys[i] or after
        following[i] = after
    for key, next_key in zip(keys, following, strict=True):
        same = 0
        while same < min(len(before), len(next_key)) and before[same] == next_key[same]:
            same += 1
        found.append(key or before[:same])
        before = key or before
    return found


def read(into: Structure, what: Any, args: tuple, kwargs: dict[str, Any], opens: Callable[[str], bool]) -> None:
    """Reads the graph of a tensor, of several, or of what a function returns."""
    names = Names()
    result = what
    if callable(what) and not isinstance(what, Tensor):
        with Record():
            result = what(*args, **kwargs)
    elif args or kwargs:
        fail("graph", "arguments are for a function; a tensor takes none", f"{len(args) + len(kwargs)} arguments",
             kind=TypeError)
    roots = [t for t in inside(result) if isinstance(t, Tensor) and t._requires_grad]
    if not roots:
        fail("graph", "needs a tensor that requires a gradient, or a function that returns one", type(result).__name__,
             "let a parameter require gradients, and do not compute under no_grad()")
    Reader(names, opens, into).read([edge_of(t) for t in roots])
