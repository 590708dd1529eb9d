"""Masked reductions: what their samples do not say."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import masked

X = mg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
SOME = mg.tensor([[True, False, True], [False, False, False]])


def test_results_of_no_elements():
    for name, want in (("sum", 0), ("prod", 1), ("amax", -np.inf), ("amin", np.inf), ("mean", np.nan), ("median", np.nan), ("logsumexp", -np.inf)):
        np.testing.assert_array_equal(getattr(masked, name)(X, 1, mask=SOME)[1].item(), want, name)
    assert masked.amax(mg.tensor([1, 2]), mask=mg.tensor([False, False])).item() == np.iinfo(np.int64).min


def test_indices_and_medians():
    assert masked.argmax(X, 1, mask=SOME)[0].item() == 2 and masked.argmin(X, mask=mg.tensor([False, True, True])).item() == 1
    assert masked.median(X, 0, mask=mg.tensor([[True], [False]])).tolist() == [1, 2, 3]


def test_log_softmax_where_the_mask_is_false():
    got = masked.log_softmax(X, 1, mask=SOME)[0].exp()
    np.testing.assert_allclose(got.numpy(), masked.softmax(X, 1, mask=SOME)[0].numpy(), 1e-6)
    assert got[1].item() == 0


def test_no_dims_are_all_dims():
    for name in ("sum", "prod", "mean", "amax", "amin", "logsumexp", "var", "std"):
        f = getattr(masked, name)
        assert f(X, (), mask=SOME).item() == f(X, [], mask=SOME).item() == f(X, mask=SOME).item(), name
    assert masked.norm(X, 2.0, ()).item() == X.norm().item() and masked.sum(mg.tensor(3), ()).item() == 3


def test_dtype_converts_first():
    assert masked.sum(X, dtype=mg.float64).dtype == mg.float64 and masked.mean(mg.tensor([1, 2])).item() == 1.5


@pytest.mark.parametrize("call, kind, text", [
    (lambda: masked.sum(X, mask=X), RuntimeError, "bool"),
    (lambda: masked.sum(X, (0, 0)), RuntimeError, "once"),
    (lambda: masked.median(mg.tensor([1, 2])), RuntimeError, "floating"),
    (lambda: masked.sum(X, along=0), TypeError, "along"),
])
def test_refusals(call, kind, text):
    with pytest.raises(kind, match=text):
        call()
