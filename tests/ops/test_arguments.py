"""Spellings that PyTorch takes for the same thing: NumPy's `axis` and `keepdims`, results in memory that is there."""
import inspect
import operator as o

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


def test_a_bool_is_no_dim():
    x = mg.ones(2, 3)
    for call in (lambda: x.sum(True), lambda: x.topk(1, True), lambda: mg.softmax(x, False), lambda: x.unsqueeze(True), lambda: mg.cat([x, x], True)):
        with pytest.raises(TypeError, match="dim must be a whole number"):
            call()


def test_matmul_into():
    a, b, out = mg.ones(2, 3), mg.ones(3, 4), mg.empty(2, 4)
    assert mg.matmul(a, b, out=out) is out and out.tolist() == [[3.0] * 4] * 2
    with pytest.warns(UserWarning, match="gets the result's"):
        assert mg.matmul(a, b, out=mg.empty(2, 1)).tolist() == out.tolist()
    with pytest.raises(RuntimeError, match="out= is not differentiable"):
        mg.matmul(a.requires_grad_(), b, out=out)


@pytest.mark.parametrize("operator", [o.add, o.sub, o.mul, o.truediv, o.pow, o.floordiv, o.mod, o.matmul, o.lt, o.eq])
def test_an_array_beside_a_tensor(operator):
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2.0, 1.0], [0.5, 3.0]])
    x, y = mg.tensor(a, requires_grad=True), mg.tensor(b, requires_grad=True)
    for got in (operator(x, b), operator(a, y), operator(x, y)):
        assert isinstance(got, mg.Tensor) and got.requires_grad is (operator not in (o.lt, o.eq))
        np.testing.assert_allclose(got.numpy(force=True), operator(a, b))
    i, j = mg.tensor([[1, 2], [3, 4]]), np.array([[2, 1], [1, 3]])
    for got in (operator(i, j), operator(i.numpy(), mg.tensor(j))):
        assert isinstance(got, mg.Tensor)
        np.testing.assert_allclose(got.numpy(), operator(i.numpy(), j))


def test_matmul_of_an_array_has_gradients():
    w, a = mg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), np.array([[1, 0], [2, 1]], np.float32)
    (w @ a).sum().backward()
    (a @ w).sum().backward()
    assert w.grad.tolist() == [[4, 6], [2, 4]]
    w @= a
    assert w.grad_fn is not None
    for wrong in (lambda: w @ 3, lambda: 3 @ w, lambda: w @ [1.0, 2.0], lambda: [1.0] @ w):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(RuntimeError, match="one dtype"):
        w @ a.astype(np.float64)


def test_in():
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    for element, found in ((2, True), (2.5, False), (mg.tensor(3.0), True), (np.float32(4), True), (mg.tensor([[1.0], [9.0]]), True)):
        assert (element in x) is found
    assert 2 in mg.tensor(2.0) and True in mg.tensor([0, 1]) and 1 not in mg.zeros(0)
    for wrong in (None, "a", [1.0]):
        with pytest.raises(RuntimeError, match=r"\[contains\] only a number or a tensor"):
            wrong in x                                                              # noqa: B015


def test_what_counts_as_a_number():
    """Scalars of NumPy's, bfloat16's too, are numbers everywhere; other scalars of NumPy's are not."""
    half = np.dtype(mg.bfloat16).type(0.5) if hasattr(mg, "bfloat16") else np.float16(0.5)
    x = mg.tensor([1.0, 4.0])
    takes = {"+": lambda v: x + v, "where": lambda v: mg.where(x > 2, x, v), "clamp": lambda v: mg.clamp(x, v, v), "lerp": lambda v: mg.lerp(x, x * 2, v),
             "alpha": lambda v: x.add(x, alpha=v), "masked_fill": lambda v: x.masked_fill(x > 2, v), "fill_": lambda v: x.clone().fill_(v),
             "copy_": lambda v: x.clone().copy_(v), "full": lambda v: mg.full((2,), v, dtype=mg.float32), "xlogy": lambda v: mg.xlogy(v, x)}
    for name, function in takes.items():
        for value in (half, np.float16(0.5), np.float32(0.5), np.float64(0.5), np.bool_(True), np.int8(2)):
            result, expected = function(value), function(value.item())
            assert isinstance(result, mg.Tensor) and result.dtype == expected.dtype and result.tolist() == expected.tolist(), (name, value)
        for value in (np.complex64(1), np.str_("a"), np.timedelta64(1, "s")) if name not in ("+", "lerp") else ():        # there NumPy answers
            with pytest.raises(TypeError, match="number"):
                function(value)
    for name in ("hypot", "fmax", "logaddexp"):
        for value in (2.0, np.float32(2), half):
            with pytest.raises(TypeError, match=rf"\[{name}\] other must be a tensor"):
                getattr(mg, name)(x, value)
