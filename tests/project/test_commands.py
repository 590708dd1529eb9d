"""The commands: `python -m minigrad`, `python -m minigrad.bench`."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

import pytest

import minigrad as mg


@pytest.mark.slow
def test_commands():
    run = lambda *args: subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=tempfile.gettempdir())      # noqa: E731
    shown = run("-m", "minigrad").stdout.splitlines()
    assert [line.split(":")[0] for line in shown[1:]] == ["SIMD level", "threads", "GPU"] and shown[0] == f"minigrad {mg.__version__}"
    assert "GB/s" in run("-m", "minigrad.bench", "mse_loss").stdout
    assert "unknown op" in run("-m", "minigrad.bench", "no_such_op").stderr


OPS = """
import minigrad as mg

@mg.op
def without_samples(x):
    return x * 2

@mg.op
def without_kernels(x):
    return x * 2

@without_kernels.samples
def _(make):
    yield make(4, 3)
"""


@pytest.mark.slow
def test_ops_that_cannot_be_timed_in_full(tmp_path, monkeypatch):
    (tmp_path / "some_ops.py").write_text(OPS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    run = lambda *args: subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=tempfile.gettempdir())      # noqa: E731
    told = run("-m", "minigrad.bench", "some_ops:without_samples").stderr
    assert "error: without_samples has no samples; add `@without_samples.samples`" in told and "Traceback" not in told
    table = run("-m", "minigrad.bench", "some_ops:without_kernels").stdout.splitlines()
    assert re.fullmatch(r"\[\d+, 3\] +- +[\d.]+ us +[\d.]+ +- +[\d.]+ us", table[1])
