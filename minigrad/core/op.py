"""Ops: primitives, composites with fused kernels, and the derived backward.

Two kinds of op:

* a `Primitive` is one array computation and, per input, a VJP written in Tensor ops. Each VJP is a function whose
  parameter names say what it uses: `g` the gradient, `out` the output, an input's name (that input is saved), an
  input's name + `_shape` (only its shape is needed), or an attribute's name.
* an `Op` (made by `@op`) is a pure function of Tensors. That text is the reference, the fallback and the source of
  every derivative. `@layer_norm.fused` adds kernels for the forward and the first-order backward.

**The backward of an Op is an op, derived, never written**: its definition is "the VJP of my definition", its kernel is
the fused backward. `backward()` runs the fused backward on saved arrays. With `create_graph=True` a node of the grad-op
is recorded over the op's *input tensors*; differentiating it re-runs the definition on aliases of them (a `short` one
runs at once, and its ops are recorded), unless the op has a `vjp`, which need not repeat the forward.

What runs for a call is decided once per signature (the layouts of the inputs and the attributes) and kept in `plans`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from ..devices.base import NoKernel
from ..devices.memory import Array, Buffer, Layout
from ..devices.memory import layout as layout_of
from ..devices.plan import FusedPlan, Plan, remember
from .arrays import contiguous_copy, dense
from .engine import functions, walk
from .half import Wide, half_result, halves_seen, rounds_once, wide_plan
from .messages import not_a_tensor, unexpected
from .modes import enable_grad, mode, paused, set_grad_enabled
from .own_kernels import OwnKernels, note_launchers, ops, registered
from .saved import SavedAttributes, stale
from .shape import fail, is_float
from .tape import Node, Slot, edge_of, recorded
from .tensor import Tensor, new_tensor

registry: dict[str, Primitive | Op] = {}      # every op by name, for tests, bench and documentation


def parameters(function: Callable) -> tuple[list[str], list[str]]:
    """The positional (tensor) and keyword-only (attribute) parameter names of a definition."""
    code = function.__code__                                # inspect is slow, and this runs for hundreds of functions
    n = code.co_argcount
    return list(code.co_varnames[:n]), list(code.co_varnames[n:n + code.co_kwonlyargcount])


class Documented(SavedAttributes):
    """What tests, bench and documentation read of an op: name, samples, error samples, an outside oracle.

    `public` is what users call: the op itself, or a faster function.
    """

    def __init__(self, name: str, doc: str | None) -> None:
        self.name, self.__name__, self.__doc__ = name, name, doc
        self.sample_function: Callable | None = None
        self.error_function: Callable | None = None
        self.oracle: Callable | None = None
        self.public: Any = self
        if registered(self, registry.get(name)):
            registry[name] = self                               # type: ignore[assignment]

    def samples(self, function: Callable) -> Callable:
        """Decorates `def _(make): yield make(2, 3), make(3), dict(eps=1e-5)`: what it is tested and timed on."""
        self.sample_function = function
        return function

    def errors(self, function: Callable) -> Callable:
        """Decorates `def _(make): yield (arguments..., attrs), exception, regex`: what must be refused, and how."""
        self.error_function = function
        return function

    def reference(self, function: Callable) -> Callable:
        """Decorates an independent NumPy/SciPy computation of the same result."""
        self.oracle = function
        return function

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def public(op: Primitive | Op, call: Callable) -> Any:
    """Makes `call` the function that users call for an op: it carries the op and its decorators."""
    op.public = call
    for name in ("samples", "errors", "reference", "check", "fused", "kernel"):
        if hasattr(op, name):
            setattr(call, name, getattr(op, name))
    call.op = op                                                # type: ignore[attr-defined]
    return call


def complete(name: str, attributes: tuple[str, ...], defaults: dict[str, Any], attrs: dict[str, Any]) -> dict[str, Any]:
    """All attributes of a call, those left out with their defaults; refuses unknown and missing ones."""
    full = {**defaults, **attrs}
    for n in [n for n in attrs if n not in attributes]:
        unexpected(name, n, full.pop(n), attributes)
    for n in [n for n in attributes if n not in full]:
        raise TypeError(f"[{name}] the attribute {n} is missing; got {', '.join(attrs) or 'none'}")
    return full


# ---- primitives -----------------------------------------------------------------------------------------------------

class Primitive(Documented):
    """One array computation plus VJPs. `prepare(*layouts, **attrs) -> Plan` checks a signature and chooses the kernel.

    `vjps` has one for each input that has a derivative. Where one computation gives the gradients of all inputs
    (a join), or where there are several outputs (a cut), `backward(node, g, needs)` replaces them and saves nothing.
    """

    def __init__(self, name: str, prepare: Callable[..., Plan], vjps: dict[str, Callable] | None = None,
                 inputs: Iterable[str] | None = None, doc: str | None = None, attributes: Iterable[str] | None = None,
                 backward: Callable | None = None) -> None:
        super().__init__(name, doc or prepare.__doc__)
        self.prepare = prepare
        positional, keywords = parameters(prepare)
        self.inputs = tuple(positional if inputs is None else inputs)
        self.attributes = tuple(keywords if attributes is None else attributes)
        self.defaults: dict[str, Any] = getattr(prepare, "__kwdefaults__", None) or {}
        self.plans: dict[tuple, Plan] = {}
        self.vjps = vjps or {}
        self._check_vjps()
        used = {i: set(parameters(self.vjps[n])[0]) for i, n in enumerate(self.inputs) if n in self.vjps}
        self.rules = {i: self._rule(self.vjps[self.inputs[i]]) for i in used}
        self.rule_list: list[Any] = [self.rules.get(i) for i in range(len(self.inputs))]
        self.out_for = frozenset(i for i, u in used.items() if "out" in u)      # the inputs whose rules use the output
        # saves[i]: which inputs the rule of input i uses
        self.saves = {i: frozenset(k for k, n in enumerate(self.inputs) if n in u) for i, u in used.items()}
        self.keeps = bool(self.out_for) or any(self.saves.values())
        self.joint = backward is not None
        self.records = bool(self.rules) or self.joint
        if backward is not None:
            self.backward = backward                            # type: ignore[method-assign]

    def _check_vjps(self) -> None:
        for name, vjp in self.vjps.items():
            known = {"g", "out", *self.inputs, f"{name}_shape", *self.attributes}   # no edge keeps another one's shape
            if name not in self.inputs:
                raise TypeError(f"[{self.name}] there is a VJP of {name!r}; the inputs are {', '.join(self.inputs)}")
            positional, keywords = parameters(vjp)
            for asked in positional + keywords:
                if asked not in known or asked in keywords:
                    raise TypeError(f"[{self.name}] the VJP of {name} asks for {asked!r}; "
                                    f"it may ask for {', '.join(sorted(known))}")

    def _rule(self, vjp: Callable) -> Callable[[Node, Tensor], Tensor]:
        """The VJP with its arguments fetched from the node."""
        names = parameters(vjp)[0]
        if names == ["g"]:                                              # the two common forms, without a list
            return lambda node, g: vjp(g)
        if len(names) == 2 and names[0] == "g" and names[1] in self.inputs:
            index = self.inputs.index(names[1])
            return lambda node, g: vjp(g, node.saved[index])
        fetch = [self._source(name) for name in names]
        return lambda node, g: vjp(*[f(node, g) for f in fetch])

    def _source(self, name: str) -> Callable[[Any, Any], Any]:
        """Where an argument of a VJP comes from."""
        if name == "g":
            return lambda node, g: g
        if name == "out":
            return lambda node, g: new_tensor(node.out, node)
        if name in self.attributes:
            return lambda node, g: node.attrs[name]
        index = self.inputs.index(name.removesuffix("_shape") if name not in self.inputs else name)
        if name in self.inputs:
            return lambda node, g: node.saved[index]
        return lambda node, g: node.inputs[index].layout.shape

    def plan(self, layouts: Iterable[Layout], attrs: dict[str, Any]) -> Plan:
        """The plan of a signature, made at its first call. Its key: layouts, then attributes in `prepare`'s order."""
        if len(attrs) != len(self.attributes):
            attrs = complete(self.name, self.attributes, self.defaults, attrs)
        key: Any = None
        try:
            key = (*layouts, *map(attrs.__getitem__, self.attributes))
        except KeyError:
            pass                                                # the error is raised outside, to be shown alone
        if key is None:
            complete(self.name, self.attributes, self.defaults, attrs)
        plan = self.plans.get(key)
        if plan is None:
            known = key[:len(key) - len(attrs)]
            try:
                plan = self.prepare(*known, **attrs)
            except NoKernel as error:
                reason = error.with_traceback(None)
            if plan is None:
                plan = wide_plan(self, known, attrs, reason)
            plan.op, plan.attrs = self, plan.attrs or attrs
            remember(self.plans, key, plan)                     # last: other threads find a whole plan, or none
        return plan

    def __call__(self, *inputs: Tensor, **attrs: Any) -> Any:
        arrays = [t.array for t in inputs]
        plan = self.plan([a.layout for a in arrays], attrs)
        try:
            run = plan.run
        except AttributeError:                                  # a `Wide` plan has none
            return plan.at(inputs, attrs)                       # type: ignore[attr-defined]
        return self.finish(plan, inputs, run(*arrays))

    def finish(self, plan: Plan, inputs: Sequence[Tensor], made: Any) -> Any:
        """What a plan made, as a tensor (or a tuple of them), recorded if need be."""
        if self.records and (not paused or mode.grad):
            for t in inputs:
                if t._requires_grad:
                    return self.record(plan, inputs, made)
        return new_tensor(made, None) if type(made) is not list else tuple([new_tensor(a, None) for a in made])

    def record(self, plan: Plan, inputs: Sequence[Tensor], made: Any) -> Any:
        """What a plan made, with its node."""
        if self.joint:
            edges = tuple([(t.node or t) if t._requires_grad else None for t in inputs])
            node = recorded(self, edges, plan.layout, (), 0, None, plan.attrs)
            if type(made) is list:
                return tuple([new_tensor(a, Slot(node, i, a.layout)) for i, a in enumerate(made)])
            return new_tensor(made, node)
        rules = self.rules
        if not is_float(made.layout.dtype):
            return new_tensor(made, None)
        edges = tuple([(t.node or t) if t._requires_grad and i in rules else None for i, t in enumerate(inputs)])
        keep: frozenset[int] = frozenset().union(*[self.saves[i] for i, e in enumerate(edges) if e is not None])
        saved = tuple([t if i in keep else None for i, t in enumerate(inputs)]) if keep else ()
        version = sum([t.array.version for t in saved if t is not None])
        out = made if any([e is not None and i in self.out_for for i, e in enumerate(edges)]) else None
        return new_tensor(made, recorded(self, edges, made.layout, saved, version, out, plan.attrs))

    def backward(self, node: Node, g: Tensor, needs: list[bool]) -> list[Tensor | None]:
        version = 0
        for t in node.saved:
            if t is not None:
                version += t.array.version
        if version != node.version or (node.out is not None and node.out.version):
            stale(self.name, node)
        return [rule(node, g) if need else None for rule, need in zip(self.rule_list, needs)]      # noqa: B905 (hot)


