"""What backward and grad promise."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd, nn
from minigrad.core import engine


def leaf(*values):
    return mg.tensor(values, dtype=mg.float64, requires_grad=True)


def test_accumulates():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5, 7]


def test_long_chains_do_not_recurse():
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = y + x
    y.sum().backward()
    assert x.grad.tolist() == [50_001]
    del y


def test_diamonds_are_walked_once():
    x = leaf(1.0)
    y = x
    for _ in range(200):
        y = y + y           # 2^200 paths
    y.sum().backward()
    assert x.grad.item() == 2.0 ** 200


def test_two_leaves_never_share_a_gradient():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    g = mg.tensor([1.0, 1.0], dtype=mg.float64)
    (x + y).backward(g)
    with mg.no_grad():
        x.grad.mul_(5)
    assert y.grad.tolist() == [1, 1] and g.tolist() == [1, 1]


def test_second_backward_names_the_cure():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_what_saves_nothing_survives_a_backward():
    x = leaf(1.0, 2.0)
    h = (x + 1).view(2, 1).t().expand(3, 2).sum(0)
    (h * 2).sum().backward()
    (h * 3).sum().backward()
    assert x.grad.tolist() == [15, 15]
    x.grad = None
    for part in (*x.unbind(), *x.split(1), mg.cat([x, x]).sum(), mg.stack([x, -x])[0, 1]):
        part.backward()
    assert x.grad.tolist() == [4, 5]
    m = leaf(1.0, 2.0)
    shared = m + 1
    first, second = (shared * m).sum(), (shared - 1).sum()
    first.backward()
    second.backward()
    assert m.grad.tolist() == [4, 6]
    with pytest.raises(RuntimeError, match="mul has nothing saved; pass retain_graph=True"):
        first.backward()


def test_grad_runs_only_what_leads_to_an_input():
    x, other = leaf(1.0), leaf(2.0)
    ran = []

    class Id(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            ran.append(1)
            return g
    y = Id.apply(x)
    y.register_hook(lambda g: ran.append(2))
    assert autograd.grad(y, other, allow_unused=True) == (None,) and not ran
    y.backward(inputs=[other])
    assert other.grad is None and x.grad is None and not ran
    assert autograd.grad([y, other * 3], other)[0].item() == 3 and not ran
    assert autograd.grad(Id.apply(other) + y, other)[0].item() == 1 and ran == [1]
    assert autograd.grad(y, y)[0].item() == 1 and ran == [1, 2]


def test_retain_graph():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 8]


def test_backward_on_many_elements():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="scalar.*float64"):
        (x * 2).backward()
    (x * 2).backward(mg.tensor([1.0, 10.0], dtype=mg.float64))
    assert x.grad.tolist() == [2, 20]
    with pytest.raises(RuntimeError, match="shape"):
        (x * 2).backward(mg.ones(3))


def test_backward_without_graph():
    with pytest.raises(RuntimeError, match="does not require"):
        mg.ones(1).backward()


@pytest.mark.parametrize("change", [lambda t: t.mul_(2), lambda t: t.zero_(), lambda t: t[0:1].add_(1), lambda t: t.view(2, 1).copy_(mg.ones(2, 1))])
def test_stale_saved_tensor(change):
    x = leaf(1.0, 2.0)
    w = mg.tensor([1.0, 2.0], dtype=mg.float64)
    y = (x * w).sum()
    change(w)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_stale_output():
    x = leaf(1.0, 2.0)
    y = x.exp()
    z = y.sum()
    with mg.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_unused_change_is_fine():
    x = leaf(1.0, 2.0)
    w = mg.tensor([1.0, 2.0], dtype=mg.float64)
    y = (x + w).sum()       # the derivative of + uses neither
    w.mul_(2)
    y.backward()


def test_grad_leaves_dot_grad_alone():
    x, y = leaf(2.0), leaf(3.0)
    z = x * y
    gx, gy = autograd.grad(z.sum(), [x, y])
    assert gx.item() == 3 and gy.item() == 2 and x.grad is None


@pytest.mark.parametrize("hooked", [False, True])
def test_a_walk_returns_the_gradients_of_all_leaves_that_it_did_not_deposit(hooked):
    x, y = leaf(2.0), leaf(3.0)
    if hooked:
        x.register_hook(lambda g: g * 10)               # x is complete early then
    found = engine.walk([(x * y).node], [leaf(1.0).detach()], False, False)
    assert {edge: g.tolist() for edge, g in found.items()} == {x: [30 if hooked else 3], y: [2]} and x.grad is None
    deposited = []
    found = engine.walk([(x * y).node], [leaf(1.0).detach()], False, False, deposit=lambda edge, g: deposited.append((edge, g.item())))
    assert (deposited, list(found)) == (([(x, 30), (y, 2)], []) if hooked else ([], [x, y]))


def test_grad_of_intermediate():
    x = leaf(2.0)
    y = x * x
    z = (y * y).sum()
    gy, gx = autograd.grad(z, [y, x])
    assert gy.item() == 8 and gx.item() == 32


def test_grad_unused():
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match="allow_unused"):
        autograd.grad((x * 2).sum(), [x, y])
    assert autograd.grad((x * 2).sum(), [x, y], allow_unused=True)[1] is None
    assert autograd.grad((x * 2).sum(), [x, y], materialize_grads=True)[1].tolist() == [0]
    assert not autograd.grad((x * 2).sum(), [x, y], materialize_grads=True)[1].requires_grad
    g = autograd.grad((x * 2).sum(), [x, y], create_graph=True, materialize_grads=True)[1]
    assert g.requires_grad and autograd.grad(g.sum(), y, allow_unused=True) == (None,)


def test_inputs_of_grad_and_backward():
    x, y = leaf(1.0), leaf(2.0)
    h = x * y
    for inputs, text in (([], "cannot be empty"), ((), "cannot be empty"), ([x.detach()], "input 0 does not require"), ([x, 5], "input 1 must be a tensor; got int")):
        with pytest.raises(RuntimeError, match=r"\[autograd.grad\] .*" + text):
            autograd.grad(h, inputs)
        with pytest.raises(RuntimeError, match=r"\[backward\] .*" + text):
            h.backward(inputs=inputs)
    assert [g.item() for g in autograd.grad(h, (t for t in (x, y)), retain_graph=True)] == [2, 1]
    (h * 3).backward(inputs=[h, x, x], retain_graph=True)
    assert h.grad.item() == 3 and h.retains_grad and x.grad.item() == 6 and y.grad is None
    h.backward(inputs=(t for t in [y]), retain_graph=True)
    h.backward(inputs=y, retain_graph=True)
    autograd.backward(h, inputs=y)
    assert y.grad.item() == 3 and x.grad.item() == 6


@pytest.mark.parametrize("seed", [5.0, "a", np.ones(1), [1.0]])
def test_what_grad_starts_from_is_checked(seed):
    x = leaf(1.0)
    with pytest.raises(TypeError, match=r"gradients can be tensors or None; got"):
        autograd.grad(x * 2, x, [seed])
    with pytest.raises(TypeError, match=r"gradients can be tensors or None; got"):
        autograd.backward([x * 2], [seed])
    for dtype in (mg.float32, mg.int64, mg.float64):
        assert autograd.grad(x * 2, x, mg.ones(1, dtype=dtype))[0].dtype == mg.float64


def test_pytorchs_order_of_arguments_of_grad():
    x, y = leaf(1.0), leaf(2.0)
    assert autograd.grad((x * 2).sum(), [x, y], None, None, False, True, True)[1] is None       # only_inputs, allow_unused
    with pytest.raises(NotImplementedError, match="only_inputs"):
        autograd.grad((x * 2).sum(), x, only_inputs=False)


@pytest.mark.parametrize("order, expected", [(1, 32.0), (2, 48.0), (3, 48.0), (4, 24.0)])
def test_any_order(order, expected):
    x = leaf(2.0)
    y = (x * x * x * x).sum()
    for _ in range(order):
        y, = autograd.grad(y, x, create_graph=True, materialize_grads=True)
        y = y.sum()
    assert y.item() == expected


def test_same_tensor_twice_in_a_fused_op():
    x = mg.tensor(np.random.default_rng(0).standard_normal((4, 5)), requires_grad=True)

    def f(x):
        return nn.functional.linear(x, x)       # x x^T
    assert autograd.gradcheck(f, x) and autograd.gradgradcheck(f, x)


def test_input_computed_from_another_input():
    x = mg.tensor(np.random.default_rng(0).standard_normal((6, 3)), requires_grad=True)

    def f(x):
        return nn.functional.layer_norm(x, (3,), (x * x).sum(0), x[0])
    assert autograd.gradcheck(f, x) and autograd.gradgradcheck(f, x)


def test_broadcast_and_promotion_are_undone():
    x = mg.ones(3, 1, requires_grad=True)
    y = mg.ones(4, dtype=mg.float64, requires_grad=True)
    (x * y).sum().backward()
    assert x.grad.dtype == mg.float32 and x.grad.tolist() == [[4.0]] * 3 and y.grad.dtype == mg.float64 and y.grad.tolist() == [3.0] * 4


def test_errors_inside_backward_leave_the_modes_alone():
    x = leaf(1.0)
    x2 = x * 2
    x2.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        x2.sum().backward()
    assert mg.is_grad_enabled()


def test_stale_output_of_a_fused_op():
    x = leaf(1.0, 2.0)
    y = x.softmax(0)
    z = (y * 2).sum()
    with mg.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_an_index_is_kept_privately():
    values = np.array([0, 1])
    x = leaf(1.0, 2.0)
    y = x[mg.from_numpy(values)]
    values[:] = 10**9
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_a_gradient_kept_by_a_hook_is_not_dot_grad():
    x, kept = leaf(1.0), []
    x.register_hook(kept.append)
    y = x + 1
    y.retain_grad()
    y.sum().backward()
    x.grad.zero_()
    assert kept[0].item() == 1 and y.grad.item() == 1
