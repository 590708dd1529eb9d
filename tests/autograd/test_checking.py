"""gradcheck and gradgradcheck."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd, nn
from minigrad.autograd.function import Function

A = np.random.default_rng(0).standard_normal((3, 4))


def function(backward=None, forward=None):
    return type("Mine", (Function,), {"forward": staticmethod(forward or (lambda ctx, x: x * 2)), "backward": staticmethod(backward or (lambda ctx, g: g))})


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


def test_gradcheck_sees_a_wrong_gradient():
    x = mg.tensor([1.0, 2.0], dtype=mg.float64, requires_grad=True)
    assert not autograd.gradcheck(lambda x: x * x.detach(), x, raise_exception=False)
    with pytest.raises(autograd.GradcheckError, match="analytical"):
        autograd.gradcheck(lambda x: x * x.detach(), x)


def double(*shape):
    return mg.tensor(np.random.default_rng(1).standard_normal(shape), requires_grad=True)


@pytest.mark.parametrize("fast", [False, True])
def test_the_given_tensors_are_moved(fast):
    m, x = nn.Linear(2, 1).double(), double(3, 2)
    before = [t.tolist() for t in (x, *m.parameters())]
    for check in (autograd.gradcheck, autograd.gradgradcheck):
        assert check(lambda x, *_: m(x), (x, *m.parameters()), fast_mode=fast)              # a closure
        assert check(lambda *p: m(x).square(), tuple(m.parameters()), fast_mode=fast)
        t = double(2)
        assert check(lambda a, b: a * b, (t, t), fast_mode=fast)                            # one tensor twice
        column = double(3, 2)[:, 0].detach().requires_grad_()
        assert not column.is_contiguous() and check(lambda a: a ** 3, column, fast_mode=fast)
        inner = t * 1
        assert check(lambda a: a ** 2, inner, fast_mode=fast)
        assert check(lambda a: a.prod(), double().detach().requires_grad_(), fast_mode=fast)        # 0-d

        def hooked(a):
            y = a * a
            y.register_hook(lambda g: g * 1)
            return y * a
        assert check(hooked, t, fast_mode=fast)
    assert [t.tolist() for t in (x, *m.parameters())] == before and all(t.grad is None for t in (x, *m.parameters()))
    wrong = double(2)
    other = wrong.detach()
    assert not autograd.gradcheck(lambda a: a * other, wrong, fast_mode=fast, raise_exception=False)


@pytest.mark.parametrize("fast", [False, True])
def test_empty_inputs_and_outputs(fast):
    for check in (autograd.gradcheck, autograd.gradgradcheck):
        assert check(lambda a: a * 2 + a ** 2, double(0), fast_mode=fast) and check(lambda a, b: (a @ b, b * b), (double(0, 3), double(3, 2)), fast_mode=fast)
        assert check(lambda a: a.sum(), double(2, 0), fast_mode=fast) and check(lambda a: a[:0] * a[:0], double(3), fast_mode=fast)
        conv = nn.Conv1d(2, 3, 2).double()
        assert check(lambda x, *_: conv(x), (double(0, 2, 4), *conv.parameters()), fast_mode=fast)


@pytest.mark.parametrize("fast", [False, True])
def test_outputs_must_not_change_with_the_values(fast):
    x = mg.ones(1, dtype=mg.float64, requires_grad=True)
    for other in (lambda a: mg.cat([a, a]), lambda a: a.float(), lambda a: (a, a), lambda a: a[None]):
        with pytest.raises(autograd.GradcheckError, match="outputs with the same shape and dtype when inputs are perturbed"):
            autograd.gradcheck(lambda a, other=other: other(a) if bool((a >= 1).all()) else a, x, fast_mode=fast)
        assert x.tolist() == [1]


@pytest.mark.parametrize("fast", [False, True])
def test_what_else_gradcheck_notices(fast):
    x = double(2)
    with pytest.raises(autograd.GradcheckError, match="Jacobian mismatch for output 1 with respect to input 0"):
        autograd.gradcheck(lambda a: (a * 2, a * a.detach()), x, fast_mode=fast)
    with pytest.raises(autograd.GradcheckError, match="Backward is not reentrant"):
        autograd.gradcheck(function(lambda ctx, g: g * 2 * (1 + 1e-9 * mg.rand(1, dtype=mg.float64))).apply, x, fast_mode=fast)
    assert autograd.gradcheck(function(lambda ctx, g: g * 2 * (1 + 1e-9 * mg.rand(1, dtype=mg.float64))).apply, x, fast_mode=fast, nondet_tol=1e-6)
    with pytest.raises(autograd.GradcheckError, match="Jacobian mismatch" if fast else "backward not multiplied by grad_output"):
        autograd.gradcheck(function(lambda ctx, g: (g * 0 + 1).reshape(1), lambda ctx, x: x.sum()).apply, double(1), fast_mode=fast)
    with pytest.raises(RuntimeError, match="must not have elements that share memory"):
        autograd.gradcheck(lambda a: a * 2, mg.ones(1, dtype=mg.float64).expand(3).requires_grad_(), fast_mode=fast)
    with pytest.raises(autograd.GradcheckError, match="Jacobian mismatch"):
        autograd.gradcheck(lambda a: a.detach() * 2, x, fast_mode=fast)
    assert autograd.gradcheck(lambda a: (a * 2, (a > 0), a.detach() * 0), x, fast_mode=fast)


def test_recurrent_layers_and_attention_are_checked_entry_by_entry():
    for layer, inputs in ((nn.LSTM(2, 2), (double(2, 1, 2),)), (nn.GRU(2, 2), (double(2, 1, 2),)), (nn.MultiheadAttention(2, 1), (double(2, 1, 2),) * 3)):
        layer.double()
        for check in (autograd.gradcheck, autograd.gradgradcheck):
            assert check(lambda *values, layer=layer, inputs=inputs: layer(*values[:len(inputs)])[0], (*inputs, *layer.parameters()))
