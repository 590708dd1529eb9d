"""`out=`, which every function takes that gives tensors, and NumPy's names of options."""
import numpy as np
import pytest

import minigrad as mg
from minigrad import testing
from minigrad.core.op import registry

X = mg.tensor([[3.0, 1.0, 2.0], [6.0, 5.0, 4.0]])
CALLS = {
    **{name: lambda o, name=name: getattr(mg, name)(X, **o) for name in
       ("sum", "sort", "all", "std", "var", "prod", "mean", "amax", "exp", "std_mean", "median", "aminmax", "nonzero", "tril", "sigmoid")},
    **{name: lambda o, name=name: getattr(mg, name)(X, 1, **o) for name in ("max", "cumsum", "cumprod", "softmax", "logsumexp", "topk", "kthvalue", "mode", "clamp", "pow")},
    "cat": lambda o: mg.cat([X, X], **o), "stack": lambda o: mg.stack([X, X], **o), "mm": lambda o: mg.mm(X, X.T, **o), "where": lambda o: mg.where(X > 2, X, 0.0, **o),
    "div": lambda o: mg.div(X, 2, rounding_mode="floor", **o), "arange": lambda o: mg.arange(5, **o), "linspace": lambda o: mg.linspace(0, 1, 5, **o),
    **{name: lambda o, name=name: getattr(mg, name)(2, 3, **o) for name in ("zeros", "ones")},
    **{f"special.{name}": lambda o, name=name: getattr(mg.special, name)(X / 8, *([X] if name[0] == "x" else [1] if name == "multigammaln" else []), **o) for name in
       ("entr", "expit", "logit", "multigammaln", "ndtr", "round", "sinc", "xlog1py", "xlogy")},
    "linalg.svd": lambda o: mg.linalg.svd(X, full_matrices=False, **o), "softplus": lambda o: mg.nn.functional.softplus(X, **o), "lerp": lambda o: mg.lerp(X, X + 1, 0.5, **o)}


def several(value):
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("name", CALLS)
def test_results_are_written_into_the_tensors_given(name):
    plain = several(CALLS[name]({}))
    for shape in (lambda t: t.shape, lambda t: (0,)):
        given = tuple([mg.empty(shape(t), dtype=t.dtype) for t in plain])
        result = CALLS[name]({"out": given if len(given) > 1 else given[0]})
        assert [a is b for a, b in zip(several(result), given, strict=True)] == [True] * len(plain)
        for t, want in zip(given, plain, strict=True):
            np.testing.assert_array_equal(t.numpy(), want.numpy())
    assert type(result) is type(CALLS[name]({}))


WITHOUT = ("linear", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "batch_norm_eval")      # in PyTorch, too


@pytest.mark.parametrize("name", [name for name, op in list(registry.items()) if op in (getattr(mg, name, None), getattr(getattr(mg, name, None), "op", None)) and name not in WITHOUT])
def test_each_op(name):
    """The first sample of each op that is a public function."""
    args, attrs = next(iter(testing.samples_of(registry[name], np.float32)))
    with mg.no_grad():
        plain = getattr(mg, name)(*args, **attrs)
        given = [mg.empty(0, dtype=t.dtype) for t in several(plain)]
        result = getattr(mg, name)(*args, **attrs, out=given if isinstance(plain, tuple) else given[0])
    for r, out, want in zip(several(result), given, several(plain), strict=True):
        assert r is out
        np.testing.assert_array_equal(out.numpy(), want.numpy())


