"""The pool of a capture: during a recording, the buffers of its thread come from lists that the program then keeps."""
from __future__ import annotations

from collections import defaultdict
from threading import get_ident
from typing import Any

_active: private_pool | None = None     # the pool of the active recording; it is used while its `on` is True


class Door:
    """Is `Layout.free` during a capture: the recording thread takes blocks of its pool, other threads public ones."""

    __slots__ = ("public",)

    def __init__(self, public: list[Any]) -> None:
        self.public = public

    def pop(self) -> Any:
        """A block that is not in use; IndexError if there is none."""
        pool = recording()
        return (self.public if pool is None else pool.lists[self]).pop()


class private_pool:
    """In its `with` block, the buffers of this thread come from and go back to `lists`, which a captured program keeps.

    Other threads meanwhile use the public lists. `on` is the only switch: once it is False, all threads use the public
    lists, whatever else was not put back (an interrupt may come at any line). There is one such pool at a time.

    layouts  those that have public blocks
    regions  the first addresses of the memory that was taken for the pool
    outside  True while memory is taken that is not the pool's
    """

    def __init__(self, layouts: list[Any]) -> None:
        self.on = self.outside = False
        self.thread = get_ident()
        self.lists: defaultdict[Door, list[Any]] = defaultdict(list)
        self.regions: set[int] = set()
        self.layouts, self.guarded = layouts, []        # type: ignore[var-annotated]

    def __enter__(self) -> private_pool:
        global _active
        self.on, _active = True, self
        for known in self.layouts:
            self.guard(known)
        return self

    def guard(self, layout: Any) -> None:
        """Makes `alloc` ask, for this layout, which thread it is. Where there are no blocks, `memory._fresh` does it.

        A public block that a recording takes nevertheless is not lost: the program keeps its memory.
        """
        self.guarded.append(layout)
        layout.free = layout.door = layout.door or Door(layout.public)

    def __exit__(self, *_: object) -> None:
        global _active
        self.on, _active = False, None
        for known in self.guarded:
            known.free = known.public
        self.guarded = []


def recording() -> private_pool | None:
    """The pool of the active recording, if this thread records."""
    pool = _active
    return pool if pool is not None and pool.on and pool.thread == get_ident() else None
