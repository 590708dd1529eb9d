"""`Function`: an op with a backward that is written by hand, as in PyTorch.

    class Cube(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x ** 3

        @staticmethod
        def backward(ctx, g):
            x, = ctx.saved_tensors
            return 3 * x ** 2 * g

    y = Cube.apply(x)

`forward` runs without recording. If `backward` consists of Tensor ops, `autograd.grad(..., create_graph=True)` can
differentiate it again.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any

from ..core import inplace
from ..core.graph_node import shown
from ..core.modes import mode, no_grad
from ..core.place import wholes
from ..core.saved import opened, stale
from ..core.shape import fail, is_float
from ..core.tape import FREED, Node, Slot, edge_of, recorded
from ..core.tensor import Tensor, new_tensor
from ..devices.memory import Layout
from ..ops.creation import full_like_layout

__all__ = ["Function", "FunctionCtx", "once_differentiable"]


class FunctionCtx:
    """The context `ctx`: `forward` saves tensors in it and sets attributes on it, and `backward` reads them.

    `needs_input_grad[i]` says whether argument i of `forward` requires a gradient.
    """

    needs_input_grad: tuple[bool, ...] = ()

    if TYPE_CHECKING:           # a program may set any attribute: ctx.name = value
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self, name: str) -> None:
        self._name = name
        self._to_save: tuple[Tensor | None, ...] = ()
        # what the node keeps: tensors; for an output its index, its array is in _outputs
        self._saved: tuple[Any, ...] = ()
        self._made: frozenset[int] = frozenset()        # which of them forward made: neither arguments nor outputs
        self._version = 0
        self._not_differentiable: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()            # inputs that forward changed in place
        self._materialize = True
        self._outputs: dict[int, Any] = {}              # index -> (array, requires a gradient)
        self._sealed = False                            # has forward ended?
        self._no_tensors: frozenset[int] = frozenset()  # the outputs that are no tensors: their gradients are None
        self._reading: Node | None = None               # the node whose backward runs

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Saves inputs, outputs or intermediate tensors for `saved_tensors`. TypeError for what is no tensor or None.

        If one of them is changed in place before backward, `saved_tensors` raises RuntimeError.
        """
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(f"[{self._name}] save_for_backward can only save variables, but got "
                                f"{type(t).__name__}; set anything else as an attribute: ctx.name = value")
        self._to_save = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Marks outputs that do not require a gradient, such as indices."""
        self._not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """With False, `backward` gets None instead of zeros for an output without a gradient."""
        self._materialize = value

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Marks inputs that `forward` changed in place. Each of them must be returned, and becomes that output: `apply`
        returns the input itself. RuntimeError for a leaf that requires gradients."""
        self._dirty = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Not supported: raises NotImplementedError. There is no forward-mode differentiation."""
        raise NotImplementedError(f"[{self._name}] save_for_forward is not supported: there is no forward-mode "
                                  "differentiation; autograd.functional.jvp works by two backward passes")

    @property
    def saved_tensors(self) -> tuple[Any, ...]:         # of Tensors, and None where None was saved
        """The tensors that `save_for_backward` got. RuntimeError if one of them was changed in place since."""
        if not self._sealed:
            return self._to_save
        if self._version != _version(self._saved, self._outputs):
            stale(self._name, self._reading)
        return tuple([self._output(s) if isinstance(s, int) else s for s in self._saved])

    def contents(self) -> tuple[Any, ...]:
        """What it saved: tensors and numbers of outputs; the arrays of these outputs; see `core/saved.py`."""
        return self._saved, tuple(self._outputs.items())

    def restore(self, contents: tuple[Any, ...] | None) -> None:
        """Puts that in its place; None: nothing, while it is packed."""
        self._saved, outputs = contents or ((), ())
        self._outputs = dict(outputs)

    def named(self, contents: tuple[Any, ...] | None = None) -> list[tuple[str, Any]]:
        """What is in `contents` (default: its own) with names: arguments of `forward`, and arrays that it made."""
        saved, outputs = contents or self.contents()
        arrays = dict(outputs)
        own = [arrays[s][0] if isinstance(s, int) else s.array if isinstance(s, Tensor) and i in self._made else s
               for i, s in enumerate(saved)]
        return [(f"saved {i}", s) for i, s in enumerate(own)]

    def _output(self, index: int) -> Tensor:
        array, differentiable = self._outputs[index]
        node: Any = self._reading
        if not differentiable or node is None:
            return new_tensor(array, None)
        return new_tensor(array, Slot(node, index, array.layout) if type(node.layout) is tuple else node)

    def _seal(self, args: tuple[Any, ...], outputs: list[Any], differentiable: list[bool]) -> None:
        """Keeps the arrays of saved outputs, not the tensors: those hold the node, and the node holds this context."""
        self._sealed = True
        self._no_tensors = frozenset([i for i, o in enumerate(outputs) if not isinstance(o, Tensor)])
        numbers = {id(o): i for i, o in enumerate(outputs)}
        given = {id(a) for a in args}
        self._made = frozenset([i for i, t in enumerate(self._to_save) if id(t) not in given])
        self._saved = tuple([numbers.get(id(t), t) if t is not None else None for t in self._to_save])
        self._outputs = {s: (outputs[s].array, differentiable[s]) for s in self._saved if isinstance(s, int)}
        self._to_save = self._not_differentiable = ()
        self._version = _version(self._saved, self._outputs)


_OWN = frozenset(vars(FunctionCtx("")))             # what it keeps for itself


def _version(saved: tuple[Any, ...], outputs: dict[int, Any]) -> int:
    """The sum of the version counters of the saved tensors: it grows when one of them is changed in place."""
    return sum([outputs[s][0].version if isinstance(s, int) else s.array.version for s in saved if s is not None])


class _FunctionOp:
    """The op in the nodes of a `Function`.

    `node.saved` is the context, if it saved tensors. A context without them is in `node.attrs`, which is not freed.
    """

    def __init__(self, function: type[Function]) -> None:
        self.function, self.name = function, function.__name__
        self.node_name = f"{self.name}Backward"

    def node_attributes(self) -> dict[str, Any]:
        """What its nodes have besides, where in PyTorch the node is the context: `saved_tensors`, and what `forward`
        set on it; `next_functions` has entries for tensors only."""
        def saved_tensors(node: Any) -> tuple[Any, ...]:
            with opened(node):
                ctx: FunctionCtx = node.saved or node.attrs["context"]
                ctx._reading = node
                try:
                    return ctx.saved_tensors
                finally:
                    ctx._reading = None

        def attribute(node: Any, name: str) -> Any:
            ctx = None if node.saved is FREED else node.saved or (node.attrs or {})["context"]
            ctx = getattr(ctx, "owner", ctx)                # hooks have packed what it saves
            if ctx is None or name in _OWN or name not in vars(ctx):
                freed = "; the graph was freed by an earlier backward()" if ctx is None else ""
                raise AttributeError(f"{type(node).__name__!r} object has no attribute {name!r}{freed}", name=name)
            return getattr(ctx, name)
        return {"saved_tensors": property(saved_tensors, doc="what `save_for_backward` got"), "__getattr__": attribute,
                "next_functions": property(lambda node: tuple([shown(edge) for edge, need in
                                                               zip(node.inputs, node.needs, strict=True)
                                                               if need is not None]))}

    def backward(self, node: Node, g: Any, needs: list[bool]) -> list[Tensor | None]:
        ctx: Any = node.saved or (node.attrs or {})["context"]
        several = type(node.layout) is tuple
        layouts: Any = node.layout if several else (node.layout,)
        gs = g if several else [g]
        if ctx._materialize:
            gs = [full_like_layout(x, 0) if t is None and i not in ctx._no_tensors else t
                  for i, (t, x) in enumerate(zip(gs, layouts, strict=True))]
        ctx._reading = node
        try:
            results = self.function._derivative()(ctx, *gs)
        finally:
            ctx._reading = None
        return self._checked(results if isinstance(results, tuple) else (results,), node.inputs, needs)

    def _checked(self, results: tuple[Any, ...], edges: Any, needs: list[bool]) -> list[Tensor | None]:
        if len(results) > len(edges) and all(r is None for r in results[len(edges):]):
            results = results[:len(edges)]
        if len(results) != len(edges):
            fail(self.name, "backward must return a gradient (or None) for each input of forward",
                 f"{len(results)} for {len(edges)} inputs")
        for i, (r, edge) in enumerate(zip(results, edges, strict=True)):
            if r is None or edge is None:
                continue
            if not isinstance(r, Tensor):
                raise TypeError(f"[{self.name}] backward must return tensors or None; "
                                f"got {type(r).__name__} at index {i}")
            have, want = r.array.layout.shape, edge.layout.shape
            same = [a == b or b == 1 for a, b in zip(reversed(have), reversed(want), strict=False)]
            if len(have) < len(want) or not all(same):
                fail(self.name,
                     f"backward returned an invalid gradient at index {i}: it must have the shape of the input",
                     [f"gradient {list(have)}", f"input {list(want)}"])
        return [r if need else None for r, need in zip(results, needs, strict=True)]


class Function:
    """Base class. A subclass defines `forward` and `backward` as static methods; a program calls `apply`.

    forward(ctx, *args)     returns a tensor or a tuple. Or: forward(*args), with setup_context(ctx, inputs, output)
    backward(ctx, *grads)   gets the gradients of the outputs, returns a gradient or None for each argument of `forward`

    The module's docstring shows an example. A `Function` has no instances: RuntimeError.
    """

    _op: _FunctionOp

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._op = _FunctionOp(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        raise RuntimeError(f"[{name}] a Function has static methods only; call {name}.apply(...)")

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs, without recording: a tensor, or a tuple of tensors and other values."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> Any:
        """If a subclass defines it, `forward` gets no `ctx`, and this saves what `backward` needs."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any, **kwargs: Any) -> Any:
        """Computes the gradients: one, or None, for each argument of `forward`. `vjp` is another name for it."""
        raise NotImplementedError("You must implement either the backward or vjp method for your custom "
                                  "autograd.Function to use it with backward mode AD.")

    vjp = backward

    @classmethod
    def _derivative(cls) -> Callable[..., Any]:
        """`backward`, or `vjp` if the subclass defines that. RuntimeError if it defines both."""
        if cls.vjp is Function.vjp:
            return cls.backward
        if cls.backward is not Function.backward:
            raise RuntimeError(f"[{cls.__name__}] Implementing both 'backward' and 'vjp' for a custom Function is not "
                               "allowed; remove one of them")
        return cls.vjp

    @classmethod
    def _bound(cls, args: tuple[Any, ...], kwargs: dict[str, Any], head: tuple[Any, ...]) -> tuple[tuple, dict]:
        """All arguments of `forward` behind `head`: those with a position, and those that are keyword-only."""
        try:
            bound = signature(cls.forward).bind(*head, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"[{cls.__name__}] forward: {error}") from None
        bound.apply_defaults()
        for name, value in bound.kwargs.items():
            if isinstance(value, Tensor) and value.requires_grad:
                raise TypeError(f"[{cls.__name__}] a tensor that requires a gradient must have a position in forward; "
                                f"got {name}, which is keyword-only")
        return bound.args[len(head):], bound.kwargs

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs `forward` on the arguments, and records `backward` if one of them is a tensor that requires a gradient.

        An argument given by name counts at its position in `forward`, and has a gradient there as the others have.
        With `setup_context`, `inputs` are all arguments with a position, also those left to their defaults.
        TypeError if a single output is no tensor (or None).
        """
        ctx = FunctionCtx(cls.__name__)
        separate = cls.setup_context is not Function.setup_context
        head = () if separate else (ctx,)
        if kwargs or separate:
            args, kwargs = cls._bound(args, kwargs, head)
        needs = tuple([isinstance(a, Tensor) and a.requires_grad for a in args])
        recording = mode.grad and any(needs)
        ctx.needs_input_grad = needs
        with no_grad():
            result = cls.forward(*head, *args, **kwargs)
            if separate:
                cls.setup_context(ctx, args, result)
        several = isinstance(result, tuple)
        outputs = list(result) if several else [result]
        if not several and result is not None and not isinstance(result, Tensor):
            raise TypeError(f"[{cls.__name__}] forward must return a Tensor or a tuple; "
                            f"got {type(result).__name__} at index 0")
        dirty = {id(t) for t in ctx._dirty}
        if not dirty <= {id(o) for o in outputs}:
            fail(cls.__name__, "every tensor of mark_dirty must be returned by forward", f"{len(dirty)} tensors marked")
        if not recording:
            made = [o if id(o) in dirty else _plain(o, args) for o in outputs]
        else:
            made = cls._record(ctx, args, needs, outputs, several, dirty)
        return tuple(made) if several else made[0]

    @classmethod
    def _record(cls, ctx: FunctionCtx, args: tuple[Any, ...], needs: tuple[bool, ...], outputs: list[Any],
                several: bool, dirty: set[int]) -> list[Any]:
        refused = {id(t) for t in ctx._not_differentiable}
        differentiable = [isinstance(o, Tensor) and is_float(o.dtype) and id(o) not in refused for o in outputs]
        for t in ctx._dirty:
            inplace.check(cls.__name__, t)
        ctx._seal(args, outputs, differentiable)
        ctx._dirty = ()
        if not any(differentiable):
            return [o if id(o) in dirty else _plain(o, args) for o in outputs]
        edges = tuple([edge_of(a) if need else None for a, need in zip(args, needs, strict=True)])
        wanted: Any = [need if isinstance(a, Tensor) else None for a, need in zip(args, needs, strict=True)]
        none = outputs[differentiable.index(True)].layout       # any layout: for outputs that are no tensors
        layouts: Any = tuple([o.layout if isinstance(o, Tensor) else none for o in outputs])
        saved, attrs = (ctx, None) if ctx._saved else ((), {"context": ctx})
        node = recorded(cls._op, edges, layouts if several else layouts[0], saved, attrs=attrs, needs=wanted)
        made: dict[int, Any] = {}               # a tensor that forward returns twice comes out as one
        for i, (o, d) in enumerate(zip(outputs, differentiable, strict=True)):
            edge: Any = Slot(node, i, o.layout) if several and d else node
            if id(o) not in made:
                if id(o) in dirty:
                    inplace.rebind(o, edge)
                made[id(o)] = o if id(o) in dirty else _result(o, edge, args) if d else _plain(o, args)
        return [made[id(o)] for o in outputs]


wholes.add(id(Function.apply.__func__.__code__))        # type: ignore[attr-defined]


def _result(output: Tensor, edge: Any, args: tuple[Any, ...]) -> Tensor:
    """An output in the graph."""
    return _closed(new_tensor(output.array, edge), args)


def _plain(value: Any, args: tuple[Any, ...]) -> Any:
    """An output outside of the graph. If `forward` returned an argument, this is a tensor with the argument's array."""
    if not isinstance(value, Tensor):
        return value
    return _closed(new_tensor(value.array, None) if any(value is a for a in args) else value, args)


