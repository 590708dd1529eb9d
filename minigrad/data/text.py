"""Text to train on that ships with CPython, and the tokens of a model that reads characters."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.ops.creation import as_tensor

from ..core.tensor import Tensor


def python_docs_text() -> str:
    """The chapters of the Python language reference that `help()` shows (the module ``pydoc_data.topics``): some 450,000 characters
    of English, topic after topic in the order of their names. The text is that of the running Python's version."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ImportError("data.python_docs_text() reads pydoc_data.topics, a part of CPython's standard library that this Python was "
                          "installed without; read another text from a file instead") from error
    return "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"


class CharTokenizer:
    """Characters as numbers: each that occurs in ``text`` gets one, in the order of their code points.

        tokenizer = CharTokenizer(text)
        ids = tokenizer.encode(text)            # int64 (len(text),)
        tokenizer.decode(ids) == text

    ``unknown``, if given, is a character that stands for all that did not occur (and gets a number itself); without it such a
    character raises ValueError. Its state goes into a checkpoint: ``minigrad.save({"tokenizer": tokenizer.state_dict(), ...}, path)``.
    """

    def __init__(self, text: str = "", *, unknown: str | None = None) -> None:
        if unknown is not None and len(unknown) != 1:
            raise ValueError(f"[CharTokenizer] unknown must be one character; got {unknown!r}")
        self.unknown = unknown
        self.fit(text)

    def fit(self, text: str | Iterable[str]) -> CharTokenizer:
        """Numbers the characters of ``text`` (a string, or several) anew."""
        found: set[str] = set() if self.unknown is None else {self.unknown}
        for part in [text] if isinstance(text, str) else text:
            found.update(part)
        self._number("".join(sorted(found)))
        return self

    def _number(self, chars: str) -> None:
        self.chars = chars                                              # the character of each number
        self._points = np.array([ord(c) for c in chars], np.uint32)     # sorted

    def __len__(self) -> int:
        return len(self.chars)

    def encode(self, text: str) -> Tensor:
        """The numbers of the characters: int64 (len(text),)."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = np.searchsorted(self._points, points)
        known = np.zeros(len(points), bool) if not len(self) else self._points[np.minimum(ids, len(self) - 1)] == points
        if not known.all():
            if self.unknown is None:
                at = int(np.argmin(known))
                raise ValueError(f"[CharTokenizer] encode: every character must occur in the text it was fitted to; got {text[at]!r} at "
                                 f"{at}, which is none of the {len(self)}; fit it to all the text, or give unknown=")
            ids[~known] = self.chars.index(self.unknown)
        return as_tensor(ids.astype(np.int64))

    def decode(self, ids: Any) -> str:
        """The characters of the numbers: of a one-dimensional tensor, array or sequence."""
        given = np.asarray(ids.numpy(force=True) if isinstance(ids, Tensor) else ids)
        if given.ndim > 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(f"[CharTokenizer] decode takes whole numbers in one dimension; got {given.dtype} {list(given.shape)}")
        if given.size and not 0 <= given.min() <= given.max() < len(self):
            raise IndexError(f"[CharTokenizer] decode: numbers must be in 0 <= n < {len(self)}; got {given.min()} to {given.max()}")
        return "".join([self.chars[i] for i in given.reshape(-1).tolist()])

    def state_dict(self) -> dict[str, Any]:
        """{"chars", "unknown"}: strings, which ``minigrad.save`` writes."""
        return {"chars": self.chars, "unknown": self.unknown}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The numbering of another tokenizer."""
        chars = state_dict["chars"]
        if list(chars) != sorted(set(chars)):
            raise ValueError("[CharTokenizer] load_state_dict: chars must be different characters in the order of their code points; "
                             f"got {chars[:40]!r}")
        self.unknown = state_dict["unknown"]
        self._number(chars)

    def __repr__(self) -> str:
        return f"CharTokenizer({len(self)} characters)"
