"""Matrix products of cuBLAS against the C kernel."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import fakeblas, nvrtc
from cuda_on_cpu.twins import DTYPES, REAL, Plan, compare, emulated, values

import minigrad as mg
from minigrad.devices import blas, cuda
from minigrad.nn import functional as F

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_gemm(suffix):
    t = DTYPES[suffix]
    for m, n, k in ((3, 4, 5), (1, 7, 33), (31, 1, 4), (1, 1, 1), (5, 6, 0), (0, 3, 4)):
        a, b, c, bias = values(t, max(m * k, 1) * 2), values(t, max(n * k, 1) * 2), values(t, max(m * n, 1) + 40), values(t, n)
        for ars, acs in ((k, 1), (1, m), (2 * k, 2)):
            for brs, bcs in ((n, 1), (1, k), (2 * n, 2)):
                for given, accumulate in ((bias, 0), (None, 1)):
                    compare(f"gemm_{suffix}", c, a, b, given, None, 1, m, n, k, ars, acs, brs, bcs, n, accumulate, ulps=64)
        if m > 1:
            compare(f"gemm_{suffix}", values(t, m * (n + 3)), a, b, bias, None, 1, m, n, k, k, 1, n, 1, n + 3, 0, ulps=64)


def test_gemm_batches():
    m, n, k, t = 3, 4, 5, np.float32
    a, b = values(t, (6, m, k)), values(t, (6, k, n))
    steps = {"even": [(i * 12, i * 15, i * 20) for i in range(6)], "one a for all": [(i * 12, 0, i * 20) for i in range(6)],
             "reversed": [(i * 12, (5 - i) * 15, i * 20) for i in range(6)],
             "two by three": [(i * 12, i // 3 * 15, i % 3 * 20) for i in range(6)],
             "three by two": [(i % 3 * 24 + i // 3 * 12, i // 3 * 45 + i % 3 * 15, i % 3 * 20) for i in range(6)],
             "a row that is not even": [(i * 12, (i + i // 5) * 15 % 90, i % 3 * 20) for i in range(6)],
             "any": [(i * 12, i * i % 6 * 15, i * 20) for i in range(6)]}
    calls = {"reversed": ["table"], "any": ["table"], "a row that is not even": ["table"],
             "two by three": ["strided batch"] * 2, "three by two": ["strided batch"] * 2}
    for name, offsets in steps.items():
        fakeblas.calls.clear()
        places = Plan(*[o for row in offsets for o in row])
        compare("gemm_f32", values(t, 72), a, b, values(t, n), places, 6, m, n, k, k, 1, n, 1, n, 0, ulps=64)
        if not REAL:
            assert fakeblas.calls == calls.get(name, ["strided batch"]), name
        compare("gemm_f32", values(t, 72), np.repeat(a, 2), b, None, Plan(*[o for c, x, y in offsets for o in (c, 2 * x, y)]),
                6, m, n, k, 2 * k, 2, n, 1, n, 1, ulps=64)


def test_heads_of_attention_are_one_call(gpu):
    """q k' with heads that lie side by side in memory, (B, L, H, d): each item has its own place, and no fixed step leads to it."""
    q, k = (mg.tensor(values(np.float32, (5, 6, 4, 3)), device=gpu).transpose(1, 2) for _ in range(2))
    want = q.cpu() @ k.cpu().mT
    for _ in range(2):                          # the second time without any decision
        fakeblas.calls.clear()
        got = q @ k.mT
        assert REAL or fakeblas.calls == ["table"]
        np.testing.assert_allclose(got.cpu().numpy(), want.numpy(), rtol=1e-5, atol=1e-5)
    k = k[:, :, ::2]                            # with no stride of 1 along the rows: neighbours there are 24 apart
    np.testing.assert_allclose((k.mT @ q[:, :, ::2]).cpu().numpy(), (k.cpu().mT @ q.cpu()[:, :, ::2]).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(REAL, reason="counts calls of Python")
def test_a_product_is_decided_once(gpu, monkeypatch):
    """Then a call costs the same, for however many items of a batch: it looks the steps up, and runs them."""
    q = mg.tensor(values(np.float32, (5, 6, 4, 3)), device=gpu).transpose(1, 2)
    q @ q.mT
    monkeypatch.setattr(blas.Gemm, "_steps", lambda *_: pytest.fail("decided again"))
    assert (q @ q.mT).shape == (5, 4, 6, 6)


@pytest.mark.skipif(REAL, reason="counts the calls of the stand-in for cuBLAS")
@pytest.mark.parametrize("dtype", [mg.float32, mg.float16, mg.bfloat16], ids=str)
def test_a_bias_is_added_by_the_product(dtype, gpu, monkeypatch):
    """One launch; two where cuBLASLt has no algorithm, is missing, or an address is not a multiple of 16. Half precision is rounded once."""
    x, w, b, far = (mg.tensor(values(np.float32, s)).to(dtype) for s in ((8, 12), (20, 12), (20,), (21,)))
    product = x.double().numpy() @ w.double().numpy().T
    want = [mg.tensor(product + bias.double().numpy()).float().to(dtype).float().numpy() for bias in (b, far[1:])]

    def linear(bias, expected, calls):
        fakeblas.calls.clear()
        got = F.linear(x.to(gpu), w.to(gpu), bias)
        close = 1e-5 if dtype == mg.float32 else 0
        np.testing.assert_allclose(got.float().cpu().numpy(), expected, rtol=close, atol=close)
        assert fakeblas.calls == [calls]
    for _ in range(2):
        linear(b.to(gpu), want[0], "bias")
    linear(far.to(gpu)[1:], want[1], "one")
    gemm = gpu.kernels.gemm[dtype].function
    monkeypatch.setattr(fakeblas, "cublasLtMatmulAlgoGetHeuristic", lambda *_: 15)
    monkeypatch.setattr(gemm, "plans", {})
    linear(b.to(gpu), want[0], "one")
    monkeypatch.setattr(blas, "light", False)
    monkeypatch.setattr(gemm, "plans", {})
    linear(b.to(gpu), want[0], "one")


def test_the_table_of_pointers_compiles_with_nvrtc():
    try:
        used = nvrtc.resources(cuda.source("gemm_pointers.cu"), "sm_90", cuda.options("", "gemm_pointers"))
    except ImportError as e:
        pytest.skip(str(e))
    assert used["gemm_pointers"].spill == 0 and used["gemm_pointers"].registers <= 64
