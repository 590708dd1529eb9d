"""Checkpointing (Chen et al. 2016): the activations of a block are not kept for backward, but computed again.

    from minigrad.utils.checkpoint import checkpoint
    h = checkpoint(block, x, use_reentrant=False)

The block runs once as usual. This shows the ends of its graph: leaves (parameters), and nodes recorded before the
block. One node from these ends to the outputs then replaces the graph of the block. Backward runs the block again,
and walks the new graph to the same ends. The gradients are those of the plain call, of any order.

The second run draws the same random numbers, so that dropout has the same mask. It does not move running statistics, so
that BatchNorm counts a batch once. Both runs consist of launches, so that a captured step replays them.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter
from typing import Any, TypeAlias

from ..amp import autocast_as_now
from ..autograd.graph import no_saved_tensors_hooks
from ..core import engine
from ..core.arrays import contiguous_copy, copy_array
from ..core.modes import enable_grad, mode
from ..core.place import wholes
from ..core.saved import stale
from ..core.shape import fail
from ..core.tape import Node, Slot, edge_of, recorded
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..devices import opened
from ..devices.memory import Array
from ..ops.random import default_generator

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential", "noop_context_fn"]


class CheckpointError(RuntimeError):
    """A checkpointed block did something else when it ran again in backward."""


Context: TypeAlias = AbstractContextManager[Any]


def noop_context_fn() -> tuple[Context, Context]:
    """The default of `context_fn`: two context managers that do nothing."""
    return nullcontext(), nullcontext()


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _tensors(v)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _replace(value: Any, by: Iterator[Tensor]) -> Any:
    """`value` with each tensor replaced by the next one in `by`."""
    if isinstance(value, Tensor):
        return next(by)
    if isinstance(value, (tuple, list)):
        values = [_replace(v, by) for v in value]
        return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)
    if isinstance(value, dict):
        return {k: _replace(v, by) for k, v in value.items()}
    return value


class _Block:
    """A block with its arguments and the states of the generators: what is needed to run it again."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
                 states: list[tuple[Array, Array]], context: Context, graph: list[Any] | None) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.states = states                            # (the state of a generator, its copy from before the first run)
        self.context, self.autocast = context, autocast_as_now()
        self.graph = graph                              # what the first run recorded; None: no comparison

    def versions(self, ends: Iterable[Any]) -> int:
        """The sum of the version counters of arguments and leaves: it grows when one is changed in place."""
        leaves = [e for e in ends if isinstance(e, Tensor)]
        return sum([t.array.version for t in (*_tensors((self.args, self.kwargs)), *leaves)])

    def named(self, contents: None = None) -> list[tuple[str, Any]]:
        """The arguments that are tensors, with names; see `core/saved.py`."""
        return [(f"argument {i}", t) for i, t in enumerate(_tensors((self.args, self.kwargs)))]

    def run_again(self) -> list[Tensor]:
        """The outputs of a second run. CheckpointError if it recorded something else than the first."""
        start = recorded(_CHECKPOINT, (), ()).seq
        with _drawn_from(self.states), self.context, self.autocast, enable_grad(), no_saved_tensors_hooks():
            before, mode.recompute = mode.recompute, True
            try:
                outputs = list(_tensors(self.function(*self.args, **self.kwargs)))
            finally:
                mode.recompute = before
        if self.graph is not None:
            _compare(self.graph, _graph(outputs, start)[1])
        return outputs


@contextmanager
def _drawn_from(states: list[tuple[Array, Array]]) -> Iterator[None]:
    """Sets the generators to the given states, and afterwards back to the states they had before."""
    now = [(state, contiguous_copy(state)) for state, _ in states]
    for state, then in states:
        copy_array(state, then)
    try:
        yield
    finally:
        for state, before in now:
            copy_array(state, before)


class _Checkpoint:
    """The op in the node of a checkpointed block; `node.saved` is the block."""

    name = "checkpoint"

    def backward(self, node: Node, gs: list[Tensor | None], needs: list[bool]) -> list[Tensor | None]:
        block: _Block = node.saved
        if block.versions(node.inputs) != node.version:
            stale("checkpoint", node)
        outputs = block.run_again()
        pairs = [(edge_of(o), g) for o, g in zip(outputs, gs, strict=False) if g is not None and o.requires_grad]
        del outputs                                     # so that the walk can free each node after its use
        ends = [e for e, need in zip(node.inputs, needs, strict=True) if need]
        found = engine.walk([p[0] for p in pairs], [p[1] for p in pairs], mode.grad, mode.grad, ends, bounded=True)
        return [found.get(e) if need else None for e, need in zip(node.inputs, needs, strict=True)]


_CHECKPOINT = _Checkpoint()


def _graph(outputs: list[Tensor], start: int) -> tuple[tuple[Any, ...], list[tuple]]:
    """The ends of the outputs' graph: leaves, and nodes that were recorded before the node number `start`. And what
    was recorded since: the layouts of the outputs, then op, layout and layouts of saved tensors of each node.
    """
    found: dict[Any, None] = {}
    nodes: list[Node] = []
    stack = [edge_of(o) for o in outputs if o.requires_grad]
    seen: set[Any] = set()
    while stack:
        edge = stack.pop()
        if edge is None or edge in seen:
            continue
        seen.add(edge)
        if isinstance(edge, (Node, Slot)) and edge.seq < start:         # sequence numbers count down
            stack.extend(edge.inputs)
            if isinstance(edge, Node):
                nodes.append(edge)
        else:
            found[edge] = None
    nodes.sort(key=attrgetter("seq"), reverse=True)
    return tuple(found), [*[("output", o.array.layout, ()) for o in outputs],
                          *[(n.op.name, n.layout, _saved_by(n)) for n in nodes]]


