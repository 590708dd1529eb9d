"""Looking at the core: explain, launches, the commands."""
from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

import minigrad as mg
from minigrad import study
from minigrad.ops.norm import layer_norm


def test_explain_names_path_reason_and_launches():
    x, w = mg.ones(4, 8), mg.ones(8)
    assert study.explain(layer_norm, x, w, w, normalized_shape=(8,)).splitlines() == [
        "layer_norm(float32[4, 8], float32[8], float32[8]): fused kernel on cpu", "  launches layer_norm_forward_f32"]
    with mg.set_fused("off"):
        assert "switched off" in study.explain(layer_norm, x, w, w, normalized_shape=(8,))
    assert "one dtype" in study.explain(layer_norm, x, w.double(), w, normalized_shape=(8,))
    assert "add_f32" in study.explain(mg.add, x, x) and "kernel" in study.explain(mg.add, x, x)
    assert "nothing: a view" in study.explain(mg.reshape, x, (8, 4))


def test_require_refuses_the_slow_path():
    with mg.set_fused("require"):
        layer_norm(mg.ones(2, 3), None, None, normalized_shape=(3,))
        try:
            layer_norm(mg.ones(2, 3), mg.ones(3).double(), None, normalized_shape=(3,))
        except RuntimeError as error:
            assert "required" in str(error) and "float64" in str(error)
        else:
            raise AssertionError("a definition ran although kernels are required")


def test_launches_in_order():
    x = mg.ones(3, requires_grad=True)
    assert study.launches(lambda: (x * x).sum().backward()) == ["mul_f32", "sum_f32", "copy_i32", "mul_f32", "mul_f32", "add_f32"]


@pytest.mark.slow
def test_commands():
    run = lambda *args: subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=tempfile.gettempdir())      # noqa: E731
    shown = run("-m", "minigrad").stdout.splitlines()
    assert [line.split(":")[0] for line in shown[1:]] == ["SIMD level", "threads", "GPU"] and shown[0] == f"minigrad {mg.__version__}"
    assert "GB/s" in run("-m", "minigrad.bench", "mse_loss").stdout
    assert "unknown op" in run("-m", "minigrad.bench", "no_such_op").stderr
