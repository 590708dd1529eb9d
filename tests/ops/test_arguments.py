"""Spellings that PyTorch takes for the same thing: NumPy's `axis` and `keepdims`, results in memory that is there."""
import inspect

import numpy as np
import pytest

import minigrad as mg

AXIS = ["sum", "mean", "prod", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "var", "std", "cumsum", "cumprod", "softmax",
        "log_softmax"]


@pytest.mark.parametrize("name", AXIS)
def test_axis_and_keepdims(torch, name):
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    keep = "keepdim" in inspect.signature(getattr(mg, name)).parameters
    for options in ({"axis": 1}, {"axis": -1, "keepdims": True} if keep else {"axis": -1}, {"dim": 0, "keepdims": True} if keep else {"dim": 0}):
        ours, theirs = getattr(mg, name)(mg.tensor(values), **options), getattr(torch, name)(torch.tensor(values), **options)
        ours, theirs = (t if isinstance(t, tuple) else (t,) for t in (ours, theirs))
        method = getattr(mg.tensor(values), name)(**options)
        for a, b, c in zip(ours, theirs, method if isinstance(method, tuple) else (method,), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
            np.testing.assert_array_equal(a.numpy(), c.numpy())
    for wrong in ({"dim": 0, "axis": 1}, {"axes": 1}):
        with pytest.raises(TypeError):
            getattr(mg, name)(mg.tensor(values), **wrong)


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "softmax", "log_softmax"])
def test_a_dimension_that_must_be_given(name):
    with pytest.raises(TypeError):
        getattr(mg, name)(mg.ones(2, 2))


@pytest.mark.parametrize("name", ["cat", "stack"])
def test_joining_along_an_axis(name):
    a, b = mg.ones(2, 3), mg.zeros(2, 3)
    assert getattr(mg, name)((a, b), axis=1).tolist() == getattr(mg, name)((a, b), dim=1).tolist()
    for wrong in ({"dim": 1, "axis": 1}, {"axes": 1}):
        with pytest.raises(TypeError):
            getattr(mg, name)((a, b), **wrong)


def test_matmul_into():
    a, b, out = mg.ones(2, 3), mg.ones(3, 4), mg.empty(2, 4)
    assert mg.matmul(a, b, out=out) is out and out.tolist() == [[3.0] * 4] * 2
    with pytest.raises(RuntimeError, match="shape"):
        mg.matmul(a, b, out=mg.empty(2, 1))
    with pytest.raises(RuntimeError, match="in-place"):
        mg.matmul(a.requires_grad_(), b, out=out)