def _saved_by(node: Node) -> list[Any]:
    """The layouts of the tensors that a node saved."""
    saved = node.saved if type(node.saved) is tuple else ()
    if len(saved) > 1 and type(saved[1]) is tuple:          # of an op with kernels: a plan, the inputs, arrays
        saved = saved[1]
    return [t.array.layout for t in saved if isinstance(t, Tensor)]


def _form(layout: Any) -> str:
    """Dtype and shape, of each output."""
    several = type(layout) is tuple
    return f"({', '.join(map(_form, layout))})" if several else f"{layout.dtype.name}{list(layout.shape)}"


def _compare(first: list[tuple], second: list[tuple]) -> None:
    """CheckpointError if the two runs of a block recorded something else."""
    if first == second:                                     # layouts are one object each, so that this is fast
        return
    shown = [[" ".join([name, _form(layout), *[f"that saves {_form(x)}" for x in saved]])
              for name, layout, saved in run] for run in (first, second)]
    i = next((i for i, (a, b) in enumerate(zip(*shown, strict=False)) if a != b), min(len(first), len(second)))
    was, now = [run[i] if i < len(run) else "nothing more" for run in shown]
    if was != now:
        fail("checkpoint", "the block must give the same outputs by the same ops when it runs again in backward",
             f"first {was}, then {now} (number {i})",
             "make it a function of its arguments and parameters, and do not change train/eval mode between "
             "forward and backward", CheckpointError)


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               context_fn: Callable[[], tuple[Context, Context]] = noop_context_fn, determinism_check: str = "default",
               debug: bool = False, early_stop: bool = True, preserve_rng_state: bool = True, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, with activations that backward computes again instead of keeping them.

    function            a callable that does the same when it runs twice. Outputs may be nested in tuples, lists and
                        dicts
    context_fn          returns two context managers, for the first and the second run
    determinism_check   "default": CheckpointError if the second run gives outputs of other shapes or dtypes, or records
                        other ops or saves other tensors on the way; "none": no check
    preserve_rng_state  the second run draws the same random numbers from the default generators
    debug               must stay False: NotImplementedError
    use_reentrant, early_stop   accepted for PyTorch's signature, without effect: they choose between implementations,
                        and there is one here, which works with `.backward()` and with `autograd.grad`. PyTorch asks
                        for an explicit `use_reentrant`; without one, this warns, so that programs run on both

    Backward raises RuntimeError if an argument or a parameter was changed in place meanwhile.
    """
    if debug:
        raise NotImplementedError("[checkpoint] debug=True is not supported; "
                                  "autograd.detect_anomaly() names ops and lines")
    if determinism_check not in ("default", "none"):
        raise ValueError(f"[checkpoint] determinism_check must be 'default' or 'none'; got {determinism_check!r}")
    if use_reentrant and context_fn is not noop_context_fn:
        raise ValueError("[checkpoint] context_fn is for use_reentrant=False; got use_reentrant=True; "
                         "leave one of them out")
    if use_reentrant is None:
        _warn("checkpoint")
    first, second = context_fn()
    if not mode.grad:
        with first:
            return function(*args, **kwargs)
    states = []
    if preserve_rng_state:
        now = [default_generator(d).state for d in opened()]
        states = [(state, contiguous_copy(state)) for state in now]
    start = recorded(_CHECKPOINT, (), ()).seq
    with first, no_saved_tensors_hooks():
        result = function(*args, **kwargs)
    outputs = list(_tensors(result))
    ends, graph = _graph(outputs, start)
    if not ends:
        return result
    block = _Block(function, args, kwargs, states, second, graph if determinism_check == "default" else None)
    node = recorded(_CHECKPOINT, ends, tuple([o.array.layout for o in outputs]), block, block.versions(ends))
    by = [new_tensor(o.array, Slot(node, i, o.array.layout) if o.requires_grad else None)
          for i, o in enumerate(outputs)]
    return _replace(result, iter(by))


wholes.add(id(checkpoint.__code__))


def _warn(name: str) -> None:
    warn(f"[{name}] the use_reentrant parameter should be passed explicitly: PyTorch has two implementations, "
         "and recommends use_reentrant=False")


def checkpoint_sequential(functions: Any, segments: int, input: Any, use_reentrant: bool | None = None,
                          **kwargs: Any) -> Any:
    """Runs the modules of a `Sequential`, or a list of callables, in `segments` parts, each but the last checkpointed.

    `use_reentrant` and `preserve_rng_state` are as in `checkpoint`. ValueError unless 1 <= segments <= number of
    modules.

        y = checkpoint_sequential(model, 4, x)
    """
    if use_reentrant is None:
        _warn("checkpoint_sequential")
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("[checkpoint_sequential] takes no keywords but preserve_rng_state and use_reentrant; "
                         f"got {', '.join(kwargs)}")
    layers = list(functions.children()) if hasattr(functions, "children") else list(functions)
    if not 1 <= segments <= max(len(layers), 1):
        raise ValueError("[checkpoint_sequential] segments must be from 1 to the number of functions "
                         f"({len(layers)}); got {segments}")

    def part(begin: int, end: int) -> Callable[[Any], Any]:
        def run(value: Any) -> Any:
            for layer in layers[begin:end]:
                value = layer(value)
            return value
        return run

    size = len(layers) // segments
    for i in range(segments - 1):
        input = checkpoint(part(i * size, (i + 1) * size), input, use_reentrant=bool(use_reentrant),
                           preserve_rng_state=preserve)
    return part((segments - 1) * size, len(layers))(input)
