"""argsort and topk against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, compare, emulated, rng

import minigrad as mg
from minigrad import devices

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
LINES = [(1, 1, 1), (3, 2, 5), (4, 33, 1), (2, 31, 3), (300, 5, 1), (1, 1025, 2), (1, 4096, 1)]


def lines(suffix, shape):
    """Few different values, NaN and the ends of the type among them."""
    t = np.dtype(DTYPES[suffix])
    if suffix == "u8":
        return rng.integers(0, 2, shape).astype(t)
    if t.kind == "i":
        some = [np.iinfo(t).min, np.iinfo(t).max, -1, 0, 1, 7]
    else:
        some = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1, -1, 2.5, -7, np.finfo(t).smallest_subnormal, -np.finfo(t).smallest_subnormal]
    return rng.choice(np.array(some, t), shape)


@pytest.mark.parametrize("suffix", ["f32", "f64", "i32", "i64", "u8"])
def test_order(suffix, order):
    for shape in LINES:
        outer, n, inner = shape
        different = rng.permutation(outer * n * inner).reshape(shape).astype(DTYPES[suffix])
        for x in (lines(suffix, shape), different):
            for upwards in (0, 1):
                compare(f"argsort_{suffix}", np.zeros(shape, np.int64), x, *shape, upwards)
                for k in {1, n // 2, n}:
                    compare(f"topk_{suffix}", np.zeros((outer, k, inner), np.int64), x, *shape, k, upwards)


@pytest.mark.parametrize("n,kernels", [(4096, True), (4097, False)])
def test_sort_and_topk_with_their_gradients(n, kernels):
    """The longest line that fits into shared memory, and one that CuPy sorts; ties and NaN among its values."""
    values = lines("f32", (2, n))
    values[:, ::2] = rng.permutation(values[:, ::2].size).reshape(2, -1)
    seen, results = [], []
    for device in ("cpu", "cuda"):
        x = mg.tensor(values, device=device, requires_grad=True)

        def note(kernel, arguments, device=device):
            if device == "cuda":
                seen.append(kernel.name)
            kernel.function(*arguments)
        with devices.launch_hook(note):
            top, places = x.topk(50)
            ordered = x.sort()
        (ordered.values[:, :9] * 3).sum().backward()
        top.sum().backward()
        results.append([t.numpy(force=True) for t in (top, places, *ordered, x.grad)])
    assert ("topk_f32" in seen, "argsort_f32" in seen, "host" in seen) == (kernels, kernels, not kernels)
    for want, got in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("n", [33, 4096])
@pytest.mark.parametrize("dtype", [mg.float16, mg.bfloat16], ids=str)
def test_half_precision_is_sorted_as_it_is(dtype, n):
    """By one kernel of its type, ties and NaN and subnormal numbers too; and summed without a float32 copy."""
    values = np.concatenate([lines("f32", (2, n // 2)), rng.standard_normal((2, n - n // 2)).astype(np.float32)], 1)
    values[0, :4] = 6e-8, -6e-8, 65504, -65504
    seen, results = [], []
    for device in ("cpu", "cuda"):
        x = mg.tensor(values, device=device).to(dtype)
        with devices.launch_hook(lambda kernel, arguments, seen=seen: (seen.append(kernel.name), kernel.function(*arguments))):
            seen.clear()
            found = x.argsort(1, descending=True), *x.sort(0), *x.topk(7), *x.kthvalue(5), mg.where(x.isfinite(), x, 0).cumsum(1)
        results.append([t.float().numpy(force=True) for t in found])
    suffix = {mg.float16: "f16", mg.bfloat16: "bf16"}[dtype]
    assert {name for name in seen if name.startswith(("argsort", "topk", "cumsum"))} == {f"{k}_{suffix}" for k in ("argsort", "topk", "cumsum")}
    assert not [name for name in seen if "cast_f32" in name], seen
    for want, got in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)
