"""No test may leave a process-wide switch behind, or a tensor behind in a cycle."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad.core.tape import mode
from minigrad.devices.native import get_num_threads, simd_level


@pytest.fixture(autouse=True)
def no_leaked_modes():
    before = (mode.grad, mode.fused, simd_level(), get_num_threads(), mg.get_default_dtype())
    yield
    after = (mode.grad, mode.fused, simd_level(), get_num_threads(), mg.get_default_dtype())
    assert after == before, f"a test left modes {after}, found {before}"
    assert mode.recorder is None
