"""`torch.autograd.graph`: nodes, hooks on what they save, and hooks on several gradients at once."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock, local
from typing import Any
from weakref import ref

from ..core.complete import LeafCounts, asking, running
from ..core.graph_node import GradientEdge, shown
from ..core.graph_node import GraphNode as Node
from ..core.half import is_constant
from ..core.hooks import RemovableHandle, hooks
from ..core.saved import pack
from ..core.shape import fail, left_out
from ..core.tape import Node as TapeNode
from ..core.tape import edge_of, observers
from ..core.tensor import Tensor, bump

__all__ = ["GradientEdge", "Node", "allow_mutation_on_saved_tensors", "disable_saved_tensors_hooks",
           "get_gradient_edge", "increment_version", "register_multi_grad_hook", "save_on_cpu", "saved_tensors_hooks"]


# ---- hooks on saved tensors ------------------------------------------------------------------------------------------

class _Hooks(local):
    """The hooks of this thread."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Callable, Callable] | None] = []     # (pack, unpack), the innermost last; None: no hooks
        self.disabled: str | None = None                            # what is raised where they are not allowed


_hooks = _Hooks()
_lock = Lock()
_open = 0                       # how many blocks are open, in all threads


def _observe(node: TapeNode) -> None:
    """Packs what a new node keeps, with the innermost hooks of this thread."""
    if _hooks.pairs and _hooks.pairs[-1] is not None:
        pack(node, *_hooks.pairs[-1], is_constant)


@contextmanager
def _pushed(pair: tuple[Callable, Callable] | None) -> Iterator[None]:
    global _open
    with _lock:
        if not _open:
            observers.append(_observe)
        _open += 1
    _hooks.pairs.append(pair)
    try:
        yield
    finally:
        _hooks.pairs.pop()
        with _lock:
            _open -= 1
            if not _open:
                observers.remove(_observe)


class saved_tensors_hooks:
    """In the block, ops keep `pack_hook(tensor)` for their backward, and `unpack_hook` makes the tensor from it again.

    pack_hook    called with each tensor that an op saves, when the op is recorded. It may return anything. It runs
                 without recording, and must not change the tensor. RuntimeError otherwise
    unpack_hook  called with that, when the tensor is needed. It must return a tensor of the same shape, dtype and
                 device: RuntimeError otherwise, TypeError for anything but a tensor

    TypeError where the block begins, if one of them cannot be called.

    Of nested blocks the innermost counts. An op with kernels saves its inputs and what they computed besides: all go
    through the hooks. Numbers do not, and neither does what a checkpointed block saves. Backward may run outside of
    the block. If what was packed refers to the memory of the tensor, and this was changed in place meanwhile, backward
    raises as it does without hooks.

    >>> with saved_tensors_hooks(lambda t: t.numpy(force=True).copy(), minigrad.from_numpy):
    ...     y = model(x)
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self._blocks: list[Any] = []

    def __enter__(self) -> None:
        if _hooks.disabled is not None:
            raise RuntimeError(_hooks.disabled)
        for name, hook in (("pack_hook", self.pack_hook), ("unpack_hook", self.unpack_hook)):
            if not callable(hook):
                fail("saved_tensors_hooks", f"{name} must be a function of one argument", type(hook).__name__,
                     "pass lambda x: x to keep things as they are", TypeError)
        block = _pushed((self.pack_hook, self.unpack_hook))
        block.__enter__()
        self._blocks.append(block)

    def __exit__(self, *_: object) -> None:
        self._blocks.pop().__exit__(None, None, None)


class save_on_cpu(saved_tensors_hooks):
    """In the block, what ops save for backward is moved to the CPU, and back when it is needed.

    pin_memory   has no effect on what is on the CPU; NotImplementedError in the block for a tensor of another device
    device_type  accepted for PyTorch's signature, without effect: a tensor goes back to the device that it came from

    >>> with save_on_cpu():
    ...     loss = model(x.cuda()).sum()
    >>> loss.backward()
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        def pack(t: Tensor) -> tuple[Any, Tensor]:
            if pin_memory and t.device.type != "cpu":
                left_out("save_on_cpu", "pin_memory", pin_memory)
            return t.device, t.cpu()
        super().__init__(pack, lambda packed: packed[1].to(packed[0]))


