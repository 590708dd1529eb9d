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


@pytest.mark.parametrize("name", ["minigrad", "torch"])
def test_a_node_shows_its_context(name):
    lib = pytest.importorskip(name, reason="PyTorch, which does the same, is not installed")

    class Scale(lib.autograd.Function):
        @staticmethod
        def forward(ctx, k, x, w, saves):
            ctx.k, ctx._half = k, k / 2
            if saves:
                ctx.save_for_backward(x)
            return x * k

        @staticmethod
        def backward(ctx, g):
            return None, g * ctx.k, None, None
    x = lib.ones(2, requires_grad=True)
    for saves in (False, True):
        y = Scale.apply(3, x, lib.ones(2), saves)
        node = y.grad_fn
        assert node.k == 3 and node._half == 1.5 and node.needs_input_grad == (False, True, False, False)
        assert [(getattr(n, "variable", n) is x, i) for n, i in node.next_functions] == [(True, 0), (False, 0)]     # tensors only
        for missing in ("other", "_reading", "contents"):
            assert not hasattr(node, missing)
        node.metadata["note"] = 1
        y.sum().backward()
        assert len(node.next_functions) == 2 and node.metadata == {"note": 1}
    assert x.grad.tolist() == [6, 6]
    with lib.autograd.graph.saved_tensors_hooks(lambda t: t.tolist(), lib.tensor):
        assert Scale.apply(3, x, lib.ones(2), True).grad_fn.k == 3


def test_nothing_recorded():
    x = mg.tensor(A, requires_grad=True)
    with mg.no_grad():
        assert not cube(mg).apply(x, 2.0).requires_grad
    assert not cube(mg).apply(x.detach(), 2.0).requires_grad
    y = cube(mg).apply(x, 2.0)
    assert y.grad_fn.name() == "CubeBackward" and y.requires_grad and not y.is_leaf


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


class Power(Function):
    """x ** y, with a factor that has no position."""

    @staticmethod
    def forward(x, y=3, *, scale=1.0):
        return scale * x ** y

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.y = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        return g * ctx.y * x ** (ctx.y - 1), None


def test_defaults_and_keywords():
    x = mg.tensor([2.0], requires_grad=True)
    for y, value, slope in ((Power.apply(x), 8, 12), (Power.apply(x, 2), 4, 4), (Power.apply(x, y=2), 4, 4), (Power.apply(y=4, x=x), 16, 32)):
        assert y.item() == value and autograd.grad(y, x)[0].item() == slope
    assert Power.apply(x, scale=10.0).item() == 80

    class Scaled(Function):
        @staticmethod
        def forward(ctx, x, k=2.0, w=None):
            ctx.save_for_backward(w)
            ctx.k = k
            return x * k * w

        @staticmethod
        def backward(ctx, g):
            w, = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, False, True)
            return g * ctx.k * w, None, (g * ctx.k * x)
    w = mg.tensor([5.0], requires_grad=True)
    assert [g.item() for g in autograd.grad(Scaled.apply(x, w=w), [x, w])] == [10, 4]
    with pytest.raises(TypeError, match=r"\[Power\] forward: got an unexpected keyword argument 'z'"):
        Power.apply(x, z=1)
    with pytest.raises(TypeError, match=r"\[Power\] a tensor that requires a gradient must have a position.*got scale"):
        Power.apply(x, scale=w)


def test_outputs_that_are_no_tensors():
    seen = []

    class Mixed(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2, None, "text", x * 3, x.long()

        @staticmethod
        def backward(ctx, *grads):
            seen.extend(g if g is None else g.tolist() for g in grads)
            return grads[0] * 2 + grads[3] * 3
    x = mg.tensor([1.0], requires_grad=True)
    a, none, text, b, index = Mixed.apply(x)
    assert none is None and text == "text" and not index.requires_grad
    b.backward()
    assert x.grad.item() == 3 and seen == [[0], None, None, [1], [0]]
    assert function(forward=lambda ctx, x: None).apply(x) is None and function(forward=lambda ctx, x: (None,)).apply(x) == (None,)
    twice = function(lambda ctx, g, h: g + h, lambda ctx, x: (lambda y: (y, y))(x * 1))
    a, b = twice.apply(x)
    assert a is b and autograd.grad(a + b, x)[0].item() == 2


def test_what_saves_nothing_runs_backward_twice():
    x = mg.tensor([2.0], requires_grad=True)
    y = function().apply(x)
    y.backward()
    y.backward()
    assert x.grad.item() == 2
    y = Power.apply(x)
    y.backward()
    with pytest.raises(RuntimeError, match="Power has nothing saved; pass retain_graph=True"):
        y.backward()


def test_saved_tensors_of_a_context_that_was_kept():
    kept = []
    x = mg.tensor([2.0], requires_grad=True)
    square = function(lambda ctx, g: (kept.append(ctx), g * 2 * ctx.saved_tensors[0])[1], lambda ctx, x: (ctx.save_for_backward(x), x * x)[1])
    square.apply(x).backward()
    assert kept.pop().saved_tensors[0] is x


def test_backward_or_vjp():
    x = mg.ones(2, requires_grad=True)
    both = type("Both", (Function,), {"forward": staticmethod(lambda ctx, x: x * 2), "backward": staticmethod(lambda ctx, g: g), "vjp": staticmethod(lambda ctx, g: g)})
    with pytest.raises(RuntimeError, match=r"^\[Both\] Implementing both 'backward' and 'vjp' for a custom Function is not allowed"):
        both.apply(x).sum().backward()
    one = type("One", (Function,), {"forward": staticmethod(lambda ctx, x: x * 2), "vjp": staticmethod(lambda ctx, g: g * 2)})
    one.apply(x).sum().backward()
    assert x.grad.tolist() == [2, 2]


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
        (function(forward=lambda ctx, x: (ctx.mark_dirty(x), x)[1]), RuntimeError, "leaf Variable that requires grad"),
        (function(forward=lambda ctx, x: (ctx.mark_dirty(x), x * 2)[1]), RuntimeError, "mark_dirty must be returned"),
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
    with pytest.raises(RuntimeError, match="Mine backward.*modified by an inplace operation"):
        y.sum().backward()
