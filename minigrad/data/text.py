"""A text to train on, from CPython's library, and a tokenizer that makes numbers of characters."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..ops.creation import as_tensor


def python_docs_text() -> str:
    """The chapters of the Python language reference that `help()` shows, in the order of their names.

    About 450,000 characters of English, from the module `pydoc_data.topics` of the running Python; other versions have
    other texts. ImportError if this Python was installed without the module.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ImportError("data.python_docs_text() reads pydoc_data.topics, a part of CPython's standard library that "
                          "this Python was installed without; read another text from a file instead") from error
    return "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"


class CharTokenizer:
    """Characters as numbers: each character in `text` gets a number, in the order of the code points.

        tokenizer = CharTokenizer(text)
        ids = tokenizer.encode(text)            # int64 (len(text),)
        tokenizer.decode(ids) == text
        minigrad.save({"tokenizer": tokenizer.state_dict(), "model": model.state_dict()}, path)

    `unknown`, if given, is a character that replaces every character that is not in `text`; it has a number too.
    Without it, `encode` raises ValueError for such a character. `len(tokenizer)` is the number of characters,
    `tokenizer.chars` the string of them.
    """

    def __init__(self, text: str = "", *, unknown: str | None = None) -> None:
        if unknown is not None and len(unknown) != 1:
            raise ValueError(f"[CharTokenizer] unknown must be one character; got {unknown!r}")
        self.unknown = unknown
        self.fit(text)

    def fit(self, text: str | Iterable[str]) -> CharTokenizer:
        """Gives numbers to the characters of `text` (a string, or several), and forgets the earlier ones."""
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
        known = np.zeros(len(points), bool)
        if len(self):
            known = self._points[np.minimum(ids, len(self) - 1)] == points
        if not known.all():
            if self.unknown is None:
                at = int(np.argmin(known))
                raise ValueError("[CharTokenizer] encode: every character must occur in the text it was fitted to; got "
                                 f"{text[at]!r} at {at}, which is none of the {len(self)}; "
                                 "fit it to all the text, or give unknown=")
            ids[~known] = self.chars.index(self.unknown)
        return as_tensor(ids.astype(np.int64))

    def decode(self, ids: Any) -> str:
        """The string of these numbers: a tensor, an array or a sequence of one dimension.

        ValueError for other dtypes or shapes, IndexError for a number that no character has.
        """
        given = np.asarray(ids.numpy(force=True) if isinstance(ids, Tensor) else ids)
        if given.ndim > 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError("[CharTokenizer] decode takes whole numbers in one dimension; "
                             f"got {given.dtype} {list(given.shape)}")
        if given.size and not 0 <= given.min() <= given.max() < len(self):
            raise IndexError(f"[CharTokenizer] decode: numbers must be in 0 <= n < {len(self)}; "
                             f"got {given.min()} to {given.max()}")
        return "".join([self.chars[i] for i in given.reshape(-1).tolist()])

    def state_dict(self) -> dict[str, Any]:
        """{"chars": the characters in the order of their numbers, "unknown": a character or None}."""
        return {"chars": self.chars, "unknown": self.unknown}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads the numbers of another tokenizer. ValueError if the characters are not in order."""
        chars = state_dict["chars"]
        if list(chars) != sorted(set(chars)):
            raise ValueError("[CharTokenizer] load_state_dict: chars must be different characters in the order of "
                             f"their code points; got {chars[:40]!r}")
        self.unknown = state_dict["unknown"]
        self._number(chars)

    def __repr__(self) -> str:
        return f"CharTokenizer({len(self)} characters)"
