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


@pytest.mark.parametrize("name", ["logaddexp2", "xlogy", "xlog1py", "ldexp"])
@pytest.mark.parametrize("other", ["int64", "uint8", "bool", "float32", "float16"])
def test_a_function_of_one_operand_is_computed_in_the_result_dtype(name, other):
    function = getattr(mg, name, None) or getattr(mg.special, name)
    for x, y in ((3.25, 1), ([3.25, 2.5], [3, 1]), (3.25, [3, 1]), ([3.25, 2.5], 3)):
        x, y = mg.tensor(x, dtype=mg.float64), mg.tensor(y).to(getattr(mg, other))
        for a, b in ((x, y), (y, x)):
            dtype = mg.result_type(a, b)
            got = function(a, b)
            assert got.dtype == dtype
            if dtype == mg.float64:
                assert got.tolist() == function(a.to(dtype), b.to(dtype)).tolist()


def test_products_of_narrow_integers_are_taken_in_the_result_dtype():
    a, b = mg.tensor([5, 6], dtype=mg.int8), mg.tensor([60, 70], dtype=mg.int8)
    assert mg.addcmul(mg.ones(2), a, b).tolist() == [301, 421]
    assert mg.addcmul(mg.ones(2), a, b, value=-1).tolist() == [-299, -419]
    assert mg.addcmul(mg.ones(2, dtype=mg.int64), a, b, value=2).tolist() == [601, 841]


def test_block_diag_counts_a_0d_tensor_as_one():
    assert mg.block_diag(mg.tensor(2.0, dtype=mg.float64), mg.ones(2)).dtype == mg.float32
    assert mg.block_diag(mg.tensor([1], dtype=mg.int8), mg.tensor(2)).dtype == mg.int8


@pytest.mark.parametrize("name", ["mse_loss", "smooth_l1_loss", "huber_loss"])
def test_a_bool_target_counts_as_0_and_1(name):
    loss = getattr(mg.nn.functional, name)
    x, y = (mg.tensor([0.25, 0.5], requires_grad=True) for _ in range(2))
    a, b = loss(x, mg.tensor([True, False])), loss(y, mg.tensor([1.0, 0.0]))
    a.backward()
    b.backward()
    assert a.item() == b.item() and x.grad.tolist() == y.grad.tolist()


@pytest.mark.parametrize("name", ["any", "all"])
def test_truth_over_no_axes_is_that_of_each_element(name):
    x = mg.tensor([[0.0, 2.0]])
    for dim in ((), []):
        for keepdim in (False, True):
            assert getattr(x, name)(dim, keepdim).tolist() == [[False, True]]
    assert getattr(x.to(mg.uint8), name)(()).dtype == mg.uint8


def test_functions_of_numpy_give_tensors():
    x = mg.tensor([0.0, 4.0, float("inf")])
    for found, dtype in ((np.sqrt(x), mg.float32), (np.isinf(x), mg.bool), (np.add(x, np.ones(3)), mg.float64), (np.maximum(np.zeros(3, np.float32), x), mg.float32)):
        assert isinstance(found, mg.Tensor) and found.dtype == dtype
    whole, rest = np.divmod(x[:2], 3.0)
    assert whole.tolist() == [0, 1] and rest.tolist() == [0, 1] and np.exp(mg.tensor(0.0)).item() == 1.0
    assert isinstance(np.linalg.inv(mg.eye(2)), mg.Tensor) and np.lib.scimath.sqrt(mg.tensor([-1.0])).dtype == np.complex64
    with pytest.raises(RuntimeError, match="detach"):
        np.sqrt(mg.ones(2, requires_grad=True))


def _numbers():
    a, image, weight = mg.rand(2, 3, requires_grad=True), mg.rand(1, 2, 4, 4), mg.rand(3, 2)
    F, attention = mg.nn.functional, a[None]
    return {
        "full": lambda x: mg.full((2,), x), "full_like": lambda x: mg.full_like(a, x), "new_full": lambda x: a.new_full((2,), x),
        "cdist": lambda x: mg.cdist(a, a, p=x), "pdist": lambda x: mg.pdist(a, p=x), "dist": lambda x: mg.dist(a, a + 1, p=x),
        "renorm": lambda x: mg.renorm(a, x, 0, 1.0), "vector_norm": lambda x: mg.linalg.vector_norm(a, x),
        "triplet_margin_loss": lambda x: F.triplet_margin_loss(a, a, a + 1, p=x), "histc": lambda x: mg.histc(a.detach(), 3, max=x),
        "label_smoothing": lambda x: F.cross_entropy(a, mg.tensor([0, 2]), label_smoothing=x * 0.1),
        "scale": lambda x: F.scaled_dot_product_attention(attention, attention, attention, scale=x),
        "dropout_p": lambda x: F.scaled_dot_product_attention(attention, attention, attention, dropout_p=x * 0.1),
        "dropout": lambda x: F.dropout(a, p=x * 0.1), "dropout2d": lambda x: F.dropout2d(image, p=x * 0.1),
        "max_norm": lambda x: F.embedding(mg.tensor([0]), weight, max_norm=x), "interpolate": lambda x: F.interpolate(image, scale_factor=x),
        "normal_": lambda x: mg.zeros(2).normal_(x), "uniform_": lambda x: mg.zeros(2).uniform_(0, x),
        "log_normal_": lambda x: mg.zeros(2).log_normal_(0, x),
    }


