"""Fixtures for all tests. No test may leave a process-wide switch behind, no test file a tensor in a cycle."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad.core.tape import mode
from minigrad.devices.native import get_num_threads, simd_level


@pytest.fixture
def torch():
    """PyTorch, as the judge of a comparison. Whoever asks for it is marked `torch`, and skipped without it."""
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[compare]'")


def pytest_collection_modifyitems(items):
    for item in items:
        for mark, fixture in (("torch", "torch"), ("cuda", "gpu")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def no_leaked_modes():
    before = (mode.grad, mode.fused, simd_level(), get_num_threads(), mg.get_default_dtype())
    yield
    after = (mode.grad, mode.fused, simd_level(), get_num_threads(), mg.get_default_dtype())
    assert after == before, f"a test left modes {after}, found {before}"
    assert mode.recorder is None
