"""Every op's samples on both devices."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import emulated

import minigrad.nn  # noqa: F401        layers bring ops of their own
from minigrad import testing
from minigrad.core.op import Op, registry
from minigrad.ops.dispatch import set_fused

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


@pytest.mark.parametrize("name", sorted(n for n, o in registry.items() if o.sample_function is not None))
def test_ops_agree_with_the_cpu(name):
    """Outputs and gradients of every sample, with fused kernels and by the definition; float64 says how large an error is fair."""
    op = registry[name]
    samples = [testing.samples_of(op, np.float32), testing.samples_of(op, np.float64), testing.samples_of(op, np.float32, device="cuda")]
    for i, sample in enumerate(zip(*samples, strict=True)):
        for path in ("auto", "off") if isinstance(op, Op) else ("auto",):
            with set_fused(path), np.errstate(all="ignore"):
                want, exact, got = ([*outputs, *gradients] for outputs, gradients in (testing.evaluate(op, *s) for s in sample))
            for g, w, e in zip(got, want, exact, strict=True):
                assert (g is None) == (w is None)
                if g is None:
                    continue
                finite = np.isfinite(w) if w.dtype.kind == "f" else np.zeros(w.shape, bool)
                own = np.abs(w[finite] - e[finite]).max(initial=0) if w.dtype == g.dtype and w.dtype.kind == "f" else 0
                scale = max(1.0, float(np.abs(w[finite]).max(initial=0)))       # as testing._close does
                testing._close(g, w, 2e-5 + 4 * own / scale, f"{name}, sample {i} {sample[0][1]}, fused {path}, on cuda")