@pytest.mark.parametrize("name", _numbers())
def test_a_number_whose_gradient_would_be_lost_is_refused(name):
    call, x = _numbers()[name], mg.tensor(2.0, requires_grad=True)
    with pytest.raises(TypeError, match="must be a number, not a tensor that requires a gradient"):
        call(x)
    for given in (x.detach(), np.float32(2)):
        call(given)
    with mg.no_grad():
        call(x)


def test_inner_does_not_broadcast():
    with pytest.raises(RuntimeError, match=r"\[inner\] the last dimensions must have one size; got float32\[3, 1\], float32\[4\]"):
        mg.inner(mg.ones(3, 1), mg.ones(4))


def test_an_empty_target_checks_the_shape_of_what_is_copied():
    with pytest.raises(RuntimeError, match=r"\[copy_\] shapes must broadcast"):
        mg.ones(2, 0).copy_(mg.ones(3))
    assert mg.ones(2, 0).copy_(mg.ones(1)).shape == mg.ones(2, 0).copy_(mg.tensor(3)).shape == (2, 0)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "flip"])
@pytest.mark.parametrize("dim", [1, -2])
def test_a_0d_tensor_has_the_dims_0_and_minus_1(name, dim):
    x = mg.tensor(2.0)
    assert getattr(x, name)(0).shape == getattr(x, name)(-1).shape == ()
    with pytest.raises(IndexError, match=rf"\[{name}\] dim out of range"):
        getattr(x, name)(dim)


@pytest.mark.parametrize("name, at", [("slice_scatter", (0, 0, 1)), ("select_scatter", (0, 0)), ("diagonal_scatter", ())])
def test_what_is_scattered_takes_the_dtype_of_the_tensor(name, at):
    src = mg.zeros(*((1, 2) if name == "slice_scatter" else (2,)), dtype=mg.int64)
    got, expected = (getattr(mg.ones(2, 2), name)(s, *at) for s in (src, src.float()))
    assert got.dtype == mg.float32 and got.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["remainder", "floor_divide", "fmod"])
def test_nothing_is_divided_by_zero(name):
    assert getattr(mg, name)(mg.ones(0, dtype=mg.int64), 0).shape == (0,)


@pytest.mark.parametrize("one", [np.int64(1), np.int32(1), np.uint8(1)], ids=lambda n: type(n).__name__)
def test_numpy_numbers_are_numbers(one):
    """A size or a dim that NumPy computed is taken like Python's, in its own arithmetic too: -np.uint8(2) is no number."""
    x, two, F, nn = mg.arange(24.0).reshape(2, 3, 4), one + one, mg.nn.functional, mg.nn
    assert len(x.chunk(two, 2)) == len(x.tensor_split(two, 2)) == len(x.hsplit(one)) + 1 == 2
    assert x.movedim(one, 0).shape == (3, 2, 4) and x.norm(two) == x.norm()
    w = mg.ones(3, 3, 2)
    same = F.conv1d(x, w, stride=2, padding=1, dilation=1).tolist()
    assert F.conv1d(x, w, stride=two, padding=one, dilation=(one,)).tolist() == same
    assert F.avg_pool1d(x, two, one).tolist() == F.avg_pool1d(x, 2, 1).tolist() and F.max_pool1d(x, two).shape == (2, 3, 2)
    assert nn.Conv2d(two, two, two).weight.shape == (2, 2, 2, 2) and nn.MaxPool2d(two)(x).shape == (2, 1, 2)
    assert nn.LSTM(4, two, two)(x)[0].shape == (2, 3, 2)
    for f in (F.softshrink, F.hardshrink):
        assert f(mg.tensor([-3.0, 0.5, 3.0]), two).tolist() == f(mg.tensor([-3.0, 0.5, 3.0]), 2).tolist()
    for name in ("Zero", "Constant", "Reflection", "Replication", "Circular"):
        assert getattr(nn, name + "Pad1d")(one, *[0.5] * (name == "Constant"))(x).shape == (2, 3, 6)


@pytest.mark.parametrize("n", [mg.tensor(1, dtype=mg.int32), mg.tensor(1), np.float32(1), 1.0], ids=repr)
def test_what_is_no_python_number_does_not_reach_an_address(n):
    """A kernel's address plus a tensor of int32 lay elsewhere: the process ended."""
    whole = hasattr(n, "__index__")
    for f, want in ((lambda: mg.ones(3).diag(n), mg.ones(3).diag(1)), (lambda: mg.ones(3).diag_embed(n), mg.ones(3).diag(1)),
                    (lambda: mg.tensor([4.0, 5.0]).combinations(n), mg.tensor([[4.0], [5.0]]))):
        if whole:
            np.testing.assert_array_equal(f().numpy(), want.numpy())
        else:
            with pytest.raises(TypeError):
                f()
    for norm in (mg.nn.functional.layer_norm, mg.nn.functional.rms_norm):
        assert norm(mg.ones(2, 1), (n,), eps=0.5).shape == (2, 1)
