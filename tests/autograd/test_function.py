"""`autograd.Function`, `autograd.functional`, gradcheck: the same text run on PyTorch where it has the name."""
from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd
from minigrad.autograd import functional
from minigrad.autograd.function import Function, once_differentiable

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4))


def on_both(test, *arrays):
    """`test(lib, *tensors)` on PyTorch and here; what it returns must agree."""
    results = []
    for lib in (torch, mg):
        found = test(lib, *[lib.tensor(a, requires_grad=True) for a in arrays])
        results.append([None if t is None else np.asarray(t.detach().numpy()) if hasattr(t, "detach") else t for t in flat(found)])
    assert len(results[0]) == len(results[1])
    for theirs, mine in zip(*results, strict=True):
        if isinstance(theirs, np.ndarray):
            assert theirs.shape == mine.shape and theirs.dtype == mine.dtype
            np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)
        else:
            assert theirs == mine
    return results[1]


def flat(value):
    return [x for v in value for x in flat(v)] if isinstance(value, tuple | list) else [value]


# ---- Function ----

def cube(lib):
    class Cube(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale):
            y = scale * x ** 3
            ctx.save_for_backward(x, None, y)
            ctx.scale = scale
            return y

        @staticmethod
        def backward(ctx, g):
            x, none, y = ctx.saved_tensors
            assert none is None and ctx.needs_input_grad == (True, False)
            return 3 * y / x * g, None
    return Cube


def test_any_order_with_saved_inputs_and_outputs():
    def run(lib, x):
        y = cube(lib).apply(x, 2.0)
        g, = lib.autograd.grad(y.sum(), x, create_graph=True)
        h, = lib.autograd.grad((g * g).sum(), x, create_graph=True)
        third, = lib.autograd.grad(h.sum(), x)
        return y, g, h, third
    on_both(run, A)
    x = mg.tensor(A, requires_grad=True)
    assert autograd.gradcheck(lambda t: cube(mg).apply(t, 2.0), x) and autograd.gradgradcheck(lambda t: cube(mg).apply(t, 2.0), x)


def test_setup_context():
    def run(lib, a, b):
        class Product(lib.autograd.Function):
            @staticmethod
            def forward(a, b, k):
                return a * b * k, a + b

            @staticmethod
            def setup_context(ctx, inputs, output):
                a, b, k = inputs
                ctx.save_for_backward(a, b)
                ctx.k = k

            @staticmethod
            def backward(ctx, g, h):
                a, b = ctx.saved_tensors
                return g * b * ctx.k + h, g * a * ctx.k + h if ctx.needs_input_grad[1] else None, None
        y, z = Product.apply(a, b, 3)
        return y, z, lib.autograd.grad((y * y).sum() + z.sum(), [a, b]), lib.autograd.grad(Product.apply(a, b.detach(), 2)[0].sum(), a)
    on_both(run, A, B)


def test_flags():
    def run(lib, x):
        seen = []

        class Split(lib.autograd.Function):
            @staticmethod
            def forward(ctx, x, materialize):
                ctx.set_materialize_grads(materialize)
                low, order = x * 2, (x * 10).long()
                kept = x * 5
                ctx.mark_non_differentiable(kept, order)
                return low, x * 3, kept, order

            @staticmethod
            def backward(ctx, a, b, kept, order):
                seen.extend([a is None, b is None])
                return (a * 2 if a is not None else 0) + (b * 3 if b is not None else 0), None
        results = []
        for materialize in (True, False):
            out = Split.apply(x, materialize)
            seen.append([o.requires_grad for o in out])
            results += [*out, lib.autograd.grad(out[1].sum(), x)]
        return *results, *[s for row in seen for s in (row if isinstance(row, list) else [row])]
    on_both(run, A)