def test_what_does_not_fit_is_refused():
    x = X.clone().requires_grad_()
    for call, error, text in ((lambda: mg.sum(x, 1, out=mg.zeros(2)), RuntimeError, r"\[sum\] out= is not differentiable"),
                              (lambda: mg.clamp(X, 1, out=x), RuntimeError, r"\[clamp\] out= is not differentiable"),
                              (lambda: mg.mean(X, out=mg.zeros((), dtype="int64")), RuntimeError, r"\[mean\] needs a floating-point tensor"),
                              (lambda: mg.exp(X, out=mg.zeros((2, 3), dtype="int64")), RuntimeError, "float32 result cannot be written into a int64"),
                              (lambda: mg.sort(X, out=mg.zeros(2, 3)), TypeError, r"\[sort\] out must be 2 tensors"),
                              (lambda: mg.clamp(X, 1, out=3), TypeError, r"\[clamp\] out must be one tensor; got int"),
                              (lambda: mg.clamp(X, 1, out=mg.zeros(1, 3).expand(2, 3)), RuntimeError, "clamp"),
                              (lambda: mg.add(X, X, out=np.zeros((2, 3))), TypeError, r"\[add\] out must be one tensor; got ndarray"),
                              *[(lambda name=name: getattr(mg, name)(2, 3, out=np.zeros((2, 3))), TypeError, rf"\[{name}\] out must be one tensor; got ndarray") for name in ("rand", "randn", "zeros", "ones", "empty")],
                              (lambda: mg.zeros(2, dtype="float64", out=mg.zeros(2, dtype="int32")), RuntimeError, "float64 result cannot be written into a int32"),
                              (lambda: mg.cumsum(X, 1, out=np.zeros((2, 3))), TypeError, "one tensor; got ndarray")):
        with pytest.raises(error, match=text):
            call()


def test_what_picks_elements_writes_them_as_they_are():
    index, wide = mg.tensor([[0, 1], [1, 0]]), {"float32": "float64", "int64": "float32"}
    for name, args in (("gather", (1, index)), ("take", (index,)), ("take_along_dim", (index, 1)), ("index_select", (1, index[0])), ("masked_select", (X > 0,)),
                       ("amax", (1,)), ("amin", (1,)), ("argmax", (1,)), ("argmin", (1,)), ("multinomial", (2,)), ("searchsorted", (X,)), ("quantile", (0.5, 1)),
                       ("sort", ()), ("topk", (2,)), ("kthvalue", (1,)), ("mode", ()), ("median", (1,)), ("max", (1,)), ("min", (1,)), ("cummax", (1,)), ("slogdet", ())):
        x = X[:, :2].contiguous() if name == "slogdet" else X
        plain = several(getattr(mg, name)(x, *args))
        for i in range(len(plain)):
            given = [mg.zeros(*t.shape, dtype=wide[str(t.dtype)] if j == i else t.dtype) for j, t in enumerate(plain)]
            with pytest.raises(RuntimeError, match="out must have the dtype of the result"):
                getattr(mg, name)(x, *args, out=given if len(plain) > 1 else given[0])
            assert not any(t.any() for t in given)
    for call in (lambda out: mg.mean(X, 1, out=out), lambda out: mg.cat([X[0, :1], X[0, :1]], out=out), lambda out: mg.max(X, out=out)):
        assert call(mg.empty(0, dtype="float64")).dtype == np.float64


@pytest.mark.parametrize("name, args", [("gather", (0, mg.tensor([2, 1]))), ("take", (mg.tensor([2, 1]),)), ("take_along_dim", (mg.tensor([2, 1]), 0)),
                                        ("index_select", (0, mg.tensor([2, 1]))), ("masked_select", (mg.tensor([False, True, True, False]),)), ("cat", ())])
def test_what_picks_elements_writes_not_over_its_input(name, args):
    x = mg.arange(4.0)
    call = lambda out: mg.cat([mg.ones(1), x[:1]], out=out) if name == "cat" else getattr(mg, name)(x, *args, out=out)      # noqa: E731
    with pytest.raises(RuntimeError, match=rf"\[{name}\] out must not share memory with an input"):
        call(x[:2])
    assert x.tolist() == [0, 1, 2, 3]
    other = mg.zeros(4)
    assert call(other[2:]).tolist() == other[2:].tolist() and other[2:].any() and not other[:2].any()
    with pytest.raises(RuntimeError, match="share one place in memory"):
        call(mg.zeros(1).expand(7))
    both = mg.arange(4.0)
    assert mg.cat([both[:1], both[3:]], out=both[1:3]).tolist() == [0, 3]       # side by side


