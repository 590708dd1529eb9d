"""No test may leave a process-wide switch behind, or a tensor behind in a cycle."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import cpu
from minigrad.engine import mode


@pytest.fixture(autouse=True)
def no_leaked_modes():
    before = (mode.grad, mode.fused, cpu.simd_level(), cpu.get_num_threads(), mg.get_default_dtype())
    yield
    after = (mode.grad, mode.fused, cpu.simd_level(), cpu.get_num_threads(), mg.get_default_dtype())
    assert after == before, f"a test left modes {after}, found {before}"
    assert mode.recorder is None
