"""The pool of a capture: during a recording, the buffers of its thread come from pools that the program then keeps."""
from __future__ import annotations

from threading import get_ident
from typing import Any

from .native import Pool, lib

_active: private_pool | None = None     # the pool of the active recording; it is used while its `on` is True


class Door:
    """Is `Layout.free` during a capture: the recording thread takes blocks of its pool, other threads public ones."""

    __slots__ = ("public",)

    def __init__(self, public: Any) -> None:
        self.public = public

    def pop(self) -> Any:
        """A block that is not in use; IndexError if there is none."""
        pool = recording()
        return (self.public if pool is None else pool.instead_of(self.public)).pop()


class private_pool:
    """In its `with` block, the buffers of this thread come from and go back to `pools`, which a captured program keeps.

    Other threads meanwhile use the public pools. `on` is the only switch: once it is False, all threads use the public
    pools, whatever else was not put back (an interrupt may come at any line). There is one such object at a
    time.

    pools    by the public pool of blocks of that size
    layouts  those that there are when it is made; `guard` adds those that are made later
    regions  the first addresses of the memory that was taken for the pool
    freed    the addresses of blocks that went back to `pools`, in order; `capture.py` takes them out
    outside  True while memory is taken that is not the pool's
    """

    def __init__(self, layouts: list[Any]) -> None:
        self.on = self.outside = False
        self.thread = get_ident()
        self.pools: dict[Any, Any] = {}
        self.regions: set[int] = set()
        self.freed: list[int] = []
        self.layouts, self.guarded = layouts, []        # type: ignore[var-annotated]

    def __enter__(self) -> private_pool:
        global _active
        lib.mg_watch(lib.MG_RECORDING, True)
        self.on, _active = True, self
        for known in self.layouts:
            self.guard(known)
        return self

    def guard(self, layout: Any) -> None:
        """Makes `alloc` ask, for this layout, which thread it is.

        Layouts without public blocks too: one may be freed while the step is recorded, and a result would lie in it.
        """
        self.guarded.append(layout)
        layout.free = Door(layout.public)

    def instead_of(self, public: Any) -> Any:
        """The pool of the program for blocks of the size of a public one."""
        found = self.pools.get(public)
        return found if found is not None else self.pools.setdefault(public, Pool(public.nbytes, False, self.freed))

    def __exit__(self, *_: object) -> None:
        global _active
        self.on, _active = False, None
        lib.mg_watch(lib.MG_RECORDING, False)
        for known in self.guarded:
            known.free = known.public
        self.guarded = []


def active() -> private_pool | None:
    """The pool of the active recording, whichever thread records."""
    pool = _active
    return pool if pool is not None and pool.on else None


def recording() -> private_pool | None:
    """The pool of the active recording, if this thread records."""
    pool = active()
    return pool if pool is not None and pool.thread == get_ident() else None
