"""gradcheck and gradgradcheck."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd
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
