"""In the place of tiktoken, which downloads its words: each byte is a token."""
from __future__ import annotations

from typing import Any


class Encoding:
    n_vocab, eot_token, name = 50257, 50256, "bytes"

    def encode(self, text: str, **named: Any) -> list[int]:
        return list(text.encode())

    encode_ordinary = encode

    def decode(self, tokens: list[int]) -> str:
        return bytes(t % 256 for t in tokens).decode(errors="replace")


def get_encoding(name: str) -> Encoding:
    return Encoding()
