"""The pool: memory is reused, and never while somebody else still sees it."""
from __future__ import annotations

import gc
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad.core.tape import Node, Slot
from minigrad.devices import memory

SHAPES = [(3,), (2, 4), (8,), (4, 2), ()]


def fill(shape, value, dtype=np.float32):
    return mg.tensor(np.full(shape, value, dtype))


STEPS = st.lists(st.tuples(st.sampled_from(["make", "drop", "numpy", "view", "numpy of view", "dlpack", "memoryview", "array", "drop other",
                                            "compute", "backward"]), st.integers(0, 7), st.integers(0, 7)), min_size=5, max_size=60)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_what_outlives_a_tensor_keeps_its_values(steps):
    tensors, others, counter = [], [], 0
    for action, i, j in steps:
        t, value = tensors[i % len(tensors)] if tensors else (None, None)
        if action == "make":
            counter += 1
            tensors.append((fill(SHAPES[j % len(SHAPES)], counter), counter))
        elif action == "drop other" and others:
            del others[i % len(others)]
        elif t is None:
            continue
        elif action == "drop":
            del tensors[i % len(tensors)]
            del t
        elif action == "numpy":
            others.append((t.numpy(), value))
        elif action == "view" and t.ndim:
            tensors.append((t[:1], value))
        elif action == "numpy of view" and t.ndim:
            others.append((t[::2].numpy(), value))
        elif action == "dlpack":
            others.append((np.from_dlpack(t), value))
        elif action == "memoryview":
            others.append((memoryview(t.numpy()), value))
        elif action == "array":
            others.append((np.asarray(t), value))
        elif action == "compute":
            counter += 1
            tensors.append((t * 0 + counter, counter))
        elif action == "backward":
            leaf = t.detach().requires_grad_()
            (leaf * 3).sum().backward()
            others.append((leaf.grad.numpy(), 3))
        for array, expected in others:
            assert np.all(np.asarray(array) == expected)
    for t, expected in tensors:
        assert np.all(t.numpy() == expected)


def test_buffers_are_reused():
    a = fill((5, 7), 1.0)
    address = a.data_ptr()
    del a
    assert fill((5, 7), 2.0).data_ptr() == address


def test_a_numpy_view_keeps_the_memory():
    a = fill((5, 7), 1.0)
    address, seen = a.data_ptr(), a.numpy()[1:]
    del a
    b = fill((5, 7), 2.0)
    assert b.data_ptr() != address and (seen == 1).all()


def test_from_numpy_shares():
    values = np.arange(6.0).reshape(2, 3)
    t = mg.from_numpy(values[:, ::-1])
    values[0, 0] = 9
    assert t.tolist() == [[2, 1, 9], [5, 4, 3]]


def test_aligned():
    for n in (1, 3, 100, 5000):
        assert mg.empty(n).data_ptr() % 64 == 0


def test_large_blocks_begin_at_a_page() -> None:
    """A load waits for an older store whose address ends in the same 12 bits."""
    kept = [mg.empty(n) for n in (4096, 5000, 32768, 40000)]
    assert [x.data_ptr() % 4096 for x in kept] == [0] * 4
    assert any(mg.empty(n).data_ptr() % 4096 for n in range(1000, 1100)), "small blocks are not spread over pages"


def test_no_cycles():
    """Dropping the loss frees the graph at once, without the garbage collector."""
    x = mg.ones(100, requires_grad=True)

    def step():
        y = x
        for _ in range(10):
            y = (y * x).exp().tanh() + y.reshape(10, 10).reshape(100)
        mg.nn.functional.layer_norm(y, (100,)).sum().backward()
        mg.autograd.grad((x * x * x).sum(), x, create_graph=True)
        x.grad = None

    def alive():        # plans, and the lists of views that a block has, are made now and then
        return sum([isinstance(o, (mg.Tensor, Node, Slot)) for o in gc.get_objects()])
    step()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(50):
            step()
        assert alive() == before
    finally:
        gc.enable()


def test_no_view_is_lost_when_another_thread_keeps_one():
    """Another thread comes while a reference is asked whether its view is alive."""
    base = mg.zeros(4)
    first, second, third = views = base[0], base[1], base[2]
    block = base.array.block

    def dead(another):
        """A reference to a view that is gone."""
        once = [another]

        def ask():
            while once:
                once.pop()()
        return ask
    for kept, room, alive in (([dead(lambda: block.kept.append(ref(second)))], 64, [1, 1, 0]), ([dead(lambda: block.kept.clear())], 64, [1, 0, 0]),
                              ([dead(lambda: block.kept.append(ref(second))), ref(third)], 1, [1, 1, 1])):      # the dead are dropped
        block.kept, block.room, block.view = kept, room, ref(first)
        memory.keep_view(block)
        assert [any(t is view for t in memory.views_of(block)) for view in views] == alive


def test_layout_is_interned():
    assert fill((2, 3), 0).layout is fill((2, 3), 1).layout
    assert fill((2, 3), 0).t().t().layout is fill((2, 3), 0).layout


def test_empty_cache_and_limits():
    a = mg.zeros(1000)
    del a
    mg.empty_cache()
    assert not memory.layout(mg.device("cpu"), mg.float32, (1000,)).free


def test_too_large():
    with pytest.raises((MemoryError, RuntimeError)):
        mg.empty(1 << 50)
    with pytest.raises(RuntimeError, match="elements"):
        mg.empty(1 << 40, 1 << 40)
