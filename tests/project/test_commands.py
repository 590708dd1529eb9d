"""The commands: `python -m minigrad`, `python -m minigrad.bench`."""
from __future__ import annotations

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
