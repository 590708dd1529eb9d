"""Gradient clipping."""
from __future__ import annotations

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


def array(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf, 0.5])
def test_clipping_is_pytorchs(torch, norm_type):
    arrays = [array(3, 4), array(5, seed=1), array(2, 2, seed=2)]
    for limit in (0.5, 1000.0):
        mine, theirs = [nn.Parameter(mg.tensor(a)) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
        for p, q, a in zip(mine[:2], theirs, arrays, strict=False):
            p.grad, q.grad = mg.tensor(a), torch.tensor(a)
        total = nn.utils.clip_grad_norm_(mine, limit, norm_type)
        np.testing.assert_allclose(total.item(), torch.nn.utils.clip_grad_norm_(theirs, limit, norm_type).item(), rtol=1e-5)
        for p, q in zip(mine[:2], theirs, strict=False):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)
        nn.utils.clip_grad_value_(iter(mine), 0.1), torch.nn.utils.clip_grad_value_(theirs, 0.1)
        for p, q in zip(mine[:2], theirs, strict=False):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)


def test_clipping_manners():
    p = nn.Parameter(mg.ones(2))
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == 0.0 and nn.utils.clip_grad_norm_(p, 1.0).item() == 0.0
    p.grad = mg.tensor([math.inf, 1.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    p.grad = mg.tensor([3.0, 4.0])
    assert nn.utils.clip_grad_norm_(p, 1.0, foreach=True).item() == 5 and nn.utils.get_total_norm([p.grad], foreach=True).item() <= 1
    nn.utils.clip_grad_value_(p, 0.5, foreach=True)
    assert p.grad.max().item() == 0.5
    with pytest.warns(UserWarning, match="empty generator"):
        nn.utils.clip_grad_norm_((q for q in []), 1.0)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
def test_gradients_of_half_precision(torch, norm_type):
    """PyTorch's dtypes, and its values where its float16 does not overflow; several dtypes at once too."""
    pytest.importorskip("ml_dtypes")
    for kinds in (["float16"], ["bfloat16", "bfloat16"], ["float16", "bfloat16"], ["float16", "float32"]):
        results = []
        for lib, clip in ((mg, nn.utils.clip_grad_norm_), (torch, torch.nn.utils.clip_grad_norm_)):
            found = [lib.zeros(40).to(getattr(lib, kind)).requires_grad_() for kind in kinds]
            for k, p in enumerate(found):
                p.grad = lib.tensor(array(40, seed=k).tolist()).to(getattr(lib, kinds[k]))
            total = clip(found, 0.5, norm_type)
            results.append((str(total.dtype).rpartition(".")[2], total.item(), [(str(p.grad.dtype).rpartition(".")[2], p.grad.tolist()) for p in found]))
        (dtype, total, grads), (dtype_t, total_t, grads_t) = results
        assert dtype == dtype_t and [g[0] for g in grads] == [g[0] for g in grads_t]
        np.testing.assert_allclose(total, total_t, rtol=4e-3)
        for (_, a), (_, b) in zip(grads, grads_t, strict=True):
            np.testing.assert_allclose(a, b, rtol=8e-3)


def test_norms_of_half_precision_do_not_overflow():
    p = nn.Parameter(mg.ones(1000, dtype=mg.float16))
    p.grad = mg.full((1000,), 20.0, dtype=mg.float16)
    assert nn.utils.get_total_norm([p.grad]).item() == nn.utils.clip_grad_norm_([p], 1.0).item() == 632.5
    assert p.grad.dtype == mg.float16 and p.grad[0].item() == float(np.float16(0.0316228))
    p.grad = mg.full((1000,), 60000.0, dtype=mg.float16)
    assert nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True).item() == math.inf       # the norm, 1.9e6, as float16
    assert p.grad[0].item() == float(np.float16(0.0316228))
    nn.utils.clip_grad_value_([p], 0.03)
    assert p.grad[0].item() == float(np.float16(0.03)) and p.grad.dtype == mg.float16


def test_the_norm_of_integers_is_refused():
    """It would be cut off."""
    with pytest.raises(RuntimeError, match="floating-point"):
        nn.utils.get_total_norm([mg.tensor([1, 2])])


def test_gradients_are_clipped_by_a_norm_of_more(torch):
    found = []
    for lib in (mg, torch):
        ps = [lib.nn.Parameter(lib.zeros(n)) for n in (3, 2, 1)]
        for p, g in zip(ps[:2], ([3.0, 0.0, 4.0], [1.0, 2.0]), strict=True):
            p.grad = lib.tensor(g)
        total = lib.nn.utils.get_total_norm([p.grad for p in ps[:2]])
        assert lib.nn.utils.clip_grads_with_norm_(ps, 1.0, total) is None
        lib.nn.utils.clip_grads_with_norm_(ps[0], 100.0, total)
        found.append([p.grad.numpy() for p in ps[:2]])
        assert ps[2].grad is None
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