class allow_mutation_on_saved_tensors(saved_tensors_hooks):
    """In the block, what ops save for backward may be changed in place: they keep copies.

    >>> with allow_mutation_on_saved_tensors():
    ...     x = minigrad.ones(2, requires_grad=True).clone()
    ...     y = (x ** 2).sum()
    ...     x.sin_()
    >>> y.backward()
    """

    def __init__(self) -> None:
        super().__init__(lambda t: t.clone(), lambda packed: packed)


def increment_version(tensor: Tensor | Iterable[Tensor]) -> None:
    """Counts a change in place that was made past minigrad: a backward pass that needs the old values then raises."""
    for t in (tensor,) if isinstance(tensor, Tensor) else tensor:
        bump(t)


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """In the block (or a function that it decorates), `saved_tensors_hooks` raises RuntimeError(error_message). So does
    this block itself, inside of one with such hooks.

    >>> with disable_saved_tensors_hooks("hooks are not allowed here"):
    ...     step()
    """
    if any(pair is not None for pair in _hooks.pairs):
        raise RuntimeError(error_message)
    before, _hooks.disabled = _hooks.disabled, error_message
    try:
        yield
    finally:
        _hooks.disabled = before


def no_saved_tensors_hooks() -> Any:
    """In the block, the hooks around it are not called: for nodes that are dropped again (`utils.checkpoint`)."""
    return _pushed(None)


# ---- edges -----------------------------------------------------------------------------------------------------------

def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """Where a tensor is in the graph: its `grad_fn`, or the `AccumulateGrad` of a leaf, and the number of its output.

    RuntimeError for a tensor that does not require gradients.

    >>> edge = get_gradient_edge(h)
    >>> g, = autograd.grad(loss, edge)          # h may be deleted meanwhile
    """
    if not tensor.requires_grad:
        fail("get_gradient_edge", "the tensor does not require a gradient", tensor.layout)
    edge = edge_of(tensor)
    return GradientEdge(*shown(edge), edge)


# ---- hooks on several gradients --------------------------------------------------------------------------------------

class _Together:
    """The hooks of `register_multi_grad_hook` on several tensors."""

    def __init__(self, tensors: Sequence[Tensor], function: Callable[[Any], Any], every: bool) -> None:
        self.function, self.every = function, every
        edges = [edge_of(t) for t in tensors]
        self.edges = [ref(edge) for edge in edges]              # no cycle: the edges hold their hooks
        self.handles = [hooks.add(edge, partial(self.came, i)) for i, edge in enumerate(edges)]
        asking.add(self)

    def came(self, i: int, g: Tensor) -> None:
        """The gradient of tensor number i has come, in the walk that runs."""
        walk: LeafCounts | None = running()
        if walk is None:
            return
        if self not in walk.collected:
            expected = sum([edge() in walk.reaches for edge in self.edges])
            walk.collected[self] = [expected if self.every else 1, [None] * len(self.edges)]
        so_far = walk.collected[self]
        so_far[0] -= 1
        so_far[1][i] = g
        if not so_far[0]:
            self.function(so_far[1] if self.every else g)


class _Handles(RemovableHandle):
    """Removes several hooks at once."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        super().__init__({})
        self.handles = handles

    def remove(self) -> None:
        """Removes the hooks; a second time does nothing."""
        for handle in self.handles:
            handle.remove()


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[[Any], None], *,
                             mode: str = "all") -> RemovableHandle:
    """Calls `fn` once in each backward pass, when the gradients of the tensors are known.

    mode "all": `fn(gradients)`, a list with one for each tensor, when the last has come; None for a tensor that this
    pass does not reach. mode "any": `fn(gradient)`, with the first that comes. ValueError for another mode.
    RuntimeError for a tensor that does not require gradients.

    >>> handle = register_multi_grad_hook([a, b], lambda gs: print([g.norm() for g in gs]))
    """
    if mode not in ("all", "any"):
        raise ValueError(f"[register_multi_grad_hook] mode must be 'all' or 'any'; got {mode!r}")
    for t in tensors:
        if not t.requires_grad:
            fail("register_multi_grad_hook", "a tensor does not require a gradient", t.layout)
    return _Handles(_Together(tensors, fn, mode == "all").handles)