# ---- composites -----------------------------------------------------------------------------------------------------

class Op(Documented, OwnKernels):
    """A composite: `definition(*tensors, **attrs)` in Tensor ops, with optional fused kernels.

    `any_layout`: its kernels take inputs of any strides, so that nothing is copied before them. `like_first`: results
    of half precision have the dtype of the first input, whatever the parameters have. `short`: a gradient that is to be
    differentiated is recorded as the definition's few ops, not as one node (`GradOp`) that derives them each time, or
    as those that `vjp` calls, which do not repeat the forward.
    """

    def __init__(self, definition: Callable, nondifferentiable: tuple[int, ...] = (), any_layout: bool = False,
                 like_first: bool = False, short: bool = False) -> None:
        self.__module__ = definition.__module__
        super().__init__(definition.__name__.lstrip("_"), definition.__doc__)
        ops.add(self)
        self.definition = self.__wrapped__ = definition     # inspect.getsource(op) and inspect.signature(op) show it
        self.inputs, self.attributes = (tuple(n) for n in parameters(definition))
        self.defaults: dict[str, Any] = definition.__kwdefaults__ or {}
        kinds = definition.__annotations__          # signed: 0.0 == -0.0, but as a part of a key they are two values
        self.signed = tuple([n for n in self.attributes if "float" in str(kinds.get(n, "float"))])
        self.nondifferentiable, self.any_layout, self.like_first = nondifferentiable, any_layout, like_first
        self.short = short
        self.plans: dict[tuple, FusedPlan | Wide | str] = {}    # a str says why the definition runs
        self.prepare: Callable | None = None
        self.rule: Callable | None = None
        self.vjp: Callable | None = None                        # (node, g, needs) -> gradients, or None
        self.grad_op = GradOp(self)            # the backward as an op: (inputs..., output gradients...) -> gradients

    def check(self, rule: Callable) -> Callable:
        """Decorates the shape rule: `rule(*layouts or None, **attrs)` raises on a signature that is wrong."""
        self.rule = rule
        return rule

    def fused(self, prepare: Callable) -> Callable:
        """Decorates `prepare(kernels, *layouts, **attrs) -> (forward, backward)`, which runs once per signature with
        contiguous layouts and raises NoKernel(reason) where the kernels do not apply."""
        self.prepare = prepare
        note_launchers(prepare)
        return prepare

    def __call__(self, *inputs: Tensor | None, **attrs: Any) -> Any:
        arrays: list[Any] = []
        edges: list[Any] = []
        key: list[Any] = []
        version, recording = 0, False
        if len(attrs) != len(self.attributes):
            attrs = complete(self.name, self.attributes, self.defaults, attrs)
        try:
            for t in inputs:            # one pass for all that is needed: this is the hot path of every layer
                if t is None:
                    arrays.append(None)
                    edges.append(None)
                    key.append(None)
                else:
                    array = t.array
                    arrays.append(array)
                    key.append(array.layout)
                    version += array.version
                    if t._requires_grad:
                        edges.append(t.node or t)
                        recording = True
                    else:
                        edges.append(None)
            signature: Any = (*key, *map(attrs.__getitem__, self.attributes))
            for n in self.signed:
                if not attrs[n]:
                    signature = (*signature, repr(attrs[n]))
            plan: Any = self.plans.get(signature)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):     # the last two: `not` an array
            signature = plan = None             # the error is raised outside of the handler, to be shown alone
        if plan is None:
            plan = self._plan(signature, inputs, attrs)
        if type(plan) is not FusedPlan:
            return self.definition(*inputs, **attrs) if type(plan) is str else plan.at(inputs, attrs)
        for i in plan.copied:
            arrays[i] = contiguous_copy(arrays[i])
        outputs, saved = plan.forward(*arrays)
        if not (recording and (not paused or mode.grad)):
            many = type(outputs) is tuple
            return tuple([new_tensor(o, None) for o in outputs]) if many else new_tensor(outputs, None)
        keep = plan, inputs, saved
        if type(outputs) is not tuple:
            return new_tensor(outputs, recorded(self, edges, outputs.layout, keep, version, None, attrs))
        node = recorded(self, edges, tuple([o.layout for o in outputs]), keep, version, None, attrs)
        constant = self.nondifferentiable
        return tuple([new_tensor(o, None if i in constant else Slot(node, i, o.layout)) for i, o in enumerate(outputs)])

    def plan(self, inputs: Iterable[Tensor | None], attrs: dict[str, Any]) -> FusedPlan | Wide | str | None:
        """The plan of an earlier call, or None. Its key: the layouts, then the attributes in the definition's order."""
        full = complete(self.name, self.attributes, self.defaults, attrs)
        layouts = [None if t is None else t.array.layout for t in inputs]
        values = [*[full[n] for n in self.attributes], *[repr(full[n]) for n in self.signed if not full[n]]]
        return self.plans.get((*layouts, *values))

    def _plan(self, key: Any, inputs: tuple, attrs: dict) -> FusedPlan | Wide | str:
        """Checks the signature, then chooses: kernels, or the definition and why, in float32 for half precision."""
        if key is None or any([isinstance(value, Tensor) for value in attrs.values()]):
            self._explain_arguments(inputs, attrs)
        layouts = [None if t is None else t.array.layout for t in inputs]
        if len(inputs) != len(self.inputs):
            raise TypeError(f"[{self.name}] takes the tensors ({', '.join(self.inputs)}); got {len(inputs)} arguments")
        if layouts and layouts[0] is None:
            raise not_a_tensor(self.name, "input", None)
        same_device(self.name, layouts)
        if self.rule is not None:
            self.rule(*layouts, **attrs)
        dtype = half_result(inputs)
        plan = self._choose(layouts, attrs, dtype is None)
        if dtype is not None and type(plan) is str:
            plan = Wide(self, inputs[0].dtype if self.like_first else dtype, "", exact=self.nondifferentiable)
        return remember(self.plans, key, plan)

    def _choose(self, layouts: list, attrs: dict, required: bool) -> FusedPlan | Wide | str:
        """The kernels, or why there are none; `required`: RuntimeError then, if fused kernels are required."""
        if self.prepare is None:
            return "no fused kernel is defined"
        if mode.fused == "off":
            return "fused kernels are switched off"
        first = next(x for x in layouts if x is not None)
        flat = layouts if self.any_layout else [x and layout_of(x.device, x.dtype, x.shape) for x in layouts]
        try:
            made = self.prepare(self.kernels_on(first.device), *flat, **attrs)
        except NoKernel as reason:
            made = str(reason)
        if type(made) is str:
            if mode.fused == "require" and required:
                fail(self.name, f"fused kernels are required, but {made}", layouts, "set_fused('auto')")
            return made
        plan = made if isinstance(made, FusedPlan) else FusedPlan(*made)
        plan.why = f"fused kernel on {first.device}"
        plan.copied = tuple(i for i, (x, y) in enumerate(zip(layouts, flat, strict=True)) if x is not y)
        return plan

    def _explain_arguments(self, inputs: tuple, attrs: dict) -> NoReturn:
        complete(self.name, self.attributes, self.defaults, attrs)
        if len(inputs) > len(self.inputs):
            raise TypeError(f"[{self.name}] takes ({', '.join(self.inputs)}) by position and "
                            f"({', '.join(self.attributes)}) by name; got {len(inputs)} arguments by position")
        for name, t in zip(self.inputs, inputs, strict=False):
            if t is not None and not isinstance(t, Tensor):
                raise not_a_tensor(self.name, "input" if name == "x" else name, t)
        for name, value in attrs.items():
            try:
                hash([] if isinstance(value, Tensor) else value)
            except TypeError:
                raise TypeError(f"[{self.name}] {name} must be hashable, and no tensor; got {value!r}; pass a tuple "
                                "instead of a list or an array, and a tensor by position") from None
        raise TypeError(f"[{self.name}] the arguments do not fit its signature ({', '.join(self.inputs)}); "
                        f"got {', '.join(type(t).__name__ for t in inputs)}")

    def backward(self, node: Node, g: Any, needs: list[bool]) -> list[Tensor | None]:
        """The VJP at a node with fused kernels: on saved arrays; or recorded, as the grad-op or as the definition's."""
        plan, inputs, saved = node.saved
        version = 0
        for t in inputs:
            if t is not None:
                version += t.array.version
        changed = version != node.version
        # what the forward made was new then: version 0; a list is an input and a version: not needed
        for a in saved if isinstance(saved, tuple) else (saved,):
            if changed or type(a) is Buffer and a.version:
                own = type(a) is Buffer and all([t is None or t.array is not a for t in inputs])
                if own and a.version or changed and not own and a is not None and type(a) is not list:
                    stale(self.name, node)
        if mode.grad and self.vjp and not changed and (written := self.vjp(node, g, needs)) is not None:
            return written
        kernels = None if mode.grad and (changed or self.short) else plan.backward    # that of its ops needs all inputs
        results = kernels and kernels(saved, _gradient_arrays(node, g), needs)
        gs = g if type(g) is list else [g]
        if results is None:
            if changed:
                stale(self.name, node)
            return derived(self.definition, inputs, node.attrs, gs, needs, mode.grad)
        if mode.grad:
            return self.grad_op.record(inputs, gs, node.attrs, results)
        return [None if r is None else new_tensor(r, None) for r in results]


