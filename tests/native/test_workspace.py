"""How much work space the kernels need: the formulas of native/workspace.h, and kernels that stay within it."""
from __future__ import annotations

import re

import numpy as np
import pytest
from support import HEADER

from minigrad.devices import native

SHAPES = [0, 1, 2, 31, 32, 33, 63, 64, 65, 100, 255, 256, 257, 1000, 4096, 4097, 16384, 16385, 20000, 4177921, 4194304, 4194305, 10**7]


def guarded(dtype, size):
    """An array of `size` elements, NaN, with 64 guard elements behind it."""
    whole = np.full(size + 64, np.nan, dtype)
    whole[size:] = 12345.0
    return whole


@pytest.mark.parametrize("n", SHAPES)
def test_work_space_is_split_as_the_kernels_do(n):
    """The formulas of native/workspace.h against what they promise: enough chunks, none too small, none too large."""
    rows, loss = native.norm_chunks(n), native.loss_chunks(n)
    assert rows == (1 if n <= 32 else max(min(-(-n // 32), 128), -(-n // 256))) and loss == (1 if n <= 16384 else min(-(-n // 16384), 256))
    assert native.layer_norm_partial(n, 5) == 10 * rows and native.rms_norm_partial(n, 5) == 5 * rows
    for wide, together in ((4, 256), (512, 256), (513, 128), (1024, 128), (1025, 256)):
        assert native.rnn_steps(n, wide) == max(1, together // max(n, 1) if n else 1)
    up = -(-n // 32) * 32
    assert native.rnn_forward_work(n, 3, 7, 0) == 12 + up * 7 and native.rnn_backward_work(5, n, 7, 1) == 32 * 5 + up * 7
    assert native.rnn_forward_work(2, 3, n, 1) == 12 + 32 * n + up * 3
    assert native.rnn_sums(max(n, 1), 4, 3) == -(-max(n, 1) // 16) * 30
    for keep, columns in ((1, 0), (7, 0), (100, 0), (20000, 0), (1, 1), (768, 1), (20000, 1)):
        segments = native.segments(keep, n, columns)
        assert 1 <= segments <= 528 and (segments == 1 or keep * segments <= 16384 and segments * (512 if columns else 8192) <= n)
        assert n < 10**6 or segments * -(-keep // (32 if columns else 1)) >= 500 or segments >= min(n // 8192, 16384 // (keep + 1))
        parts, side = native.norm_parts(n, keep), native.norm_side(keep)
        assert side * native.norm_threads(keep) == (256 if keep <= 2048 else 512) and side * parts < n + side * 2 and -(-n // (side * parts)) <= 128
        segments = native.channel_segments(n, keep, 1 + 48 * columns)
        assert 1 <= segments <= 264 and (segments == 1 or keep * segments <= 16384)


@pytest.mark.parametrize("dtype, suffix", [(np.float32, "f32"), (np.float64, "f64")])
@pytest.mark.parametrize("rows", [1, 32, 33, 65, 1000, 4095, 4096, 4097, 5000, 40000])
def test_norm_kernels_stay_in_their_work_space(dtype, suffix, rows):
    """Backward kernels of row norms write all of `partial`, nothing behind it, and their sums are right."""
    n, rng = 3, np.random.default_rng(rows)
    x, gy = rng.standard_normal((rows, n)).astype(dtype), rng.standard_normal((rows, n)).astype(dtype)
    mean, rstd, gx = np.zeros(rows, dtype), np.ones(rows, dtype), np.empty_like(x)
    gw, gb = np.empty(n, dtype), np.empty(n, dtype)

    def at(*arrays):
        return [a.ctypes.data for a in arrays]
    for name, size in (("layer", native.layer_norm_partial(rows, n)), ("rms", native.rms_norm_partial(rows, n))):
        partial = guarded(dtype, size)
        kernel = native.launcher(native.signatures()[f"{name}_norm_backward_{suffix}"].row)
        if name == "layer":
            kernel(*at(gx, gw, gb, partial, gy, x, mean, rstd), 0, rows, n)
        else:
            kernel(*at(gx, gw, partial, gy, x, rstd), 0, rows, n)
        assert (partial[size:] == 12345).all() and not np.isnan(partial[:size]).any(), name
        np.testing.assert_allclose(gw, (gy * x).sum(0, dtype=np.float64), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(gb, gy.sum(0, dtype=np.float64), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("n", [1, 16384, 16385, 100000, 4177920, 4177921, 4194304, 4194305, 6000000])
def test_loss_kernels_stay_in_their_work_space(n):
    x, target, loss = np.ones(n, np.float32), np.zeros(n, np.float32), np.empty(1, np.float32)
    size = native.loss_chunks(n)
    partial = guarded(np.float32, size)
    native.launcher(native.signatures()["mse_loss_forward_f32"].row)(
        loss.ctypes.data, partial.ctypes.data, x.ctypes.data, target.ctypes.data, n, 2)
    assert (partial[size:] == 12345).all() and not np.isnan(partial[:size]).any()
    assert loss[0] == np.float32(n)


def test_the_headers_in_the_module_are_those_of_the_folder():
    """Without comments. And none of them includes one that is missing; foreign.h stands for minigrad.h."""
    for name, text in native.HEADERS.items():
        plain = re.sub(r"/\*(?s:.*?)\*/|//.*", "", (HEADER.parent / name).read_text())
        assert re.sub(r"\s+", "", text) == re.sub(r"\s+", "", plain)
        assert set(re.findall(r'^#include "(.*)"', text, re.M)) <= {*native.HEADERS, "minigrad.h"}
    assert {"types.h", "workspace.h", "simd.h", "foreign.h"} <= set(native.HEADERS)
