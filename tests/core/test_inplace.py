"""In-place changes of tensors in the graph and of their views: values, gradients, and what is refused."""
from __future__ import annotations

import gc
import re
import warnings
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd, nn, testing, utils
from minigrad.core.op import registry


def leaf(*values):
    return mg.tensor(values, dtype=mg.float64, requires_grad=True)


def grad_of(change, n=3):
    """The values and the gradient of the sum of squares of `y = 2 x` after `change(y)`."""
    x = mg.tensor(np.arange(1.0, n + 1), requires_grad=True)
    y = x * 2
    change(y)
    (y * y).sum().backward()
    return y.tolist(), x.grad.tolist()


# ---- whole tensors ---------------------------------------------------------------------------------------------------

FORMS = {
    "+=": (lambda y: y.__iadd__(1), lambda y: y + 1), "add_": (lambda y: y.add_(y, alpha=2), lambda y: y + 2 * y),
    "mul_": (lambda y: y.mul_(y), lambda y: y * y), "div_": (lambda y: y.div_(4), lambda y: y / 4),
    "pow_": (lambda y: y.pow_(2), lambda y: y ** 2), "exp_": (lambda y: y.exp_(), lambda y: y.exp()),
    "zero_": (lambda y: y.zero_(), lambda y: y * 0), "fill_": (lambda y: y.fill_(3), lambda y: y * 0 + 3),
    "copy_": (lambda y: y.copy_(y.detach().flip(0)), lambda y: y * 0 + y.detach().flip(0)),
    "clamp_": (lambda y: y.clamp_(3, 5), lambda y: y.clamp(3, 5)), "relu_": (lambda y: y.relu_(), lambda y: y.relu()),
    "masked_fill_": (lambda y: y.masked_fill_(y > 3, 1.0), lambda y: y.masked_fill(y > 3, 1.0)),
    "scatter_": (lambda y: y.scatter_(0, mg.tensor([0]), 7.0), lambda y: y.scatter(0, mg.tensor([0]), 7.0)),
    "index_add_": (lambda y: y.index_add_(0, mg.tensor([1, 1]), y[:2]), lambda y: y.index_add(0, mg.tensor([1, 1]), y[:2])),
    "index_copy_": (lambda y: y.index_copy_(0, mg.tensor([2]), y[:1]), lambda y: y.index_copy(0, mg.tensor([2]), y[:1])),
    "index_fill_": (lambda y: y.index_fill_(0, mg.tensor([2]), 1.5), lambda y: y.index_fill(0, mg.tensor([2]), 1.5)),
    "addcmul_": (lambda y: y.addcmul_(y, y, value=0.5), lambda y: y.addcmul(y, y, value=0.5)),
    "cumsum_": (lambda y: y.cumsum_(0), lambda y: y.cumsum(0)), "round_": (lambda y: y.round_(), lambda y: y.round() + y * 0),
    "F.relu": (lambda y: nn.functional.relu(y, inplace=True), lambda y: y.relu()),
    "F.silu": (lambda y: nn.functional.silu(y, inplace=True), lambda y: nn.functional.silu(y)),
    "x[i] =": (lambda y: y.__setitem__(1, 9.0), lambda y: y * mg.tensor([1.0, 0, 1]) + mg.tensor([0, 9.0, 0])),
    "x[a:b] =": (lambda y: y.__setitem__(slice(0, 2), y[1:].clone()), lambda y: mg.cat([y[1:], y[2:]])),
    "x[[i]] =": (lambda y: y.__setitem__([2, 0], y[:2] * 3), lambda y: mg.stack([y[1] * 3, y[1], y[0] * 3])),
    "x[mask] =": (lambda y: y.__setitem__(y > 3, 2.0), lambda y: mg.where(y > 3, 2.0, y)),
    "x[mask] = t": (lambda y: y.__setitem__(y > 3, y[1:] * 2), lambda y: mg.cat([y[:1], y[1:] * 2])),
    "x[...] =": (lambda y: y.__setitem__(..., y.flip(0)), lambda y: y.flip(0)),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_has_the_gradient_of_its_pure_form(name):
    change, pure = FORMS[name]
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    address = y.data_ptr()
    change(y)
    expected = leaf(1.0, 2.0, 3.0)
    z = pure(expected * 2)
    assert y.data_ptr() == address and y.tolist() == z.tolist()
    (y * y).sum().backward()
    (z * z).sum().backward()
    assert x.grad.tolist() == expected.grad.tolist()


SAMPLED = [name for name, op in registry.items() if hasattr(mg.Tensor, name + "_") and testing.called(op) is getattr(mg, name, None)]


@pytest.mark.parametrize("name", SAMPLED)
def test_each_op_in_place_on_its_samples(name):
    """Values and gradients have the bits of the op itself."""
    def run(method, args, attrs):
        leaves = [a.detach().clone().requires_grad_() if is_float(a) else a for a in args]
        inputs = [a * 1 if is_float(a) else a for a in leaves]
        out = getattr(inputs[0], method)(*inputs[1:], **attrs)
        if out.requires_grad:
            out.backward(mg.tensor(np.cos(np.arange(out.numel())).reshape(out.shape)))
        return out, [a.grad for a in leaves if is_float(a)]

    def is_float(a):
        return isinstance(a, mg.Tensor) and a.is_floating_point()
    for args, attrs in testing.samples_of(registry[name]):
        out, grads = run(name, args, attrs)
        if not is_float(args[0]) or out.shape != args[0].shape or out.dtype != args[0].dtype:
            continue
        ours, found = run(name + "_", args, attrs)
        assert np.array_equal(ours.detach().numpy(), out.detach().numpy(), equal_nan=True)
        for g, h in zip(found, grads, strict=True):
            if g is None or h is None:          # without a derivative: zeros where the tensor was overwritten, else None
                assert all(t is None or not t.numpy().any() for t in (g, h))
            else:
                assert np.array_equal(g.numpy(), h.numpy(), equal_nan=True)


def test_the_result_is_the_tensor_itself_with_a_new_node():
    x = leaf(1.0, 2.0)
    y = x * 2
    before, version = y.grad_fn, y._version
    assert y.add_(1) is y and y.grad_fn is not before and y._version == version + 1
    y += x
    assert y.grad_fn.name() == "AddBackward0"


def test_a_tensor_outside_the_graph_becomes_part_of_it():
    w = leaf(3.0, 4.0)
    for write in (lambda x: x.add_(w), lambda x: x.copy_(w), lambda x: x.__setitem__(slice(None), w), lambda x: x[:].mul_(w)):
        w.grad = None
        x = mg.ones(2, dtype=mg.float64)
        write(x)
        assert x.requires_grad and not x.is_leaf
        (x * mg.tensor([1.0, 2.0], dtype=mg.float64)).sum().backward()
        assert w.grad.tolist() == [1, 2]
    assert not mg.tensor([1, 2]).copy_(w).requires_grad         # integers take the values only


def test_leaves_that_require_gradients_are_refused():
    x = leaf(1.0, 2.0)
    changes = [lambda t: t.add_(1), lambda t: t.zero_(), lambda t: t.copy_(mg.ones(2)), lambda t: t.__setitem__(0, 1.0), lambda t: t.uniform_(),
               lambda t: t.__setitem__(mg.tensor([True, False]), 1.0), lambda t: t[0].add_(1), lambda t: t.view(2, 1).mul_(2), lambda t: t.T.relu_()]
    for change in changes:
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad is being used in an in-place operation.*no_grad"):
            change(x)
    assert x.tolist() == [1, 2] and x._version == 0
    with mg.no_grad():
        for change in changes:
            change(x)
    assert x.requires_grad and x.is_leaf


def test_what_has_no_gradient_takes_values_that_have_one():
    """Results of bool, and targets that are no floats: the check of `out=` is not for them."""
    y = leaf(1.0, 2.0)
    i = mg.tensor([0, 3])
    assert i.lt_(y).tolist() == [1, 0] and i.eq_(y).tolist() == [1, 0] and i.masked_fill_(y > 1, 5).tolist() == [1, 5]
    assert not i.requires_grad and mg.tensor([True, False]).logical_or_(y).tolist() == [True, True]
    for name, change in (("add_", lambda: i.add_(y)), ("div_", lambda: i.div_(y, rounding_mode="floor")), ("sub_", lambda: i.sub_(y, alpha=2))):
        with pytest.raises(RuntimeError, match=rf"\[{name}\] a float64 result cannot be written into a int64 tensor"):
            change()
    x, out = leaf(1.0, 1.0).detach(), mg.empty(2, dtype=mg.float64)
    for name, into in (("add", lambda: mg.add(x, y, out=out)), ("mul", lambda: mg.mul(x, x, out=y)), ("lt", lambda: mg.lt(x, y, out=out > 0)),
                       ("div", lambda: mg.div(x, y, rounding_mode="floor", out=out)), ("matmul", lambda: mg.matmul(x, y, out=out.sum())),
                       ("matmul", lambda: mg.matmul(x, x, out=y.sum()))):
        with pytest.raises(RuntimeError, match=rf"\[{name}\] out= is not differentiable"):
            into()
        with mg.no_grad():
            into()


def test_under_no_grad_the_graph_stays():
    x = leaf(1.0, 2.0)
    y = x * 2
    with mg.no_grad():
        y.mul_(10)
    assert y.grad_fn.name() == "MulBackward0" and y.tolist() == [20, 40]
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_a_saved_tensor_that_was_changed_raises_at_backward():
    x = leaf(1.0, 2.0)
    for use, change in ((lambda y: y * y, lambda y: y.add_(1)), (lambda y: y.exp(), None), (lambda y: y[0:1] * y[1:2], lambda y: y[0].add_(1)),
                        (lambda y: y.view(2, 1) @ y.view(1, 2), lambda y: y.zero_())):
        y = x * 2
        z = use(y)
        (change or (lambda _, z=z: z.add_(1)))(y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation since the forward pass"):
            z.sum().backward()
    y = x * 2
    z = y.relu() + y.tanh() + (y + 1)           # these save their outputs, or nothing
    y.add_(5)
    z.sum().backward()


def test_the_error_names_what_was_changed():
    class Mine(autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return g * y, g * x

    def packed(y):
        with autograd.graph.saved_tensors_hooks(lambda t: (1, t), lambda pair: pair[1]):
            return y.sin()
    x, w = mg.ones(5, 4, requires_grad=True), mg.ones(3, 4, requires_grad=True)
    for use, change, name in (
            (lambda y: y.square() * w[0], lambda y: y.add_(1), "input float32[5, 4]"), (lambda y: x * y, lambda y: y.add_(1), "other float32[5, 4]"),
            (lambda y: y[0].sin(), lambda y: y[1].add_(1), "input float32[4]"), (lambda y: nn.functional.linear(y, w), lambda y: y.add_(1), "x float32[5, 4]"),
            (lambda y: nn.functional.linear(y, w), lambda y: w.add_(1), "weight float32[3, 4]"),
            (lambda y: nn.functional.linear(y, w), lambda y: (y + 1).add_(1) + y.add_(1), "x float32[5, 4] or weight float32[3, 4]"),
            (lambda y: y.exp(), None, "the output float32[5, 4]"), (lambda y: y.softmax(1), None, "the output float32[5, 4]"),
            (packed, lambda y: y.add_(1), "a saved tensor float32[5, 4]"), (lambda y: Mine.apply(x, y), lambda y: y.add_(1), "saved 1 float32[5, 4]"),
            (lambda y: utils.checkpoint.checkpoint(mg.sin, y, use_reentrant=False), lambda y: y.add_(1), "argument 0 float32[5, 4]")):
        y = x * 2
        z = use(y)
        with mg.no_grad():
            (change or (lambda _, z=z: z.add_(1)))(y)
        with pytest.raises(RuntimeError, match=rf"; got a change of {re.escape(name)}; make the change out of place"):
            z.sum().backward()


def test_create_graph_through_changes():
    x = leaf(1.0, 2.0, 3.0)
    y = x * x
    y[1:].mul_(x[:2])
    y.T.pow_(2)
    g, = autograd.grad(y.sum(), x, create_graph=True)
    p = leaf(1.0, 2.0, 3.0)
    pure = mg.cat([p[:1] ** 2, p[1:] ** 2 * p[:2]]) ** 2
    h, = autograd.grad(pure.sum(), p, create_graph=True)
    assert np.allclose(g.tolist(), h.tolist())
    (g * g).sum().backward()
    (h * h).sum().backward()
    assert np.allclose(x.grad.tolist(), p.grad.tolist())


def test_gradcheck_of_changes():
    def run(a, b):
        x = a.clone()
        x[0] = b
        x[:, 1] *= b[:2]
        x.diagonal().sin_()
        x.t()[1].copy_(x[0, :2].clone())
        x[mg.tensor([1, 0]), mg.tensor([0, 1])] = b[:2].exp()
        return x
    a, b = (mg.tensor(np.random.default_rng(s).normal(size=shape), requires_grad=True) for s, shape in ((0, (2, 3)), (1, (3,))))
    assert autograd.gradcheck(run, (a, b)) and autograd.gradgradcheck(run, (a, b))


# ---- views -----------------------------------------------------------------------------------------------------------

def test_base_and_views_see_a_change_and_its_gradient():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    base = x * 1
    row, other, again = base.view(2, 2)[0], base[1:3], base.view(2, 2).t()
    row.mul_(10)
    assert base.tolist() == [10, 20, 3, 4] and other.tolist() == [20, 3] and again.tolist() == [[10, 3], [20, 4]]
    assert all(t.grad_fn is not None for t in (base, row, other, again))
    (other * mg.tensor([1.0, 2.0], dtype=mg.float64)).sum().backward(retain_graph=True)
    assert x.grad.tolist() == [0, 10, 2, 0]
    x.grad = None
    (base.sum() + again[0, 0]).backward()
    assert x.grad.tolist() == [20, 10, 1, 1]


def test_views_follow_a_base_that_becomes_part_of_the_graph():
    w = leaf(2.0)
    base = mg.ones(3, dtype=mg.float64)
    view, copy = base[1:], base.detach()
    assert not view.requires_grad
    base.mul_(w)
    assert view.requires_grad and view.grad_fn is not None and not copy.requires_grad and copy.tolist() == [2, 2, 2]
    view.sum().backward()
    assert w.grad.tolist() == [2]


def test_a_base_that_is_gone_is_found_again():
    x = leaf(1.0, 2.0, 3.0)
    base = x * 1
    a, b, c = base[:2], base[1:], base.view(3, 1)[2]
    del base
    a.mul_(2)
    b.mul_(x[0])
    a.add_(c)
    assert a.tolist() == [5, 7] and b.tolist() == [7, 3] and c.tolist() == [3]
    (a * mg.tensor([1.0, 10.0], dtype=mg.float64)).sum().backward()
    assert x.grad.tolist() == [2 + 4 * 10 + 3 * 11, 20, 11]


def test_a_base_in_another_memory_order():
    x = leaf(*range(6))
    base = (x * 1).view(2, 3).t()
    base = mg.from_numpy(base.detach().numpy()).mul_(1)             # strides (1, 3): `t` of it is contiguous
    w = leaf(5.0)
    base.t().reshape(-1)[1:3].mul_(w)
    base.sum().backward(retain_graph=True)
    assert w.grad.tolist() == [3] and base.t().reshape(-1).tolist() == [0, 5, 10, 3, 4, 5]
    base.t().reshape(-1)[1:2].zero_()
    w.grad = None
    base.sum().backward()
    assert w.grad.tolist() == [2]


def test_gradients_of_infinity_do_not_spread():
    x = leaf(1.0, 2.0)
    y = x * 1
    y[0] = 3.0
    (y * mg.tensor([float("inf"), 1.0], dtype=mg.float64)).sum().backward()
    assert x.grad.tolist() == [0, 1]


def test_several_views_of_one_function_are_refused():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    for cut in (lambda t: t.unbind(0), lambda t: t.chunk(2), lambda t: t.split(2), lambda t: t.tensor_split(2)):
        y = x * 1
        with pytest.raises(RuntimeError, match="Output 0 of .* is a view and is being modified inplace. This view is the output of a function "
                                               "that returns multiple views"):
            cut(y)[0].mul_(2)
        with pytest.raises(RuntimeError, match="multiple views"):
            cut(y)[0][...].mul_(2)
        part = cut(y)[0]
        y.mul_(2)
        with pytest.raises(RuntimeError, match="its base or another view of its base has been modified inplace"):
            part.sum().backward()
    plain = mg.zeros(4)
    plain.chunk(2)[0].add_(1)                                      # outside the graph there is nothing to refuse
    assert plain.tolist() == [1, 1, 0, 0]


def test_views_made_under_no_grad():
    x, w = leaf(1.0, 2.0), leaf(3.0)
    for base in (x * 1, x, mg.ones(2, dtype=mg.float64)):
        with mg.no_grad():
            view = base[:]
            inner = view[:]
            view.add_(1)
        assert not view.requires_grad
        with pytest.raises(RuntimeError, match="A view was created in no_grad mode and is being modified inplace.*inside the no_grad block"):
            view.mul_(w)
        with pytest.raises(RuntimeError, match="no_grad mode"):
            inner[:].mul_(w)
        with pytest.raises(RuntimeError, match="no_grad mode") if base.requires_grad else warnings.catch_warnings():
            view.mul_(2)


def test_a_view_from_before_its_base_required_gradients():
    a = mg.zeros(3)
    b = a[:]
    a.requires_grad_()
    assert b.requires_grad
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
        b.add_(1)
    (b * 2).sum().backward()
    assert a.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize("stop", [lambda w: w.requires_grad_(False), lambda w: w.detach_(), lambda w: setattr(w, "requires_grad", False)])
def test_views_from_when_their_base_was_a_leaf(stop):
    w, y = leaf(3.0, 4.0, 5.0), leaf(1.0, 2.0, 3.0)
    views = [w[:2], w[1:], w.view(3, 1)]
    of_view = views[0][1:]
    stop(w)
    after = w[2:]
    w.mul_(y)
    sum(v.sum() * 10 ** i for i, v in enumerate((*views, of_view, after))).backward()
    assert y.grad.tolist() == [3 * 101, 4 * 1111, 5 * 10110]
    w, y = leaf(3.0, 4.0, 5.0), leaf(1.0)
    v = w[:2]
    stop(w)
    w[1:] = y
    v.sum().backward()
    assert y.grad.tolist() == [1]


def test_a_view_can_be_a_leaf():
    x = mg.zeros(3)
    v = x[:2].requires_grad_()
    assert v.is_leaf and not x.requires_grad
    with pytest.raises(RuntimeError, match="leaf Variable"):
        v.add_(1)
    for detached in (v, (leaf(1.0) * 2)[:]):
        with pytest.raises(RuntimeError, match="a view cannot be detached in place"):
            detached.detach_()


def test_expanded_tensors_are_refused():
    with pytest.raises(RuntimeError, match="share one place"):
        (leaf(1.0) * 2).expand(3).add_(1)


def test_an_expanded_tensor_is_filled():
    base = mg.zeros(2, 1)
    x = base.expand(3, 2, 4)
    assert x.fill_(2.0) is x and (x == 2).all() and base.tolist() == [[2], [2]]
    assert x[:, 1:].fill_(mg.tensor(3.0)).shape == (3, 1, 4) and base.tolist() == [[2], [3]]
    assert x.mT.zero_().sum() == 0 == base.sum()
    y = mg.ones(2, 1, requires_grad=True)
    made = (y * 2).expand(2, 3)
    made[:1].fill_(5.0)
    (made * mg.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert made.tolist() == [[5] * 3, [2] * 3] and y.grad.tolist() == [[0], [12]]
    assert mg.zeros(60).as_strided((4, 3, 2), (10, 0, 3)).fill_(1.0).sum() == 24        # neither dense nor in one piece
    assert mg.zeros(2, 1).expand(2, 3)[:, :1].T.fill_(1.0).sum() == 2
    with pytest.raises(RuntimeError, match="share one place"):
        mg.zeros(5).unfold(0, 3, 1).fill_(1.0)


@pytest.mark.filterwarnings("ignore:.index. a uint8 tensor is a mask")
def test_indexing_by_a_number_in_a_tensor_is_a_view():
    for i in (mg.tensor(1), mg.tensor(1, dtype=mg.int32), np.int64(1), np.array(1), mg.tensor(-2)):
        x = mg.zeros(3)
        x[i].add_(5)
        assert x.tolist() == [0, 5, 0]
        y = mg.zeros(3, 3)
        y[i, 1:].add_(1)
        y[0, i] = 7
        assert y.tolist() == [[0, 7, 0], [0, 1, 1], [0, 0, 0]]
    with pytest.raises(IndexError):
        mg.zeros(3)[mg.tensor(3)]
    assert mg.zeros(3)[mg.tensor(1, dtype=mg.uint8)].shape == (1, 3)         # a mask


def test_data_has_a_version_of_its_own():
    w = leaf(1.0)
    y = (w * w).sum()
    w.data.mul_(2)
    assert w._version == 0 and w.tolist() == [2]
    y.backward()
    assert w.grad.tolist() == [4]
    w.data = mg.tensor([3.0], dtype=mg.float64)
    assert w._version == 0
    w.detach().add_(1)
    assert w._version == 1 and w.tolist() == [4]


# ---- hooks, functions, capture, memory -------------------------------------------------------------------------------

def test_hooks_belong_to_the_value_they_were_registered_on():
    seen = []
    x = leaf(1.0, 2.0)
    y = x * 1
    y.register_hook(lambda g: seen.append(("before", g.tolist())))
    y.mul_(3)
    y.register_hook(lambda g: seen.append(("after", g.tolist())))
    y.retain_grad()
    y.add_(1)
    (y * 2).sum().backward()
    assert seen == [("after", [2, 2]), ("before", [6, 6])] and y.grad.tolist() == [2, 2]


class Doubled(autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, g):
        return g * 2


def test_mark_dirty():
    x = leaf(1.0, 2.0, 3.0)
    y = x * 1
    assert Doubled.apply(y) is y and y.grad_fn.name() == "DoubledBackward"
    Doubled.apply(y[:2])
    y.sum().backward()
    assert y.tolist() == [4, 8, 6] and x.grad.tolist() == [4, 4, 2]
    with pytest.raises(RuntimeError, match="leaf Variable"):
        Doubled.apply(leaf(1.0))
    plain = mg.ones(2)
    assert Doubled.apply(plain) is plain and plain.tolist() == [2, 2]


def test_an_output_that_lies_in_an_input_is_refused():
    class Same(autograd.Function):
        forward = staticmethod(lambda ctx, x, several: (x[:], x + 1) if several else x[:])
        backward = staticmethod(lambda ctx, *gs: (gs[0], None))
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="This view was created inside a custom Function"):
        Same.apply(x * 1, False).add_(1)
    with pytest.raises(RuntimeError, match="multiple views"):
        Same.apply(x * 1, True)[0].add_(1)


def test_backward_with_create_graph_warns_of_cycles():
    x = leaf(2.0)
    with pytest.warns(UserWarning, match="create_graph=True.*reference cycle"):
        (x ** 3).sum().backward(create_graph=True)
    g, x.grad = x.grad, None
    assert g.tolist() == [12] and g.requires_grad
    g.sum().backward()
    assert x.grad.tolist() == [12]
    x.grad = None


def test_inside_a_captured_step():
    def step(x, w):
        out = mg.zeros(3, 2)
        h = x
        for t in range(3):
            h = (h * w).tanh()
            out[t] = h
        out[1:].mul_(2)
        out[mg.tensor([0, 2])] += 1
        out.masked_fill_(out > 1.2, 0.5)
        return out, autograd.grad(out.sum(), w)[0]
    captured = mg.capture(step)
    for seed in range(3):
        x, w = (mg.tensor(np.random.default_rng(seed + k).normal(size=2).astype(np.float32)) for k in (0, 10))
        w.requires_grad_()
        for _ in range(2):
            for ours, eager in zip(captured(x, w), step(x, w), strict=True):
                assert ours.tolist() == eager.tolist()


def test_a_captured_index_follows_its_value():
    step = mg.capture(lambda x, i: x[i] * 2)
    x = mg.tensor([1.0, 2.0, 3.0])
    assert [step(x, mg.tensor(i)).item() for i in (0, 2, 1, 2)] == [2, 6, 4, 6]


def test_rows_written_one_by_one():
    """The usual loop over time: each row is a function of the one before."""
    w = leaf(0.5)
    out = mg.zeros(20, 1, dtype=mg.float64)
    h = mg.ones(1, dtype=mg.float64)
    for t in range(20):
        h = h * w
        out[t] = h
    out.sum().backward()
    assert np.allclose(w.grad.tolist(), sum((t + 1) * 0.5 ** t for t in range(20)))


@pytest.mark.parametrize("op, number", [("div", 8.0), ("div", np.sqrt(64)), ("pow", 2.5), ("div", mg.tensor(8.0)), ("pow", mg.tensor([2.0, 3.0, 1.0]))])
def test_a_result_that_no_gradient_needs_may_be_changed(op, number):
    """Scores are divided by a number and then masked in place. The result is kept only for the gradient of the other operand."""
    x = mg.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    y = getattr(x, op)(number)
    assert getattr(y.grad_fn, "_saved_result", None) is None
    y.masked_fill_(mg.tensor([True, False, False]), 0.0)
    y.sum().backward()
    want = mg.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    getattr(want, op)(number).sum().backward()
    assert x.grad.tolist() == [[0.0, *want.grad.tolist()[0][1:]]]
    if op == "pow":
        by = mg.tensor([2.0, 3.0, 1.0], requires_grad=True)
        z = x.detach().pow(by)
        assert z.grad_fn._saved_result is not None
        z.masked_fill_(mg.tensor([True, False, False]), 0.0)
        with pytest.raises(RuntimeError, match="a change of the output"):
            z.sum().backward()


@pytest.mark.parametrize("f", [lambda a, b: a / b, lambda a, b: 2 / b, lambda a, b: a ** 0.5, lambda a, b: a ** -0.5, lambda a, b: a ** -1,
                               lambda a, b: a.var(), lambda a, b: mg.std_mean(a)[1], lambda a, b: sum(mg.var_mean(a)),
                               lambda a, b: (a - a.mean()) / a.std(), lambda a, b: mg.nn.functional.normalize(a, dim=0)])
def test_results_whose_derivative_needs_the_operands_only(f):
    """The usual norm by hand: y = (x - mean) / std; y *= weight; y += bias."""
    found = []
    for in_place in (True, False):
        a, b, w = (mg.tensor(v, requires_grad=True) for v in ([0.3, 0.5, 0.9], [0.2, 0.7, 0.4], 3.0))
        y = f(a, b)
        if in_place:
            y *= w
            y += 1
        else:
            y = y * w + 1
        (y * y).sum().backward()
        found.append([None if t.grad is None else t.grad.tolist() for t in (a, b, w)])
    assert found[0] == found[1]


def test_both_results_of_var_mean_may_be_changed():
    x = mg.tensor([0.3, 0.5, 0.9], requires_grad=True)
    var, mean = mg.var_mean(x)
    var.mul_(2)
    mean.mul_(3)
    (var + mean).backward()
    assert np.allclose(x.grad.tolist(), [2 * (v - 1.7 / 3) + 1 for v in (0.3, 0.5, 0.9)])


def test_a_long_chain_behind_a_change_is_freed_at_once():
    """A value that was computed from the tensor itself, by many ops, is written into it: no cycle keeps the graph."""
    w = leaf(0.5)

    def whole():
        x = mg.ones(2, 3, dtype=mg.float64) * w
        y = x
        for _ in range(200):
            y = (y * w).sin()
        x.copy_(y)
        return x

    def rows():
        x = mg.zeros(5, 3, dtype=mg.float64)
        for i in range(1, 5):
            y = x[i - 1]
            for _ in range(100):
                y = (y * w).sin()
            x[i] = y
        return x
    for make in (whole, rows):
        gc.collect()
        gc.disable()
        try:
            x = make()
            nodes = [weakref.ref(x.grad_fn), *[weakref.ref(n) for n, _ in x.grad_fn.next_functions if n is not None]]
            del x
            assert [r() for r in nodes] == [None] * len(nodes)
        finally:
            gc.enable()