def _closed(output: Tensor, args: tuple[Any, ...]) -> Tensor:
    """The output. In the memory of an argument, it must not be changed in place where recording is on."""
    if mode.grad and any(isinstance(a, Tensor) and a.array.block is output.array.block for a in args):
        output.source = inplace.CUSTOM
    return output


class _Once:
    """The op of gradients that were computed without recording."""

    name = "once_differentiable"

    def backward(self, node: Node, g: Any, needs: list[bool]) -> Any:
        fail(node.saved, "its backward is marked once_differentiable, and is being differentiated", "",
             "write it in Tensor ops and remove the mark")


_ONCE = _Once()


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a `backward` that cannot be differentiated again, for example because it uses NumPy.

    It then runs without recording, and differentiating its results raises RuntimeError.

        @staticmethod
        @once_differentiable
        def backward(ctx, g): ...
    """
    @wraps(fn)
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        with no_grad():
            results = fn(ctx, *grads)
        edges = [edge_of(t) for t in (*grads, *ctx.saved_tensors) if isinstance(t, Tensor) and t.requires_grad]
        if not mode.grad or not edges:
            return results
        several = isinstance(results, tuple)

        def guarded(r: Any) -> Any:
            if not isinstance(r, Tensor):
                return r
            layout: Layout = r.layout
            return new_tensor(r.array, recorded(_ONCE, tuple(edges), layout, ctx._name))
        return tuple([guarded(r) for r in results]) if several else guarded(results)
    return backward
