"""CUDA texts that an op brings with it."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import REAL, emulated

import minigrad as mg
from minigrad import study, testing
from minigrad.devices.launch import Launch

pytestmark = [emulated, pytest.mark.usefixtures("gpu", "own_registry")]
CUDA = """
KERNEL(REAL, hard_mish_forward, T *y, const T *x, int64_t n, double slope) {
  GRID_LOOP(i, n) {
    const T t = x[i] * (T)slope + 1;
    y[i] = x[i] * (t < 0 ? T(0) : t > 2 ? T(2) : t) / 2;
  }
}
KERNEL(REAL, hard_mish_backward, T *gx, const T *g, const T *x, int64_t n, double slope) {
  GRID_LOOP(i, n) {
    const T t = x[i] * (T)slope + 1;
    gx[i] = g[i] * (t < 0 ? T(0) : t > 2 ? T(2) : t + x[i] * (T)slope) / 2;
  }
}
"""


def make_hard_mish():
    @mg.op
    def hard_mish(x, *, slope=0.5):
        return x * (x * slope + 1).clamp(0, 2) / 2

    @hard_mish.samples
    def _(make):
        yield make(4, 33)
        yield make(7, low=-8, high=8), {"slope": 0.25}
    return hard_mish


def same_on_both(op, kernels):
    for on_cpu, on_cuda in zip(testing.samples_of(op, np.float64), testing.samples_of(op, np.float64, device="cuda"), strict=True):
        assert study.launches(op, *on_cuda[0], **on_cuda[1]) == kernels
        for a, b in zip(testing.evaluate(op, *on_cpu), testing.evaluate(op, *on_cuda), strict=True):
            for c, d in zip(a, b, strict=True):
                np.testing.assert_allclose(d, c, rtol=1e-12, atol=1e-12)


def test_a_text_for_cuda_alone():
    """On the CPU the definition runs. A launch rule is made of the arguments' names."""
    hard_mish = make_hard_mish()
    hard_mish.kernel("cuda", source=CUDA)
    same_on_both(hard_mish, ["hard_mish_forward_f64"])
    assert testing.check_op(hard_mish).checks["fused"] == "not checked: there are no kernels for the CPU"
    assert "the op has no kernels on cpu" in study.explain(hard_mish, mg.ones(3))
    x = mg.ones(3, device="cuda", requires_grad=True)
    assert "hard_mish_backward_f32" in study.launches(lambda: hard_mish(x).sum().backward())


def test_rows_and_a_launch_rule():
    text = """
KERNEL(REAL, centred_forward, T *y, const T *x, int64_t rows, int64_t n) {
  EACH_ROW(row, rows) {
    const Row line(x + row * n, n);
    T sum = 0;
    line.each([&](int64_t, T v) { sum += v; });
    const T mean = row_sum(sum) / n;
    line.each([&](int64_t j, T v) { y[row * n + j] = v - mean; });
  }
}
"""
    @mg.op
    def centred(x):
        return x - x.mean(-1, keepdim=True)

    @centred.samples
    def _(make):
        yield make(4, 33)
        yield make(2, 3, 1030)
    centred.kernel("cuda", source=text)
    same_on_both(centred, ["centred_forward_f64"])
    seen = []

    def rule(k, host):
        seen.append((k.rows, k.n))
        return [Launch("", (1,), (32, 1))]
    centred.kernel("cuda", source=text, launch=rule)
    centred(mg.ones(5, 7, device="cuda"))
    assert seen == [(5, 7)]
    centred.kernel("cuda", source="KERNEL(REAL, centred_forward, T *y, const T *x, int64_t rows) { (void)y; }")
    with pytest.raises(ValueError, match=r"\[centred_forward\] a CUDA kernel without an argument `n` needs a launch rule"):
        centred(mg.ones(5, 7, device="cuda"))


@pytest.mark.skipif(REAL, reason="the messages are those of g++")
def test_a_wrong_text_is_shown_with_its_line():
    hard_mish = make_hard_mish()
    hard_mish.kernel("cuda", source=CUDA.replace("n, double slope) {", "n, double slope) {\n  wrong;", 1))
    with pytest.raises(Exception, match=r"hard_mish.cu:3:.*wrong"):
        hard_mish(mg.ones(3, device="cuda"))
