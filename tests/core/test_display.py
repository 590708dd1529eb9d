"""What `print` and a notebook show of a tensor."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minigrad as mg


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    yield
    mg.set_printoptions(profile="default")


def test_notebook_form():
    html = mg.tensor([[1.5, np.nan], [2.0, -np.inf]], requires_grad=True)._repr_html_()
    assert "tensor [2, 2], float32, cpu, requires_grad=True" in html and html.count("<tr>") == 2
    assert "<td>1.5</td><td>nan</td>" in html and "<td>-inf</td>" in html
    html = mg.arange(60).reshape(30, 2)._repr_html_()
    assert html.count("<tr>") == 11 and "⋮" in html and "<td>59</td>" in html
    assert mg.ones(3, 40)._repr_html_().count("…") == 3
    assert "shown: [0, :, :]" in mg.ones(2, 3, 4)._repr_html_() and "<td>3</td>" in mg.tensor(3.0)._repr_html_()
    assert "<tr>" not in mg.ones(0, 3)._repr_html_() and "&lt;MulBackward0&gt;" in (mg.ones(2, requires_grad=True) * 2)._repr_html_()
    with pytest.raises(RuntimeError, match="reads a value while recording"):
        mg.capture(lambda x: x._repr_html_())(mg.ones(2))


# ---- text ----

SHOWN = [
    (mg.tensor([1, 2, 30]), "tensor([ 1,  2, 30])"),
    (mg.tensor([[True, False]]), "tensor([[ True, False]])"),
    (mg.tensor([1.0, 2.0]), "tensor([1., 2.])"),
    (mg.tensor([0.5, -1.25, 3.0]), "tensor([ 0.5000, -1.2500,  3.0000])"),
    (mg.tensor([1.0, 1e4, 1e-3]), "tensor([1.0000e+00, 1.0000e+04, 1.0000e-03])"),
    (mg.tensor([1.0, float("nan"), float("-inf")]), "tensor([1., nan, -inf])"),
    (mg.tensor(2.5), "tensor(2.5000)"),
    (mg.tensor(3), "tensor(3)"),
    (mg.tensor([]), "tensor([])"),
    (mg.empty(0, 3, dtype=mg.int64), "tensor([], size=(0, 3), dtype=int64)"),
    (mg.tensor([1.5], dtype=mg.float16), "tensor([1.5000], dtype=float16)"),
    (mg.tensor([1.5], dtype=mg.float64, requires_grad=True), "tensor([1.5000], dtype=float64, requires_grad=True)"),
    (mg.arange(1001), "tensor([   0,    1,    2,  ...,  998,  999, 1000])"),
    (mg.arange(4.0).reshape(2, 1, 2), "tensor([[[0., 1.]],\n\n        [[2., 3.]]])"),
]


@pytest.mark.parametrize(("tensor", "text"), SHOWN, ids=[text for _, text in SHOWN])
def test_text(tensor: mg.Tensor, text: str):
    assert repr(tensor) == str(tensor) == text


def test_a_long_row_is_broken_and_a_note_goes_to_its_own_line():
    shown = repr(mg.arange(30.0).requires_grad_()).splitlines()
    assert max(map(len, shown)) <= 80 and shown[1].startswith("        14., 15.") and shown[-1].endswith("29.], requires_grad=True)")
    assert repr(mg.ones(9).mul(0.5).double().requires_grad_()).splitlines() == [
        "tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000],", "       dtype=float64, requires_grad=True)"]


def test_the_default_dtype_is_not_named():
    mg.set_default_dtype(mg.float64)
    try:
        assert repr(mg.tensor([0.5])) == "tensor([0.5000])" and "dtype=float32" in repr(mg.tensor([0.5], dtype=mg.float32))
    finally:
        mg.set_default_dtype(mg.float32)


def test_printoptions():
    x = mg.arange(12).reshape(3, 4) / 7
    mg.set_printoptions(precision=1, threshold=5, edgeitems=1)
    assert repr(x) == "tensor([[0.0,  ..., 0.4],\n        ...,\n        [1.1,  ..., 1.6]])"
    mg.set_printoptions(edgeitems=0)
    assert repr(x) == "tensor([...], size=(3, 4))"
    mg.set_printoptions(profile="short", sci_mode=True)
    assert repr(x[1]) == "tensor([5.71e-01, 7.14e-01, 8.57e-01, 1.00e+00])"
    mg.set_printoptions(profile="short")
    assert repr(x[1]) == "tensor([0.57, 0.71, 0.86, 1.00])"
    mg.set_printoptions(profile="full")
    assert "500," in repr(mg.arange(2000))
    mg.set_printoptions(profile="default", linewidth=30)
    assert max(map(len, repr(mg.arange(100)).splitlines())) <= 30
    for wrong in ({"profile": "long"}, {"precision": -1}):
        with pytest.raises(ValueError, match="set_printoptions"):
            mg.set_printoptions(**wrong)


def _arrays() -> Iterator[np.ndarray]:
    """Values of many kinds and shapes."""
    rng = np.random.default_rng(0)
    shapes = ((), (1,), (7,), (30,), (3, 4), (2, 3, 5), (2, 1, 3, 2), (0,), (0, 3), (1200,), (40, 50), (3, 400), (12, 9, 11), (2000, 1))
    for shape in shapes:
        for scale in (1.0, 1e-6, 1e4, 1e9, 1e-3):
            yield rng.normal(size=shape).astype(np.float32) * np.float32(scale)
        yield np.exp(rng.normal(size=shape) * 6).astype(np.float32)
        yield np.round(rng.normal(size=shape) * 100).astype(np.float32)
        yield np.zeros(shape, np.float32)
        yield rng.integers(-1000, 1000, shape)
        yield rng.integers(0, 2, shape).astype(bool)
        wild = rng.normal(size=shape).astype(np.float32)
        wild = np.where(rng.random(shape) < 0.3, np.float32(np.inf), np.where(rng.random(shape) < 0.3, np.float32(np.nan), wild))
        yield wild.astype(np.float32)
        yield np.where(np.isfinite(wild), np.float32(-3), wild).astype(np.float32)
        for dtype in (np.float64, np.float16, np.int32, np.uint8, np.int8):
            yield (rng.normal(size=shape) * 50).astype(dtype) if dtype != np.uint8 else rng.integers(0, 255, shape).astype(dtype)


OPTIONS: list[dict[str, Any]] = [{}, {"precision": 2}, {"profile": "short"}, {"threshold": 5}, {"threshold": 5, "edgeitems": 1}, {"threshold": 5, "edgeitems": 0},
                                 {"linewidth": 40}, {"linewidth": 130}, {"sci_mode": True}, {"sci_mode": False}, {"precision": 0}, {"precision": 8}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_text_is_pytorchs(torch: Any, options: dict[str, Any]):
    """The values character by character; what follows them too, up to the names of dtypes."""
    mg.set_printoptions(**options)
    torch.set_printoptions(**options)
    try:
        for array in _arrays():
            for wanted in (False, True) if array.dtype.kind == "f" else (False,):
                ours = repr(mg.tensor(array, requires_grad=wanted))
                theirs = repr(torch.tensor(array, requires_grad=wanted))
                ending = theirs.rfind("]") if array.ndim else len(theirs.partition(",")[0]) - 1
                assert ours[:ending] == theirs[:ending], array.dtype
                assert ours[ending:].split() == theirs[ending:].replace("torch.", "").split(), array.dtype
                assert ours == theirs or "dtype" in theirs      # a longer name of the dtype may begin a line
        for width in range(40, 60):
            mg.set_printoptions(linewidth=width)
            torch.set_printoptions(linewidth=width)
            assert repr(mg.tensor([1.5, 2.0, 3.0], requires_grad=True)) == repr(torch.tensor([1.5, 2.0, 3.0], requires_grad=True))
        bits = np.array([[1.5, -2.25], [3.0, 1e-3]], np.float32)
        assert repr(mg.tensor(bits).bfloat16()) == repr(torch.tensor(bits).bfloat16()).replace("torch.", "")
    finally:
        torch.set_printoptions(profile="default")