def test_shapes_views_and_arguments():
    def run(lib, x, row):
        class Same(lib.autograd.Function):
            @staticmethod
            def forward(ctx, x, row):
                return x

            @staticmethod
            def backward(ctx, g):
                return g * 2, (g * 3)           # the second is summed to row's shape

        class View(lib.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.t()

            @staticmethod
            def backward(ctx, g):
                return g.t(), None, None        # more than needed, but None
        y = Same.apply(x, row)
        return y, lib.autograd.grad((y * y).sum(), [x, row]), lib.autograd.grad((View.apply(x) ** 2).sum(), x), y is x
    on_both(run, A, B[0])


def test_nothing_recorded():
    x = mg.tensor(A, requires_grad=True)
    with mg.no_grad():
        assert not cube(mg).apply(x, 2.0).requires_grad
    assert not cube(mg).apply(x.detach(), 2.0).requires_grad
    y = cube(mg).apply(x, 2.0)
    assert y.grad_fn.name() == "Cube_backward" and y.requires_grad and not y.is_leaf


def test_once_differentiable():
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            x, = ctx.saved_tensors
            return mg.tensor(2 * x.numpy(force=True) * g.numpy())
    x = mg.tensor(A, requires_grad=True)
    Square.apply(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * A)
    g, = autograd.grad(Square.apply(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"\[Square\] its backward is marked once_differentiable"):
        autograd.grad(g.sum(), x)


def test_no_cycles_and_freed():
    x = mg.tensor(A, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        y = cube(mg).apply(x, 2.0)
        node = weakref.ref(y.grad_fn)
        autograd.grad(y.sum(), x, create_graph=True)
        del y
        assert node() is None
    finally:
        gc.enable()
    y = cube(mg).apply(x, 2.0).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        y.backward()


def test_capture():
    runs = []
    for wrap in (lambda f: f, mg.capture):
        w = mg.tensor(B, requires_grad=True)

        def step(x, w=w):
            w.grad = None
            loss = (cube(mg).apply(x * w, 0.5) ** 2).sum()
            loss.backward()
            with mg.no_grad():
                w.sub_(w.grad * 1e-3)
            return loss
        step = wrap(step)
        runs.append(([step(mg.tensor(A * (i + 1) / 6)).item() for i in range(6)], w.tolist()))
    assert runs[0] == runs[1]


def function(backward=None, forward=None):
    return type("Mine", (Function,), {"forward": staticmethod(forward or (lambda ctx, x: x * 2)), "backward": staticmethod(backward or (lambda ctx, g: g))})


def test_function_errors():
    x = mg.ones(2, 3, requires_grad=True)

    def stale(ctx, x):
        ctx.save_for_backward(x)
        return x * 2
    cases = [
        (function(lambda ctx, g: (g, g)), RuntimeError, r"\[Mine\] backward must return a gradient .* for each input of forward; got 2 for 1"),
        (function(lambda ctx, g: g[0, :2]), RuntimeError, r"invalid gradient at index 0.*gradient \[2\], input \[2, 3\]"),
        (function(lambda ctx, g: 3.0), TypeError, "must return tensors or None; got float at index 0"),
        (function(forward=lambda ctx, x: 3), TypeError, "forward must return a Tensor or a tuple; got int at index 0"),
        (function(forward=lambda ctx, x: (ctx.mark_dirty(x), x)[1]), NotImplementedError, "mark_dirty"),
        (function(forward=lambda ctx, x: (ctx.save_for_forward(x), x)[1]), NotImplementedError, "save_for_forward"),
        (function(forward=lambda ctx, x: (ctx.save_for_backward(3), x)[1]), TypeError, "can only save variables, but got int"),
        (type("None", (Function,), {"forward": staticmethod(lambda ctx, x: x * 2)}), NotImplementedError, "must implement either the backward"),
        (type("None", (Function,), {}), NotImplementedError, "must implement the forward"),
    ]
    for cls, kind, text in cases:
        with pytest.raises(kind, match=text):
            cls.apply(x).sum().backward()
    with pytest.raises(RuntimeError, match="static methods only"):
        function()()
    with pytest.raises(TypeError, match="positional arguments only; got x"):
        function().apply(x=x)
    a = mg.ones(3, requires_grad=True)
    y = function(lambda ctx, g: g * ctx.saved_tensors[0], stale).apply(a)
    with mg.no_grad():
        a.add_(1)
    with pytest.raises(RuntimeError, match="Mine backward.*changed in place"):
        y.sum().backward()


# ---- functional ----

def pair(x, y):
    return (x * y).sin().sum(0), x.exp().sum() * y[0]


def number(x, y):
    return (x ** 3 * y).sum() + (y ** 2).sum().exp()


@pytest.mark.parametrize("create_graph", [False, True])
def test_products(create_graph):
    def run(lib, a, b):
        f = lib.autograd.functional
        v_out = (lib.tensor(B[0]), lib.tensor(B[1]))
        v_in = (lib.tensor(B), lib.tensor(A))
        found = [f.vjp(pair, (a, b), v_out, create_graph), f.jvp(pair, (a, b), v_in, create_graph), f.vhp(number, (a, b), v_in, create_graph),
                 f.hvp(number, (a, b), v_in, create_graph), f.vjp(lambda x: (x ** 2).sum(), a, create_graph=create_graph),
                 f.jvp(lambda x: x * a, a[0, 0], create_graph=create_graph), f.hvp(lambda x: (x ** 3).sum(), a, lib.tensor(B), create_graph),
                 f.vhp(lambda x: (x ** 3).sum(), a, lib.tensor(B), create_graph)]
        assert all(t.requires_grad == create_graph for t in flat(found))
        again = []
        if create_graph:
            again = [lib.autograd.grad(sum((t ** 2).sum() for t in flat(one)), a, retain_graph=True) for one in found]
        return found, again
    on_both(run, A, B)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("vectorize", [False, True])
def test_matrices(create_graph, vectorize):
    def run(lib, a, b):
        f, options = lib.autograd.functional, {"create_graph": create_graph, "vectorize": vectorize}
        found = [f.jacobian(pair, (a, b), **options), f.jacobian(lambda x: x.sin() @ x.t(), a, **options), f.jacobian(lambda x: x.sum(), (a,), **options),
                 f.hessian(number, (a, b), **options), f.hessian(lambda x: (x ** 3).sum(), a, **options),
                 f.jacobian(lambda x: (x * 2, lib.ones(2, dtype=lib.float64)), a, **options), f.hessian(lambda x: x.sum(), a, **options)]
        again = [lib.autograd.grad((found[i][0][0] ** 2).sum(), a) for i in (0, 3)] if create_graph else []
        return found, again
    on_both(run, A, B)


def test_the_same_tensor_from_elsewhere_is_constant():
    def run(lib, a):
        f = lib.autograd.functional
        return f.jacobian(lambda x: x * a, a), f.vjp(lambda x: (x * a).sum(), a), f.jvp(lambda x: x * a, a, lib.ones_like(a))
    on_both(run, A[0])


def test_strict_and_wrong_arguments():
    def run(lib, a, b):
        f, raised = lib.autograd.functional, []
        ones = lib.ones(2, 2, dtype=lib.float64)
        calls = [
            lambda: f.vjp(lambda x: ones.sum(), a, strict=True), lambda: f.vjp(lambda x, y: x.sum(), (a, b), strict=True),
            lambda: f.vjp(lambda x: x.sum(), a, create_graph=True, strict=True), lambda: f.jvp(lambda x: ones, a, b, strict=True),
            lambda: f.jvp(lambda x, y: x * 2, (a, b), (a, b), strict=True), lambda: f.hvp(lambda x: x.sum(), a, b, strict=True),
            lambda: f.vhp(lambda x: x.sum(), a, b, strict=True), lambda: f.vhp(lambda x, y: (x ** 3).sum(), (a, b), (a, b), strict=True),
            lambda: f.jacobian(lambda x: ones, a, strict=True), lambda: f.jacobian(lambda x: x * 2, a, create_graph=True, strict=True),
            lambda: f.hessian(lambda x: x.sum(), a, strict=True),
            lambda: f.hessian(lambda x: x * 2, a), lambda: f.hvp(lambda x: (x.sum(), x.sum()), a, b), lambda: f.vjp(lambda x: x, a),
            lambda: f.jvp(lambda x: x, a), lambda: f.vjp(lambda x: x, a, b[0]), lambda: f.jvp(lambda x, y: x, (a, b), a), lambda: f.vjp(lambda x: 3.0, a),
            lambda: f.vjp(lambda x: x, [a, b]), lambda: f.jacobian(lambda x: x, a, strict=True, vectorize=True),
            lambda: f.vjp(lambda x: (x ** 2).sum(), a, strict=True), lambda: f.hessian(lambda x: (x ** 3).sum(), a, strict=True),
            lambda: f.jvp(lambda x: x ** 2, a, b, strict=True), lambda: f.hvp(lambda x: (x ** 3).sum(), a, b, strict=True),
            lambda: f.vjp(lambda x: ones.sum(), a), lambda: f.jvp(lambda x: ones, a, b), lambda: f.hvp(lambda x: ones.sum(), a, b),
        ]
        for call in calls:
            try:
                call()
                raised.append("")
            except (RuntimeError, TypeError) as error:
                raised.append(type(error).__name__)
        return raised
    on_both(run, A, B)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        functional.jacobian(lambda x: x, mg.ones(2), strategy="forward-mode", vectorize=True)
    with pytest.raises(ValueError, match="strategy must be"):
        functional.hessian(lambda x: x.sum(), mg.ones(2), outer_jacobian_strategy="backwards")
    with pytest.raises(RuntimeError, match=r"\[vjp\] v must have the shapes of the output.*\[4\]"):
        functional.vjp(lambda x: x, mg.ones(3), mg.ones(4))


# ---- gradcheck ----

def test_gradcheck_options():
    x = mg.tensor(A, requires_grad=True)

    def right(t):
        return t.sin() * t, t.exp()
    for options in ({}, {"fast_mode": True}, {"check_grad_dtypes": True}, {"check_undefined_grad": False}):
        assert autograd.gradcheck(right, x, **options) and autograd.gradgradcheck(right, x, **options)
    assert autograd.gradgradcheck(right, x, gen_non_contig_grad_outputs=True)
    wrong = function(lambda ctx, g: g * 1.99)
    for options in ({}, {"fast_mode": True}):
        assert not autograd.gradcheck(wrong.apply, x, raise_exception=False, **options)
        with pytest.raises(autograd.GradcheckError, match="analytical .*numerical"):
            autograd.gradcheck(wrong.apply, x, **options)
    assert not autograd.gradgradcheck(lambda t: function(lambda ctx, g: g * 2 + 0 * g.detach()).apply(t) * t.detach() * t, x, raise_exception=False)
    with pytest.raises(autograd.GradcheckError, match="the gradient .* is not the same when computed twice"):
        autograd.gradcheck(function(lambda ctx, g: g * 2 * (1 + 1e-9 * mg.rand(1, dtype=mg.float64))).apply, x)
    with pytest.raises(autograd.GradcheckError, match="output 0 is not the same"):
        autograd.gradcheck(lambda t: t * mg.rand(1, dtype=mg.float64), x)
    undefined = type("Two", (Function,), {"forward": staticmethod(lambda ctx, x: (ctx.set_materialize_grads(False), x * 2, x * 3)[1:]),
                                          "backward": staticmethod(lambda ctx, a, b: a * 2 + b * 3)})
    with pytest.raises((autograd.GradcheckError, TypeError, AttributeError)):
        autograd.gradcheck(undefined.apply, x)
    with pytest.raises(NotImplementedError, match="check_forward_ad"):
        autograd.gradcheck(right, x, check_forward_ad=True)
    with pytest.raises(NotImplementedError, match="check_fwd_over_rev"):
        autograd.gradgradcheck(right, x, check_fwd_over_rev=True)
    with pytest.raises(ValueError, match="at least one input"):
        autograd.gradcheck(right, x.detach())
    with pytest.warns(UserWarning, match="input 0 is float32"):
        autograd.gradcheck(lambda t: t * 2, mg.ones(2, requires_grad=True), eps=1e-2, atol=1e-2)
