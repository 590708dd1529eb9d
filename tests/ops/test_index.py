"""Indexing beyond its samples: indices out of range, parts that overlap."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg


@pytest.mark.parametrize("index", [-1 << 63, (1 << 63) - 1, -5, 4])
@pytest.mark.parametrize("shape", [(4,), (0,), (4, 0)])
def test_no_index_is_out_of_range(shape, index):
    """Not even the smallest int64, which once meant "nothing to ignore"."""
    with pytest.raises(IndexError, match="out of range"):
        mg.zeros(*shape)[mg.tensor([index])]


def test_an_index_of_bytes_warns_that_it_is_a_mask():
    x, at = mg.tensor([5.0, 6.0, 7.0]), mg.tensor([1, 0, 1], dtype=mg.uint8)
    for index in (at, at.numpy()):
        with pytest.warns(UserWarning, match=r"uint8 tensor is a mask.*\.bool\(\), or \.long\(\) for an index"):
            assert x[index].tolist() == [5, 7]
    with pytest.warns(UserWarning, match="uint8 tensor is a mask"):
        x[at] = 1.0
    assert x.tolist() == [1, 6, 1] and x[at.long()].tolist() == [6, 1, 6]


@pytest.mark.filterwarnings("ignore:.index. a uint8 tensor is a mask")
@pytest.mark.parametrize("recorded", [False, True])
def test_what_is_written_at_an_index_is_read_there(recorded):
    """0-d arrays and tensors are numbers, but for uint8: a mask. Reading copies beside an index tensor; writing must not go there."""
    one, mask = mg.tensor(1), mg.tensor(1, dtype=mg.uint8)
    for index in ((np.array(1), [0, 1]), (one, [0, 1]), ([0, 1], None, one), ([0, 1], None, np.array(2)), (np.array(1), slice(1, 3)), (one, one),
                  (mask, 0), (mask, [0, 1]), (mask.numpy(), [0, 1]), (mg.tensor(True), 0), mask, one):
        x = mg.zeros(3, 4, requires_grad=recorded) * 1
        x[index] = 5.0
        assert (x[index] == 5).all() and x.sum() == 5 * x[index].numel(), index


@pytest.mark.parametrize("n", [20, 1000, 300_000])
def test_overlapping_in_place(n):
    a = mg.arange(float(n))
    a[1:] += a[:-1]
    assert a.tolist() == [0.0, *(2.0 * i - 1 for i in range(1, n))]
    a = mg.arange(float(n))
    a[1:] = a[:-1]
    assert a.tolist() == [0.0, *map(float, range(n - 1))]


def test_the_last_write_has_the_gradient():
    def of_source(f):
        y = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        f(y).sum().backward()
        return y.grad.tolist()

    at = mg.tensor([0, 0, 1])
    assert of_source(lambda y: mg.zeros(3).scatter(0, at, y)) == [0, 1, 1]
    assert of_source(lambda y: mg.zeros(3).index_copy(0, at, y)) == [0, 1, 1]
    assert of_source(lambda y: mg.zeros(2, 3).scatter(0, mg.tensor([[0, 1, 0], [0, 0, 0]]), mg.stack([y, y * 10]))) == [10, 11, 10]
    assert of_source(lambda y: mg.zeros(2, 3).index_copy(1, at, mg.stack([y, y]))) == [0, 2, 2]
    x = mg.zeros(3, requires_grad=True)
    y = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    g, = mg.autograd.grad(x.scatter(0, at, y).square().sum(), y, create_graph=True)
    assert g.tolist() == [0, 4, 6]
    assert mg.autograd.grad(g.sum(), y)[0].tolist() == [0, 2, 2]


@pytest.mark.parametrize("mode, pad", [("reflect", (0, 0)), ("replicate", (0, 0)), ("circular", (0, 0)), ("circular", (-1, -1)),
                                       ("reflect", (-1, 0)), ("replicate", (-1, -1)), ("constant", (0, 0)), ("constant", (-1, -1))])
def test_pad_never_gives_the_memory_of_its_input(mode, pad):
    x = mg.zeros(1, 1, 3)
    mg.nn.functional.pad(x, pad, mode=mode).fill_(1)
    assert x.tolist() == [[[0, 0, 0]]]


PLACES = {"mask": mg.tensor([False, True, True]), "list mask": [False, True, True], "mask in a tuple": (mg.tensor([False, True, True]),), "number": 1, "0-d": mg.tensor(1),
          "slice": slice(1, 3), "list": [0, 2], "tensor": mg.tensor([0, 2])}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [2.5, [2.5], mg.tensor(2.5), mg.tensor([2.5]), mg.tensor(2.5, dtype="float64"), mg.tensor([2.5, 2.75])], ids=str)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_floats_written_into_integers_as_in_pytorch(place, value, dtype):
    """As PyTorch 2.13 does, but for the list: there it raises TypeError."""
    x = mg.tensor([0, 1, 0], dtype=dtype)
    two = getattr(value, "shape", ()) == (2,)
    if isinstance(value, mg.Tensor) and (place in ("list", "tensor") or two and "mask" in place) or two and place in ("number", "0-d"):
        with pytest.raises(RuntimeError, match="value must broadcast" if place in ("number", "0-d") else f"{value.dtype} result cannot be written into a {dtype}"):
            x[PLACES[place]] = value
        assert x.tolist() == [0, 1, 0]
        return
    x[PLACES[place]] = value
    n = 1 if dtype == "bool" else 2
    assert x.dtype == dtype and x.tolist() == ([0, n, 0] if place in ("number", "0-d") else [n, 1, n] if place in ("list", "tensor") else [0, n, n])


def test_one_number_at_a_mask_among_other_indices():
    for index, want in (((mg.tensor([True, False]), 0), [[7, 1, 2], [3, 4, 5]]), ((slice(None), mg.tensor([True, False, True])), [[7, 1, 7], [7, 4, 7]]),
                        ((mg.tensor([True, False]), slice(1, 3)), [[0, 7, 7], [3, 4, 5]])):
        x = mg.arange(6).reshape(2, 3)
        x[index] = mg.tensor(7.5)
        assert x.tolist() == want
    x = mg.arange(6).reshape(2, 3)
    with pytest.raises(RuntimeError, match="cannot be written into"):
        x[mg.tensor([True, False]), mg.tensor([0])] = mg.tensor(7.5)


def test_integers_at_an_index_of_tensors_are_converted():
    for index in ([1], mg.tensor([True, False, False]), (mg.tensor([0, 1]),)):
        t = mg.zeros(3).long()
        t[index] = mg.tensor(2, dtype=mg.int32)
        assert t.max() == 2


def test_scatter_that_multiplies():
    x, index, src = mg.tensor([2.0, 3.0, 4.0], requires_grad=True), mg.tensor([0, 0, 1]), mg.tensor([5.0, 6.0, 7.0], requires_grad=True)
    out = x.scatter(0, index, src, reduce="multiply")
    out.sum().backward()
    assert out.tolist() == [60.0, 21.0, 4.0] and x.grad.tolist() == [30.0, 7.0, 1.0] and src.grad.tolist() == [12.0, 10.0, 3.0]
    assert mg.ones(3).scatter_(0, index, 2.5, reduce="multiply").tolist() == [6.25, 2.5, 1.0]
    with pytest.raises(RuntimeError, match="'add' or 'multiply'"):
        x.scatter(0, index, src, reduce="divide")


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_pad_of_no_elements(mode, dims):
    space, widths = (5,) * dims, (1, 1) * dims
    assert mg.nn.functional.pad(mg.zeros(0, 3, *space), widths, mode=mode).shape == (0, 3, *(7,) * dims)
    for shape in ((2, 0), (0,)):
        if mode == "circular":
            assert mg.nn.functional.pad(mg.zeros(*shape, *space), widths, mode=mode).shape == (*shape, *(7,) * dims)
        else:
            with pytest.raises(RuntimeError, match="only where the batch is empty"):
                mg.nn.functional.pad(mg.zeros(*shape, *space), widths, mode=mode)


def test_a_list_of_indices_means_their_tuple():
    """As in PyTorch, where NumPy makes an array of it: a warning says so. A list of numbers is one index."""
    x, a, b = mg.arange(12).reshape(3, 4), mg.tensor([0, 1]), mg.tensor([1, 2])
    for index in ([a, b], [[0, 1], [1, 2]], [slice(None), [1, 2]], [..., 0], [None, 0], [a[0], b[0]], [range(2), a]):
        y = x.clone()
        with pytest.warns(UserWarning, match="as in PyTorch") as seen:
            assert x[index].equal(x[tuple(index)])
            y[index] = 7
        assert len(seen) == 2
        z = x.clone()
        z[tuple(index)] = 7
        assert y.equal(z)
    assert x[[0, 2]].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]] and x[[True, False, False]].shape == (1, 4)
    assert x[[[0, 1]] * 32].shape == (32, 2, 4)             # so many are no tuple


def test_an_index_without_elements_has_any_shape():
    x = mg.ones(2, 3, requires_grad=True)
    none = mg.tensor([], dtype=mg.int64)
    for y in (x.scatter(0, none, 5.0), x.scatter_add(1, none, mg.ones(0)), x.scatter_reduce(0, none, mg.ones(0), "sum"), x.detach().scatter_(0, none, 2.0)):
        assert y.tolist() == x.tolist()
    x.scatter(0, none, 5.0).sum().backward()
    assert x.grad.tolist() == [[1.0] * 3] * 2
    for wrong, error in ((lambda: x.scatter(2, none, 5.0), IndexError), (lambda: x.scatter(0, none, mg.ones(0, dtype=mg.float64)), RuntimeError)):
        with pytest.raises(error, match=r"\[scatter\]"):
            wrong()


def test_slices_are_added_to_integers_a_whole_number_of_times():
    x, at, one = mg.zeros(3, 2, dtype=mg.uint8), mg.tensor([1, 1]), mg.ones(2, 2, dtype=mg.uint8)
    assert x.index_add(0, at, one, alpha=2.0).tolist() == [[0, 0], [4, 4], [0, 0]] == x.clone().index_add_(0, at, one, alpha=2.0).tolist()
    with pytest.raises(RuntimeError, match=r"\[index_add\] alpha must be a whole number"):
        x.index_add(0, at, one, alpha=2.5)
