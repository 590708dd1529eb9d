"""`study.graph`: the graph of a loss as text and as a picture."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .reading import read
from .structure import Structure


class Graph(Structure):
    """The graph of a loss: the data of a `Structure`, as text and as a picture."""


def graph(what: Any, /, *args: Any, open: str | Iterable[str] = (), **kwargs: Any) -> Graph:
    """The graph that `backward` of a tensor would walk; or of what `what(*args, **kwargs)` returns.

    open    composites that are shown as their definition, and checkpointed blocks as what they compute: names of ops
            ("layer_norm", "checkpoint"), or "all". Their definition runs once more for this.
    """
    names = {open} if isinstance(open, str) else set(open)
    found = Graph()
    read(found, what, args, kwargs, lambda name: "all" in names or name in names)
    return found