def _gradient_arrays(node: Node, g: Any) -> Any:
    """The arrays of the output gradients (one, or a list with None for those not needed), made contiguous."""
    if type(g) is list:
        return [None if t is None else dense(t.array) for t in g]
    return g.array if g.array.layout is node.layout else dense(g.array)


class GradOp:
    """The backward of an op, as an op: recorded when a gradient is itself to be differentiated."""

    def __init__(self, of: Op) -> None:
        self.of, self.name = of, of.name + "_backward"

    def definition(self, *tensors: Tensor | None, needs: tuple[bool, ...], count: int,
                   **attrs: Any) -> tuple[Tensor, ...]:
        """The VJP of the op's definition: the gradients of the needed inputs."""
        results = derived(self.of.definition, tensors[:count], attrs, list(tensors[count:]), list(needs), True)
        return tuple(r for r in results if r is not None)

    def record(self, inputs: tuple, gs: list, attrs: dict | None,
               results: list[Array | None]) -> list[Tensor | None]:
        """The gradients that the kernels gave, with a node over the op's inputs and output gradients."""
        tensors = (*inputs, *gs)
        edges = tuple([edge_of(t) if t is not None and t._requires_grad else None for t in tensors])
        version = sum([t.array.version for t in tensors if t is not None])
        given = [r for r in results if r is not None]
        all_attrs = {**(attrs or {}), "needs": tuple(r is not None for r in results), "count": len(inputs)}
        node = recorded(self, edges, tuple([r.layout for r in given]), tensors, version, None, all_attrs)
        slots = iter([new_tensor(r, Slot(node, i, r.layout)) for i, r in enumerate(given)])
        return [None if r is None else next(slots) for r in results]

    def backward(self, node: Node, g: Any, needs: list[bool]) -> list[Tensor | None]:
        if sum([t.array.version for t in node.saved if t is not None]) != node.version:
            stale(self.name, node)
        return derived(self.definition, node.saved, node.attrs, g, needs, mode.grad)