def test_values_with_indices_are_not_written_over_their_input():
    for name, args in (("kthvalue", (1,)), ("topk", (2,)), ("mode", ()), ("median", (0,)), ("nanmedian", (0,)), ("max", (0,)), ("min", (0,))):
        x = mg.arange(4.0)
        values, index = getattr(mg, name)(x, *args)
        with pytest.raises(RuntimeError, match="out must not share memory with an input"):
            getattr(mg, name)(x, *args, out=(x[:values.numel()].view(values.shape), mg.empty_like(index)))
        assert x.tolist() == [0, 1, 2, 3]
    assert mg.max(x, mg.full((4,), 2.0), out=x) is x and x.tolist() == [2, 2, 2, 3]
    assert mg.sort(x, descending=True, out=(x, mg.empty(4, dtype="int64")))[0] is x and x.tolist() == [3, 2, 2, 2]


OTHER = {"float32": ("float64", "float16"), "bool": ("int32", "float32")}       # dtypes of the same or a higher kind
EXACT = ("abs", "ceil", "floor", "neg", "round", "sgn", "sign", "trunc", "frac", "nan_to_num", "signbit", "diag", "tril", "nonzero", "msort")
CASTS = ("acos", "cos", "deg2rad", "digamma", "erf", "exp", "log1p", "logit", "sigmoid", "sinc", "sqrt", "tanh", "square", "reciprocal", "angle", "isnan", "logical_not")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_does_not_promote_writes_its_own_dtype_only(dtype):
    """As in PyTorch: products and what moves or rounds elements has it, what promotes its operands takes others too."""
    x = (X / 8).to(getattr(mg, dtype))
    m = x[:, :2].contiguous()
    v = x[0]
    calls = {"mm": (m, m), "bmm": (m[None], m[None]), "mv": (x, v), "dot": (v, v), "addmm": (m, m, m), "baddbmm": (m[None], m[None], m[None]), "matmul": (m, m), "tensordot": (m, m), "heaviside": (x, x),
             "float_power": (x, 2), "scatter_add": (x, 1, mg.zeros(2, 1, dtype="int64"), x), "index_add": (x, 0, mg.tensor([0, 1]), x), "linalg.inv": (m,), "linalg.vector_norm": (x,), "norm": (x,), "softmax": (x, 1),
             "log_softmax": (x, 1), "where": (x > 0, x, x), "cross": (x, x), "renorm": (x, 2, 0, 1.0), "logcumsumexp": (x, 1), "nn.functional.avg_pool2d": (x[None], 2), "nn.functional.softplus": (x,), "linalg.cholesky": (m @ m.T + 1,),
             "unfold_copy": (x, 0, 1, 1), "linalg.matrix_norm": (x,), **{name: (x,) for name in EXACT}}
    for name, args in calls.items():
        function = mg
        for part in name.split("."):
            function = getattr(function, part)
        plain = function(*args)
        for other in OTHER.get(str(plain.dtype), ("float32", "float16", "float64")):
            if plain.dtype == other:
                continue
            for shape in (plain.shape, (0,)):
                out = mg.zeros(shape, dtype=other)
                with pytest.raises(RuntimeError, match="out must have the dtype of the result"):
                    function(*args, out=out)
                assert out.shape == shape and not out.any(), name
        assert function(*args, out=mg.empty(0, dtype=plain.dtype)).tolist() == plain.tolist()
    for name, args in {**{name: (x,) for name in CASTS}, "add": (x, x), "lerp": (x, x, 0.5), "atan2": (x, x), "outer": (v, v), "stack": ([x, x],), "std": (x, 1), "kron": (x, x), "diff": (x,), "polygamma": (1, x), "addcmul": (x, x, x), "clamp": (x, 0.25),
                       "fmax": (x, x), "max": (x,), "mean": (x, 1), "maximum": (x, x), "linalg.pinv": (m,), "nn.functional.normalize": (x,), "special.xlog1py": (x, x)}.items():
        function = mg
        for part in name.split("."):
            function = getattr(function, part)
        out = mg.empty(0, dtype="float64" if dtype == "float32" else "float32")
        np.testing.assert_allclose(function(*args, out=out).numpy(), function(*args).numpy(), rtol=1e-6)


