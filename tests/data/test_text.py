"""Text: the bundled corpus and the tokenizer of characters."""
from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad.data.text import CharTokenizer, python_docs_text


def test_python_docs_text():
    text = python_docs_text()
    assert len(text) > 300_000 and "assert" in text and text == python_docs_text()
    with mock.patch.dict("sys.modules", {"pydoc_data.topics": None}), pytest.raises(ImportError, match="pydoc_data.topics"):
        python_docs_text()


@given(st.text(), st.text())
def test_characters(text, other):
    tokenizer = CharTokenizer(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == mg.int64 and ids.shape == (len(text),) and tokenizer.decode(ids) == text
    assert len(tokenizer) == len(set(text)) and list(tokenizer.chars) == sorted(set(text))
    if set(other) <= set(text):
        assert tokenizer.decode(tokenizer.encode(other).tolist()) == other
    else:
        with pytest.raises(ValueError, match="every character must occur"):
            tokenizer.encode(other)
    lenient = CharTokenizer(text, unknown="?")
    assert lenient.decode(lenient.encode(other)) == "".join(c if c in text else "?" for c in other)


def test_tokenizer_state(tmp_path):
    tokenizer = CharTokenizer("hello ½ \ud800", unknown="☐")
    mg.save({"tokenizer": tokenizer.state_dict()}, tmp_path / "t.safetensors")
    other = CharTokenizer()
    other.load_state_dict(mg.load(tmp_path / "t.safetensors")["tokenizer"])
    assert other.chars == tokenizer.chars and other.decode(other.encode("hellö")) == "hell☐"
    assert CharTokenizer().fit(["ab", "ca"]).chars == "abc"
    with pytest.raises(ValueError, match="different characters in the order"):
        other.load_state_dict({"chars": "ba", "unknown": None})
    with pytest.raises(IndexError, match="0 <= n < 3; got 0 to 3"):
        CharTokenizer("abc").decode([0, 3])
    with pytest.raises(IndexError, match="got -1 to 0"):
        CharTokenizer("abc").decode([0, -1])
    with pytest.raises(ValueError, match="one dimension"):
        CharTokenizer("abc").decode([[0]])
    with pytest.raises(ValueError, match=r"got 'd' at 1, which is none of the 3"):
        CharTokenizer("abc").encode("ad")
    with pytest.raises(ValueError, match="one character"):
        CharTokenizer("abc", unknown="ab")
