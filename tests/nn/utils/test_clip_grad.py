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
    with pytest.raises(NotImplementedError, match="foreach"):
        nn.utils.clip_grad_norm_(p, 1.0, foreach=True)
    with pytest.warns(UserWarning, match="empty generator"):
        nn.utils.clip_grad_norm_((q for q in []), 1.0)