def test_out_says_in_which_dtype_a_sum_is_computed():
    """As `dtype=` does, which then must be out's."""
    x = mg.tensor(np.random.default_rng(0).random(1001).astype(np.float32) * 3 + 0.1)
    for name, args in (("sum", (0,)), ("nansum", (0,)), ("mean", (0,)), ("nanmean", (0,)), ("prod", (0,)), ("cumsum", (0,)), ("cumprod", (0,)), ("sum", ()), ("mean", ())):
        t = x[:60] if "prod" in name else x
        function, want = getattr(mg, name), getattr(mg, name)(t.double(), *args)
        for keyword in ({}, {"dtype": "float64"}):
            out = mg.empty(0, dtype="float64")
            assert function(t, *args, out=out, **keyword) is out and out.tolist() == want.tolist() != function(t, *args).double().tolist()
        for other, out in (("float32", "float64"), ("float64", "float32"), ("float64", "float16")):
            with pytest.raises(RuntimeError, match="out must have the dtype of the result"):
                function(t, *args, dtype=other, out=mg.empty(0, dtype=out))
    whole = mg.full((70,), 200, dtype="int32")
    assert mg.prod(whole[:40], out=mg.empty((), dtype="float64")).item() == 200.0 ** 40
    assert mg.sum(mg.tensor([2.9, 1.9]), 0, out=mg.empty((), dtype="int64")).item() == 3 and mg.sum(whole, 0, out=mg.empty((), dtype="uint8")).item() == 14000 % 256
    big = mg.full((3,), 1 / 3)
    half = big.half()
    assert mg.sum(half, 0, out=mg.empty(())).item() == half.float().sum().item() != half.sum().item()


def test_masks_are_written_into_uint8_and_back():
    for name in ("all", "any"):
        function = getattr(mg, name)
        for x in (X > 2, (X > 2).to(mg.uint8)):
            for dtype in ("bool", "uint8"):
                out = mg.empty(0, dtype=dtype)
                assert function(x, 1, out=out) is out and out.tolist() == [bool(v) for v in function(x, 1).tolist()]
        for dtype in ("int32", "float32"):
            with pytest.raises(RuntimeError, match="dtype of the result"):
                function(X > 2, 1, out=mg.empty(0, dtype=dtype))


def test_a_result_of_half_precision_is_written_into_the_tensor_given():
    """A function that rounds once computes on wide copies of its inputs; `out` is none of them."""
    for name in ("std", "var"):
        for x in (X, X.half()):
            out = mg.zeros(2, dtype="float16")
            assert getattr(mg, name)(x, 1, out=out) is out and out.tolist() == getattr(mg, name)(x, 1).half().tolist() != [0, 0]
    x = mg.tensor([1.0, 3.0, 2048.0, np.nan]).half()
    for dtype in ("float32", "float64", "float16"):
        want = np.float32(2052 / 3) if dtype != "float64" else 2052 / 3
        got = mg.nanmean(x, dtype=dtype)
        assert got.dtype == dtype and got.item() == np.dtype(dtype).type(want), dtype
        assert mg.masked.sum(x[:3], dtype=dtype).dtype == mg.masked.norm(x[:3], 2.0, dtype=dtype).dtype == dtype
    assert mg.nanmean(x, out=mg.empty((), dtype="float32")).item() == np.float32(2052 / 3)
    assert mg.nanmean(x.float(), dtype="float16").item() == np.float16(2052 / 3)


def test_out_of_new_tensors_has_their_dtype():
    for make, value in ((mg.zeros, 0), (mg.ones, 1)):
        for out in (mg.full((2, 3), 7, dtype="int32"), mg.empty(0, dtype="int32"), mg.full((3, 2), 7, dtype="int32").t()):
            assert make((2, 3), out=out) is out and out.dtype == np.int32 and out.tolist() == [[value] * 3] * 2
    out = mg.empty(0, dtype="float64")
    assert mg.empty(2, 3, out=out) is out and out.shape == (2, 3)


