"""What is recorded, where, and the hooks on it."""
from __future__ import annotations

import gc

import pytest
from support import tensors_in_cycles

import minigrad as mg


def leaf(*values):
    return mg.tensor(values, dtype=mg.float64, requires_grad=True)


def test_hooks():
    x = leaf(1.0, 2.0)
    y = x * 2
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 10)
    y.sum().backward(retain_graph=True)
    assert seen == [[1, 1]] and x.grad.tolist() == [20, 20]
    handle.remove()
    y.sum().backward()
    assert len(seen) == 1 and x.grad.tolist() == [40, 40]


def test_leaf_hook_sees_the_sum():
    x = leaf(1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    (x + x * 2).sum().backward()
    assert seen == [3]


def test_post_accumulate_hook():
    x = leaf(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 4).sum().backward()
    assert seen == [4]
    with pytest.raises(RuntimeError, match="leaf"):
        (x * 2).register_post_accumulate_grad_hook(print)


def test_retain_grad():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [4, 8] and x.grad.tolist() == [8, 16]


def test_recording_modes():
    x = leaf(1.0)
    with mg.no_grad():
        assert not (x * 2).requires_grad and not mg.is_grad_enabled()
        with mg.enable_grad():
            assert (x * 2).requires_grad
    with mg.inference_mode():
        assert not (x * 2).requires_grad
    with mg.set_grad_enabled(False):
        assert not (x * 2).requires_grad

    @mg.no_grad()
    def plain(x):
        return x * 2

    @mg.no_grad
    def bare(x):
        return x * 2
    assert not plain(x).requires_grad and not bare(x).requires_grad and (x * 2).requires_grad
    with pytest.raises(ValueError):
        with mg.no_grad():
            raise ValueError
    assert mg.is_grad_enabled()


def test_leaf_rules():
    x = leaf(1.0)
    assert x.is_leaf and x.grad_fn is None and not (x * 2).is_leaf
    with pytest.raises(RuntimeError, match="floating-point"):
        mg.ones(2, dtype=mg.int64, requires_grad=True)
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).requires_grad_(False)
    assert not (x * 2).detach().requires_grad
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).numpy()


def test_grad_fn_walk():
    x, y = leaf(1.0), leaf(2.0)
    z = x * y + 1
    (first, _), (none, _) = z.grad_fn.next_functions
    assert z.grad_fn.name() == "AddBackward0" and first.name() == "MulBackward0" and none is None
    assert first.next_functions[0][0].variable is x


def test_grad_mode_belongs_to_the_thread():
    import threading
    started, done = threading.Event(), threading.Event()

    def other():
        with mg.no_grad():
            started.set()
            done.wait(5)
    thread = threading.Thread(target=other)
    thread.start()
    started.wait(5)
    assert mg.is_grad_enabled() and (leaf(1.0) * 2).requires_grad
    done.set()
    thread.join()
    assert mg.is_grad_enabled()


def test_the_search_for_cycles_sees_one():
    """What each test file is looked through for at its end, in conftest.py."""
    gc.collect()
    x = leaf(1.0)
    y = x * 2
    y.grad = y + 1                      # no cycle: a node refers to nodes and leaves
    loose, box = leaf(2.0), []
    box += [box, loose]                 # hangs off a cycle of others
    del x, y, loose, box
    found = tensors_in_cycles()
    assert found == [], found
    x = leaf(1.0)
    x._grad = x
    del x
    assert len(tensors_in_cycles()) == 1
    gc.collect()
