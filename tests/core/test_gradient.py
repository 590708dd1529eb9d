"""`.grad` and `requires_grad`: what may be assigned, and what reading them says."""
from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


def leaf(*values):
    return mg.tensor(values or (1.0, 2.0), requires_grad=True)


@pytest.mark.parametrize("make", [leaf, lambda: mg.ones(2), lambda: nn.Parameter(mg.ones(2)), lambda: leaf() * 2])
@pytest.mark.parametrize("value, kind, text", [
    (5, TypeError, "must be a tensor or None; got int"), (np.ones(2, np.float32), TypeError, "got ndarray"), ([1.0, 2.0], TypeError, "got list"),
    (mg.ones(3), RuntimeError, r"the shape of the tensor; got float32\[2\], float32\[3\]"), (mg.ones(1, 2), RuntimeError, "shape"),
    (mg.ones(2, dtype=mg.float64), RuntimeError, "dtype"), (mg.ones(2, dtype=mg.int64), RuntimeError, "dtype"), (mg.ones(2).half(), RuntimeError, "dtype")])
def test_an_assigned_gradient_is_checked(make, value, kind, text):
    x = make()
    for assign in (lambda: setattr(x, "grad", value), lambda: x.__setattr__("grad", value)):
        with pytest.raises(kind, match=r"\[grad\] an assigned gradient .*" + text):
            assign()
    x.grad = g = mg.ones(1).expand(2)
    assert x.grad is g
    del x.grad
    assert x._grad is None
    with pytest.raises(RuntimeError, match="its own gradient"):
        x.grad = x
    x.grad = None


def test_an_assigned_gradient_is_added_to():
    x = leaf()
    x.grad = mg.tensor([10.0, 20.0])
    (x * 2).sum().backward()
    assert x.grad.tolist() == [12, 22]
    i = mg.tensor([1, 2])
    i.grad = mg.tensor([3, 4])
    assert i.grad.tolist() == [3, 4]


def test_requires_grad_is_checked():
    i = mg.tensor([1, 2])
    for change in (lambda: setattr(i, "requires_grad", True), lambda: i.requires_grad_(), lambda: mg.tensor([1, 2], requires_grad=True),
                   lambda: mg.zeros(2, dtype=mg.int64, requires_grad=True), lambda: nn.Parameter(i), lambda: mg.ones(2, dtype=mg.bool, requires_grad=True),
                   lambda: setattr(nn.Parameter(i, requires_grad=False), "requires_grad", True)):
        with pytest.raises(RuntimeError, match="floating-point"):
            change()
    i.requires_grad = False
    y = leaf() * 2
    for value in (False, True):
        with pytest.raises(RuntimeError, match=r"\[requires_grad\] .*leaf"):
            y.requires_grad = value
    with pytest.raises(RuntimeError, match="only a leaf"):
        y.requires_grad_(False)
    assert y.requires_grad_() is y and y.requires_grad and y.grad_fn is not None
    x = mg.ones(2)
    for value in (1, None, "yes", mg.tensor(True)):
        for of in (x, y):
            with pytest.raises(RuntimeError, match=r"\[requires_grad\] must be a bool; got [^;]*$"):
                of.requires_grad = value
            with pytest.raises(TypeError, match="bool"):
                of.requires_grad_(value)
    assert not x.requires_grad
    x.requires_grad = True
    assert (x * 2).requires_grad


def test_reading_the_gradient_of_a_result_warns():
    x = leaf()
    y = x * 2
    with pytest.warns(UserWarning, match=r"\[grad\] .*not a leaf"):
        assert y.grad is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.grad is None and y.detach().grad is None
        y.retain_grad()
        assert y.grad is None
        y = x * 2
        y.grad = mg.ones(2)
        assert y.grad.tolist() == [1, 1]


def test_a_leaf_that_was_frozen_after_forward_gets_no_gradient():
    x, z = leaf(), leaf(3.0, 4.0)
    called = []
    x.register_post_accumulate_grad_hook(called.append)
    y = (x * z).sum()
    x.requires_grad_(False)
    y.backward()
    assert x.grad is None and not called and z.grad.tolist() == [1, 2]


def test_numpy_under_no_grad():
    w = nn.Linear(2, 1).weight
    y = w * 2
    for t in (w, y):
        with pytest.raises(RuntimeError, match="part of a graph"):
            t.numpy()
        with mg.no_grad():
            for array in (t.numpy(), np.asarray(t), np.array(t)):
                assert array.shape == (1, 2) and array.tolist() == t.tolist()
            assert np.shares_memory(t.numpy(), t.detach().numpy())
