"""What processes say where their calls do not fit."""
from __future__ import annotations

import os
from collections.abc import Sequence

_TEXT = 300                 # letters of a call's description that are shown


def compare(texts: Sequence[str]) -> None:
    """RuntimeError if the processes' calls (by rank) differ, which names both sides."""
    calls: dict[str, list[int]] = {}
    same = len(os.path.commonprefix(list(texts))) if max(map(len, texts)) > _TEXT else 0
    begin = max(0, same - _TEXT // 3)           # long texts are shown from a little before they differ
    for rank, text in enumerate(texts):
        calls.setdefault("... " * (begin > 0) + text[begin:begin + _TEXT], []).append(rank)
    if len(set(texts)) > 1:
        said = "; ".join([f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}: {text}"
                          for text, ranks in calls.items()])
        raise RuntimeError(f"[distributed] all processes must make the same calls in the same order; got {said}; "
                           "look for a branch that depends on the rank, or for inputs of other shapes")
