"""Finds the owner of an address, so that a capture can keep alive the memory that a recorded launch points to."""
from __future__ import annotations

import weakref
from threading import RLock


class _Region(weakref.ref):
    """A piece of memory, referred to weakly through the object that owns it."""

    __slots__ = ("ptr", "nbytes")
    ptr: int
    nbytes: int
    __hash__ = object.__hash__
    __eq__ = object.__eq__


# By (k, first address >> k), where k is the bit length of the size: a region is shorter than 1 << k bytes, so it has
# addresses of its own key and of the next one only. Finding an owner costs the same however many regions there are.
_regions: dict[tuple[int, int], set[_Region]] = {}
_lengths: list[int] = []            # the values of k, largest first
_lock = RLock()                     # re-entrant: the collector may delete an owner while a region is registered
_sweep_at = 4096                    # with so many keys, those without regions are removed


def register(root: object, ptr: int, nbytes: int) -> None:
    """Makes `root` findable as the owner of `nbytes` bytes from the address `ptr` on, until it is deleted."""
    global _sweep_at
    nbytes = max(nbytes, 1)
    k = nbytes.bit_length()
    with _lock:
        if k not in _lengths:
            _lengths[:] = sorted([*_lengths, k], reverse=True)
        beside = _regions.setdefault((k, ptr >> k), set())      # several owners may register one address
        region = _Region(root, beside.discard)  # not a Python function: Ctrl-C is lost where one ends a reference
        region.ptr, region.nbytes = ptr, nbytes
        beside.add(region)
        if len(_regions) > _sweep_at:
            for key in [key for key, regions in list(_regions.items()) if not regions]:
                del _regions[key]
            _sweep_at = 2 * len(_regions) + 4096


def find(address: int) -> _Region | None:
    """The largest region that an address is in, or None. Calling it gives the owner, or None if that was deleted."""
    for k in _lengths:
        place = address >> k
        for key in ((k, place), (k, place - 1)):
            found = _regions.get(key)
            if found:
                for region in list(found):
                    if region.ptr <= address < region.ptr + region.nbytes and region() is not None:
                        return region
    return None