def test_out_of_another_shape_gets_that_of_the_result():
    """As in PyTorch: with a warning if it has elements."""
    for call in (lambda out: mg.add(X, X, out=out), lambda out: mg.add(X, X, alpha=1, out=out), lambda out: mg.mean(X, 1, keepdim=True, out=out), lambda out: mg.zeros(2, 3, out=out),
                 lambda out: mg.matmul(X, X.t(), out=out), lambda out: mg.gt(X, 0, out=out), lambda out: mg.exp(X[0], out=out), lambda out: mg.arange(4, out=out)):
        for given in (mg.full((7, 1), 3.0), mg.full((), 3.0), mg.ones(1, 3), mg.full((5, 2), 3.0)[:, 1], mg.ones(1).expand(9)):
            base, kept, want = given._base, None if given._base is None else given._base.tolist(), call(mg.empty(0))
            with pytest.warns(UserWarning, match="gets the result's"):
                assert call(given) is given
            assert given.shape == want.shape and given.tolist() == want.tolist() and (base is None or base.tolist() == kept)
    for name in ("all", "any"):
        assert getattr(mg, name)(X, 1, out=mg.empty(0, dtype="uint8")).tolist() == getattr(mg, name)(X, 1).tolist()
    for name in ("nonzero", "isposinf", "argmax", "all", "any"):
        with pytest.raises(RuntimeError, match="dtype of the result"):
            getattr(mg, name)(X, out=mg.empty(0))
    for out in (mg.empty(2, 2), mg.ones(2, 4)[:, 1:3].t()):                 # PyTorch fills these in their own shape
        assert mg.arange(4, out=out) is out and mg.logspace(0, 3, 4, 2, out=out).tolist() == [[1, 2], [4, 8]] and mg.linspace(0, 3, 4, out=out).tolist() == [[0, 1], [2, 3]]
    with pytest.warns(UserWarning, match="sort"):
        values, _ = mg.sort(X, out=(mg.ones(3, 2), mg.empty(0, dtype="int64")))
    assert values.shape == X.shape
    with pytest.raises(RuntimeError, match="the result must have the shape"):
        mg.ones(3).add_(X)


@pytest.mark.parametrize("shape", [(0,), (2, 3)])
def test_what_is_refused_leaves_all_tensors_as_they_are(shape):
    """Each refusal is that of the second tensor, or of both."""
    for second in (mg.full((2, 3), 7, dtype="bool"), mg.full((3, 2), 7, dtype="bool"), mg.full((1, 3), 7).expand(2, 3), mg.full((2, 3), 7.0, requires_grad=True)):
        first, kept = mg.full(shape, 7.0), second.tolist()
        with pytest.raises(RuntimeError, match="sort"):
            mg.sort(X, out=(first, second))
        assert first.shape == shape and (first == 7).all() and second.tolist() == kept
    first = mg.full(shape[:1], 7.0)
    for second in (first, first.view(shape[:1])) if first.numel() else (first,):
        with pytest.raises(RuntimeError, match=r"\[aminmax\] each result needs a tensor of its own"):
            mg.aminmax(X, dim=1, out=(first, second))
        assert first.shape == shape[:1] and (first == 7).all()


