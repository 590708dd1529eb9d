"""Finds the owner of an address, so that a capture can keep alive the memory that a recorded launch points to."""
from __future__ import annotations

import weakref
from bisect import bisect_right
from functools import partial
from itertools import count
from typing import Any


class _Region(weakref.ref):
    """A piece of memory, referred to weakly through the object that owns it."""

    __slots__ = ("ptr", "nbytes")
    ptr: int
    nbytes: int


_regions: dict[int, _Region] = {}   # by number: several owners may register one address
_numbers = count()
_maps: list[Map] = []               # the maps in use: `register` tells them of new regions


def register(root: Any, ptr: int, nbytes: int) -> None:
    """Makes `root` findable as the owner of `nbytes` bytes from the address `ptr` on, until it is deleted."""
    number = next(_numbers)
    # forgotten by `_regions.pop(number, reference)`, without bytecode: Ctrl-C cannot arrive inside, where it is ignored
    region = _Region(root, partial(_regions.pop, number))
    region.ptr, region.nbytes = ptr, nbytes
    _regions[number] = region
    for known in _maps:
        known.added.append(region)


def _place(region: Any) -> tuple[int, int]:
    return region.ptr, region.nbytes


class Map:
    """Finds the owner of an address among all registered regions, also those registered in its `with` block.

    It refers to owners weakly: a buffer that is deleted meanwhile still goes back to its pool.
    """

    def __init__(self) -> None:
        self.added: list[_Region] = []

    def __enter__(self) -> Map:
        self.regions = sorted(_regions.values(), key=_place)
        self.places = [_place(r) for r in self.regions]
        _maps.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _maps.remove(self)

    def find(self, address: int) -> tuple[int, Any] | None:
        """(first address, owner) of the region that an address is in, or None.

        If several regions around it begin at the same address, it is the largest.
        """
        while self.added:
            region = self.added.pop()
            i = bisect_right(self.places, _place(region))
            self.places.insert(i, _place(region))
            self.regions.insert(i, region)
        for i in range(bisect_right(self.places, (address, 1 << 63)) - 1, -1, -1):
            region = self.regions[i]
            if address < region.ptr + max(region.nbytes, 1):
                owner = region()
                if owner is not None:
                    return region.ptr, owner
        return None
