"""Fixtures for all tests. No test may leave a process-wide switch behind, no test file a tensor or node that is part of a cycle."""
from __future__ import annotations

import gc

import fuzzing
import numpy as np
import pytest
from support import tensors_in_cycles

import minigrad as mg
from minigrad.core.modes import mode, paused
from minigrad.core.op import registry
from minigrad.devices.native import LEVELS, best_simd_level, get_num_threads, set_simd_level, simd_level


@pytest.fixture
def torch():
    """PyTorch, as the judge of a comparison. Whoever asks for it is marked `torch`, and skipped without it."""
    found = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[compare]'")
    found.set_num_threads(1)                # its threads wait in a busy loop for the next of these small tasks
    return found


@pytest.fixture(params=LEVELS[:LEVELS.index(best_simd_level()) + 1])
def level(request):
    """The test runs with the kernels of each SIMD level of this CPU, or of those that it names by `indirect`."""
    before = simd_level()
    set_simd_level(request.param)
    yield request.param
    set_simd_level(before)


def pytest_configure(config):
    """The quick part tries a quarter of the examples for each name; the whole, all of them."""
    fuzzing.quick = "not slow" in config.option.markexpr


def pytest_ignore_collect(collection_path, config):
    """Reading PyTorch's databases of samples takes seconds; all that is run on them is slow."""
    return True if collection_path.name == "test_against_torch.py" and "not slow" in config.option.markexpr else None


def pytest_collection_modifyitems(items):
    for item in items:
        for fixture, marks in (("torch", ("torch",)), ("gpu", ("cuda", "slow"))):       # the emulator compiles each CUDA file first
            if fixture in getattr(item, "fixturenames", ()):
                for mark in marks:
                    item.add_marker(mark)


@pytest.fixture
def own_registry():
    """Ops that a test defines are forgotten after it."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.fixture(autouse=True)
def same_random_numbers(request):
    """Each test draws the same numbers, alone and after others: from minigrad's generator, and from that of its file."""
    mg.manual_seed(0)
    for name in ("RNG", "rng"):
        own = getattr(request.module, name, None)
        if isinstance(own, np.random.Generator):
            own.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(autouse=True)
def no_leaked_modes():
    def now():
        return (mode.grad, set(paused), mode.autocast, mode.streams, mode.fused, simd_level(), get_num_threads(), mg.get_default_dtype())
    before = now()
    yield
    assert now() == before, f"a test left modes {now()}, found {before}"
    assert mode.recorder is None


@pytest.fixture(scope="module", autouse=True)
def no_tensor_in_a_cycle():
    """Dropping a loss frees its graph at once. What a test file leaves to the garbage collector is looked through at its end; the
    collector is off until then, unless a test switches it on. Objects from before are frozen: to walk them all takes half a second."""
    gc.disable()
    gc.freeze()
    yield
    try:
        found = tensors_in_cycles()
    finally:
        gc.enable()
    assert not found, f"{len(found)} tensors or nodes are part of cycles, such as {found[:3]}"
