"""A trace of what runs on the GPU."""
from __future__ import annotations

import pytest
from cuda_on_cpu.twins import emulated

import minigrad as mg
from minigrad import optim, study
from minigrad.devices.base import split
from minigrad.nn import functional as F

pytestmark = [emulated, pytest.mark.slow]


def test_a_trace_reads_plans_of_the_device(gpu):
    x = mg.randn(4, 6).to("cuda").requires_grad_()
    with study.trace() as t:
        F.layer_norm(x, (6,)).exp().sum().backward()
    flops = {split(k.kernel)[0]: k.flops for k in t.launches if k.flops is not None}
    assert flops["layer_norm_forward"] == 6 * 24 and flops["exp"] == 24 and flops["sum"] == 24 and flops["layer_norm_backward"] == 9 * 24
    assert {o.device.type for k in t.launches for o in k.operands if o is not None} == {"cuda"}
    assert all(k.time > 0 for k in t.launches)


def test_a_profile_counts_a_written_update(gpu):
    """ASGD keeps one array for each parameter, and two numbers, which count as nothing: p and it move twice, g once. A weight decay of 0 is no pass."""
    p = mg.ones(300, device="cuda", requires_grad=True)
    optimizer, p.grad = optim.ASGD([p]), mg.ones(300, device="cuda")
    optimizer.step()
    with study.trace() as trace:
        optimizer.step()
    [launch] = [k for k in trace.launches if k.kernel.startswith("asgd_update")]
    assert (launch.nbytes, launch.flops) == (5 * 300 * 4, 7 * 300)
