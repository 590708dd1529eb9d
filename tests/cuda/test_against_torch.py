"""PyTorch's own samples, the first three of each operator and dtype: what runs on the CPU gives the same on "cuda"."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import emulated
from torch_samples import OPS, Unsupported, describe, ours_of, samples, tensors_in, to_ours

import minigrad as mg

pytestmark = [emulated, pytest.mark.usefixtures("gpu"), pytest.mark.filterwarnings("ignore")]
EACH = 3            # samples of an operator and dtype
# of values, as a share of the largest one; float16: two roundings apart
TOLERANCE = {"float16": 2e-3, "float32": 5e-5, "float64": 1e-10}


def moved(value):
    """Arguments with their tensors on the GPU."""
    if isinstance(value, mg.Tensor):
        return value.detach().to("cuda").requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(moved(v) for v in value)
    if isinstance(value, dict):
        return {k: moved(v) for k, v in value.items()}
    return value.to("cuda") if isinstance(value, mg.nn.Module) else "cuda" if value == "cpu" else value


def run(function, args, kwargs):
    """The results, and the gradients of their sum in the arguments."""
    mg.manual_seed(0)
    results = [t for t in tensors_in(function(*args, **kwargs)) if isinstance(t, mg.Tensor)]
    leaves = [t for t in tensors_in((*args, kwargs)) if t.requires_grad]
    roots = [t for t in results if t.requires_grad]
    gradients = mg.autograd.grad(roots, leaves, [mg.ones_like(t) for t in roots], allow_unused=True) if roots and leaves else []
    return [*results, *gradients]


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool", "float16"])
@pytest.mark.parametrize("name", OPS)
def test_samples_agree_with_the_cpu(torch, name, dtype):
    op, function, ran = OPS[name], ours_of(name), 0
    kind = getattr(torch, dtype)
    for i, sample in samples(op, kind, op.supports_autograd and kind.is_floating_point):
        if ran == EACH:
            break
        try:
            args, kwargs = to_ours((sample.input, *sample.args), True), to_ours(sample.kwargs, True)
            want = run(function, args, kwargs)
        except (Unsupported, RuntimeError, NotImplementedError, TypeError, ValueError, IndexError):
            continue                    # not a sample for minigrad: tests/ops/test_against_torch.py judges that
        ran += 1
        where = f"{name} sample {i} {describe(sample)}"
        got = run(function, moved(args), moved(kwargs))
        assert len(got) == len(want), where
        for g, w in zip(got, want, strict=True):
            assert (g is None) == (w is None), where
            if w is None:
                continue
            assert g.device.type == "cuda", f"{where}: the result is on {g.device}"
            a, b = g.numpy(force=True), w.numpy(force=True)
            assert (a.dtype, a.shape) == (b.dtype, b.shape), where
            if b.dtype.kind != "f":
                np.testing.assert_array_equal(a, b, where)
                continue
            a, b = a.astype(np.float64), b.astype(np.float64)
            scale = max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0))
            np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=TOLERANCE[str(w.dtype)], err_msg=where, equal_nan=True)
    if not ran:
        pytest.skip("no sample of this dtype")