def derived(definition: Callable, inputs: tuple[Tensor | None, ...], attrs: dict | None, gs: list[Tensor | None],
            needs: list[bool], create_graph: bool) -> list[Tensor | None]:
    """The VJP of a definition: re-run it on aliases of the inputs (one tensor may come in twice, or be computed from
    another input), walk back to the aliases. With `create_graph`, the result is connected to the inputs and to `gs`."""
    with enable_grad():
        aliases: list[Any] = []
        for t, need in zip(inputs, needs, strict=True):
            if t is None or not is_float(t.array.layout.dtype):
                aliases.append(t)
            elif create_graph and t._requires_grad:
                aliases.append(functions.alias(t))
            else:
                aliases.append(t.detach())
                aliases[-1]._requires_grad = need       # of a new tensor: nobody need be told
        outputs = (rounds_once(definition) if halves_seen else definition)(*aliases, **(attrs or {}))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    pairs = [(edge_of(o), g) for o, g in zip(outputs, gs, strict=True) if g is not None and o._requires_grad]
    targets = [edge_of(a) if need else None for a, need in zip(aliases, needs, strict=True)]
    found = walk([p[0] for p in pairs], [p[1] for p in pairs], create_graph, create_graph,
                 [t for t in targets if t is not None], bounded=True)
    with set_grad_enabled(create_graph):
        return [None if t is None else found[t] if t in found else functions.full(a.array.layout, 0)
                for t, a in zip(targets, aliases, strict=True)]


def same_device(name: str, layouts: Iterable[Layout | None]) -> None:
    devices = {x.device for x in layouts if x is not None}
    if len(devices) > 1:
        fail(name, "all tensors must be on one device", [d.name for d in devices], "move them with .to(device)")


def op(definition: Callable | None = None, **options: Any) -> Any:
    """Makes an op of a function of Tensors: tensors are positional, attributes keyword-only; options as `Op` has them.

    >>> @op
    ... def scaled_square(x, *, scale=1.0):
    ...     return x * x * scale
    """
    return Op(definition, **options) if definition is not None else lambda f: Op(f, **options)


def same_dtypes(name: str, x: Layout, *others: Layout | None) -> None:
    """Kernels take one dtype and at least one element; else the definition runs."""
    if not x.size:
        raise NoKernel("there are no elements")
    for o in others:
        if o is not None and o.dtype != x.dtype:
            raise NoKernel(f"{name} kernels take one dtype; got {x.dtype} and {o.dtype}")


def address(array: Array | None) -> int:
    """A kernel's pointer argument that may be null."""
    return 0 if array is None else array.ptr
