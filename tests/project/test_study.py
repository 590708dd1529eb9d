"""Looking at the core: explain, launches, the commands."""
from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

import minigrad as mg
from minigrad import nn, study
from minigrad.core.hooks import node_hooks
from minigrad.ops.norm import layer_norm
from minigrad.study.record import Record


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


# ---- the record ----

def _model_and_loss():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = mg.randn(5, 6), mg.tensor([0, 1, 2, 0, 1])
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def test_a_record_has_each_launch_and_each_backward():
    model, loss = _model_and_loss()
    with Record() as record:
        value = loss()
        value.backward()
    assert [b.node.op.name.strip("_") for b in record.backwards] == ["cross_entropy", "linear", "relu", "layer_norm", "linear"]
    forward = [x for x in record.launches if x.direction == "forward" and x.place.modules]
    assert [x.op for x in forward] == ["linear", "layer_norm", "relu", "linear"]
    assert [x.place.path() for x in forward] == [f"model.{i}" for i in range(4)]
    norm = forward[1]
    assert norm.sizes["rows"] == 5 and norm.sizes["n"] == 8 and norm.kernel == "layer_norm_forward_f32"
    assert {b.depth for b in record.backwards} == {0}
    step = record.backwards[3]
    assert [x.kernel for x in step.launches] == ["layer_norm_backward_f32"] and [g.shape for g in step.results] == [(5, 8), (8,), (8,)]
    assert mg.core.tape.observers == []


def test_a_record_changes_no_bit_and_keeps_no_tensor():
    model, loss = _model_and_loss()
    loss().backward()
    plain = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    with Record() as record:
        loss().backward()
    assert all((a == p.grad.numpy()).all() for a, p in zip(plain, model.parameters(), strict=True))
    assert "copy" not in {x.op for b in record.backwards for x in b.launches}


def test_a_record_sees_the_launches_of_a_replay():
    model, loss = _model_and_loss()
    step = mg.capture(lambda: mg.autograd.grad(loss(), list(model.parameters())))
    first = [g.numpy().copy() for g in step()]
    with Record() as record:
        again = step()
    assert all((a == g.numpy()).all() for a, g in zip(first, again, strict=True))
    assert [x.kernel for x in record.launches if "layer_norm" in x.kernel] == ["layer_norm_forward_f32", "layer_norm_backward_f32"]
    assert [x.kernel for x in record.launches if not x.replayed] == ["check_index"]        # values are checked in Python


def test_a_watcher_is_gone_after_the_record():
    _, loss = _model_and_loss()
    with Record() as record:
        pass
    loss().backward()
    assert not record.launches and not record.backwards and not node_hooks.tables
