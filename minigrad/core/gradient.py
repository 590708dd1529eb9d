"""What a user sees of a tensor's place in the graph and of its gradient: `.grad` and `requires_grad` check what is
assigned; and hooks."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import inplace
from .engine import keep_grad
from .graph_node import shown
from .hooks import RemovableHandle, fitting, hooks, post_hooks
from .modes import mode
from .shape import fail
from .tape import Variable, edge_of
from .warning import warn


class Gradients(Variable):
    """The part of `Tensor` that is about the graph and its gradient."""

    __slots__ = ()

    @property
    def grad_fn(self) -> Any:
        """The node of the op that made this tensor, None for a leaf."""
        return shown(self.node)[0]

    @property
    def output_nr(self) -> int:
        """Which output of its `grad_fn` it is."""
        return shown(self.node)[1]

    @property
    def _base(self) -> Any:
        """The tensor that this is a view of, or None."""
        return inplace.base_of(self)

    def _is_view(self) -> bool:
        """Is it a view of another tensor?"""
        return self._base is not None

    @property
    def is_leaf(self) -> bool:
        """Was it made by no recorded op? `backward` adds to `.grad` of leaves that require gradients."""
        return self.node is None

    @property
    def requires_grad(self) -> bool:
        """Are gradients of this tensor computed? Assigning checks as `requires_grad_` does, and takes leaves only."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not isinstance(wanted, bool):
            fail("requires_grad", "must be a bool", repr(wanted))       # PyTorch raises RuntimeError here
        if self.node is not None:
            fail("requires_grad", "it can only be changed on a leaf", self.array.layout,
                 "use detach() for a tensor outside the graph")
        t: Any = self
        t.requires_grad_(wanted)

    @property
    def grad(self) -> Any:
        """What `backward` added up, or None. Assign None, or a tensor of this shape, dtype and device; `del` sets None.

        Warns if it is None because this tensor is no leaf, and `retain_grad()` was not called.
        """
        if mode.recorder is not None:
            mode.recorder.reads_grad(self)
        if self._grad is None and self.node is not None and not self.retains_grad:
            warn("[grad] the .grad attribute of a Tensor that is not a leaf is being accessed: backward() "
                 "fills it only if retain_grad() was called on this tensor")
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is self:
            fail("grad", "a tensor cannot be its own gradient", self.array.layout)
        if mode.recorder is not None:
            mode.recorder.writes_grad(self)
        self._grad = None if value is None else fitting("grad", "an assigned gradient", value, self.array.layout)

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    @property
    def retains_grad(self) -> bool:
        """Was `retain_grad()` called on this tensor, which is no leaf?"""
        return self.node is not None and hooks.retains(self.node)

    def register_hook(self, hook: Callable[[Any], Any | None]) -> RemovableHandle:
        """Calls `hook(grad)` when this tensor's gradient is known. What the hook returns (if not None) replaces it."""
        if not self.requires_grad:
            fail("register_hook", "the tensor does not require a gradient", self.array.layout)
        return hooks.add(edge_of(self), hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Any], None]) -> RemovableHandle:
        """Calls `hook(self)` after a gradient was added to this leaf's `.grad`."""
        if self.node is not None or not self.requires_grad:
            fail("register_post_accumulate_grad_hook", "needs a leaf that requires gradients", self.array.layout)
        return post_hooks.add(self, hook)

    def retain_grad(self) -> None:
        """Lets `backward` set `.grad` of this tensor too, though it is not a leaf."""
        if not self.requires_grad:
            fail("retain_grad", "the tensor does not require a gradient", self.array.layout)
        if self.node is not None:
            keep_grad(self)
