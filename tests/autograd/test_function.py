"""autograd.Function: the same text run on PyTorch, and against finite differences."""
from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd
from minigrad.autograd.function import Function, once_differentiable

A, B = np.random.default_rng(0).standard_normal((2, 3, 4))


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


def test_any_order_with_saved_inputs_and_outputs(on_both):
    def run(lib, x):
        y = cube(lib).apply(x, 2.0)
        g, = lib.autograd.grad(y.sum(), x, create_graph=True)
        h, = lib.autograd.grad((g * g).sum(), x, create_graph=True)
        third, = lib.autograd.grad(h.sum(), x)
        return y, g, h, third
    on_both(run, A)
    x = mg.tensor(A, requires_grad=True)
    assert autograd.gradcheck(lambda t: cube(mg).apply(t, 2.0), x) and autograd.gradgradcheck(lambda t: cube(mg).apply(t, 2.0), x)


def test_setup_context(on_both):
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


def test_flags(on_both):
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


def test_shapes_views_and_arguments(on_both):
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
    with pytest.raises(TypeError, match=r"\[Mine\] forward: missing a required argument"):
        function().apply(z=x)
    a = mg.ones(3, requires_grad=True)
    y = function(lambda ctx, g: g * ctx.saved_tensors[0], stale).apply(a)
    with mg.no_grad():
        a.add_(1)
    with pytest.raises(RuntimeError, match="Mine backward.*changed in place"):
        y.sum().backward()