def test_a_saved_tensor_that_out_overwrites_is_noticed():
    x, w = mg.ones(2, requires_grad=True), mg.ones(2)
    y = (x * w).sum()
    with mg.no_grad():
        mg.cumsum(mg.ones(2), 0, out=w)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_numpys_names():
    for call, plain in ((lambda: mg.std_mean(X, axis=1, keepdims=True), lambda: mg.std_mean(X, dim=1, keepdim=True)), (lambda: mg.sum(X, axis=(0, 1)), lambda: mg.sum(X)),
                        (lambda: mg.median(X, axis=0), lambda: mg.median(X, dim=0)), (lambda: mg.cat([X, X], axis=1), lambda: mg.cat([X, X], 1)),
                        (lambda: mg.unsqueeze(X, axis=1), lambda: mg.unsqueeze(X, 1)), (lambda: mg.var(X, axis=1, unbiased=False), lambda: mg.var(X, 1, False))):
        for a, b in zip(several(call()), several(plain()), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    for call in (lambda: mg.std_mean(X, 1, axis=1, dim=1), lambda: mg.median(X, dim=1, axis=1), lambda: mg.sum(X, dim=0, axis=1), lambda: mg.exp(X, axis=1)):
        with pytest.raises(TypeError):
            call()


def test_what_is_no_operand_has_its_say_in_augmented_operators():
    class Other:
        def __radd__(self, other):
            return "added"
        __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rand__ = __ror__ = __rxor__ = __rlshift__ = __rrshift__ = __radd__

    for statement in ("+=", "-=", "*=", "/=", "//=", "%=", "**=", "&=", "|=", "^=", "<<=", ">>="):
        names = {"t": mg.tensor([3]), "o": Other()}
        exec(f"t {statement} o", names)
        assert names["t"] == "added"
        with pytest.raises(TypeError):
            exec(f"t {statement} None", {"t": mg.tensor([3])})
    t = same = mg.ones(2)
    t += np.ones(2, np.float32)
    assert t is same and t.tolist() == [2.0, 2.0]


def test_other_names_of_arguments():
    """Which PyTorch takes, too."""
    x, tau, v = mg.eye(2, dtype="float64"), mg.zeros(2, dtype="float64"), mg.arange(6)
    for call, plain in ((lambda: mg.cholesky_solve(x, input2=x), lambda: mg.cholesky_solve(x, x)), (lambda: mg.ormqr(x, input2=tau, input3=x), lambda: mg.ormqr(x, tau, x)),
                        (lambda: mg.orgqr(input=x, input2=tau), lambda: mg.orgqr(x, tau)), (lambda: x.orgqr(input2=tau), lambda: mg.orgqr(x, tau)), (lambda: mg.det(input=x), lambda: mg.det(x)),
                        (lambda: mg.hsplit(v, sections=2), lambda: mg.hsplit(v, 2)), (lambda: v.hsplit(indices=(1, 2)), lambda: v.hsplit((1, 2))), (lambda: mg.vsplit(x, sections=2), lambda: x.vsplit(2)),
                        (lambda: mg.tensor_split(v, indices=(1, 4)), lambda: v.tensor_split((1, 4))), (lambda: v.tensor_split(sections=4), lambda: v.tensor_split(4)),
                        (lambda: mg.nn.functional.one_hot(input=v, num_classes=6), lambda: mg.nn.functional.one_hot(v, 6)), (lambda: mg.isin(element=2, test_elements=v), lambda: mg.isin(2, v)),
                        (lambda: mg.linalg.norm(input=x), lambda: mg.linalg.norm(x)), (lambda: mg.linalg.lstsq(input=x, b=x)[0], lambda: mg.linalg.lstsq(x, x)[0]),
                        (lambda: v.view(size=(2, 3)), lambda: v.view(2, 3)), (lambda: tau.expand(size=(3, 2)), lambda: tau.expand(3, 2)), (lambda: x.sum_to_size(size=(1, 2)), lambda: x.sum_to_size(1, 2)),
                        (lambda: v.clone().resize_(size=(2, 2)), lambda: v.clone().resize_(2, 2)), (lambda: mg.unsafe_split(input=v, split_size=3), lambda: mg.unsafe_split(v, 3)),
                        (lambda: mg.empty(9).random_(**{"from": 3, "to": 4}), lambda: mg.full((9,), 3)), (lambda: mg.empty(9).uniform_(**{"from": 3, "to": 3}), lambda: mg.full((9,), 3.0))):
        for a, b in zip(several(call()), several(plain()), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert mg.result_type(tensor=v, other=1.5) == mg.float32 and v.new(size=(2, 1)).shape == (2, 1)
    for call in (lambda: mg.det(x, input=x), lambda: mg.hsplit(v, 2, sections=2), lambda: v.expand(sise=3), lambda: mg.empty(2).random_(low=3), lambda: mg.exp(other=x)):
        with pytest.raises(TypeError):
            call()
