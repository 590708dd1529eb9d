"""`torch.__version__`: a string that is compared as a version, "2.13.0" > "2.2" and > (2, 2)."""
from __future__ import annotations

import operator
import re
from typing import Any

__all__ = ["TorchVersion"]


def _key(version: Any) -> Any:
    """The numbers without zeros at the end, and what follows them: before the release (2.0a0) or after it (2.0+cpu)."""
    text = version if isinstance(version, str) else ".".join(map(str, version))
    found = re.fullmatch(r"\s*v?(\d+(?:\.\d+)*)(.*?)\s*", text)
    if found is None:
        return None
    numbers = [int(n) for n in found[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    rest = found[2].lstrip(".-_")
    return numbers, (-1 if rest[:1] in ("a", "b", "c", "d", "r") else 1) if rest else 0, rest


def _compared(name: str) -> Any:
    of_text, of_keys = getattr(str, f"__{name}__"), getattr(operator, name)

    def compare(self: str, other: Any) -> Any:
        a, b = _key(self), _key(other) if isinstance(other, str | tuple | list) else None
        return of_text(self, other) if a is None or b is None else of_keys(a, b)
    return compare


class TorchVersion(str):
    """A version as a string; it is compared with other strings, and with tuples of numbers, as a version."""

    __slots__ = ()
    __hash__ = str.__hash__
    __lt__, __le__, __gt__, __ge__, __eq__, __ne__ = map(_compared, ("lt", "le", "gt", "ge", "eq", "ne"))
