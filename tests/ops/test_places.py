"""Places that an index names, and shapes changed in place: what the samples do not say."""
from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import minigrad as mg


def test_in_place_forms_write_into_the_tensor():
    x = mg.zeros(4)
    view = x[:2]
    x.masked_scatter_(mg.tensor([True, False, True, False]), mg.tensor([1.0, 2.0]))
    x.index_put_((mg.tensor([3, 3]),), mg.tensor([1.0, 1.0]), accumulate=True)
    x.put_(mg.tensor([1]), mg.tensor([7.0])).scatter_reduce_(0, mg.tensor([0]), mg.tensor([9.0]), "amax")
    assert x.tolist() == [9, 7, 2, 2] and view.tolist() == [9, 7]


def test_in_place_in_a_graph():
    x = mg.ones(3, requires_grad=True)
    y = x * 2
    y.index_put_((mg.tensor([0]),), mg.tensor(5.0))
    y.sum().backward()
    assert y.tolist() == [5, 2, 2] and x.grad.tolist() == [0, 2, 2]


def test_shapes_in_place():
    x = mg.arange(6).reshape(2, 3)
    pointer = x.data_ptr()
    assert x.t_() is x and x.shape == (3, 2) and x.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert x.unsqueeze_(0).shape == (1, 3, 2) and x.transpose_(0, 2).shape == (2, 3, 1) and x.squeeze_(-1).shape == (2, 3)
    assert x.data_ptr() == pointer and x.tolist() == [[0, 1, 2], [3, 4, 5]]
    y = x.view(6)
    assert y.as_strided_((2, 2), (3, 1), 1) is y and y.tolist() == [[1, 2], [4, 5]] and y.data_ptr() == pointer + y.itemsize
    x[0, 0] = 9
    assert x.resize_(2, 2).tolist() == [[9, 1], [2, 3]] and x.resize_((6,))[:4].tolist() == [9, 1, 2, 3]
    assert x.resize_as_(mg.zeros(1, 2)).tolist() == [[9, 1]]
    turned = mg.arange(6).reshape(2, 3).t()
    for same in (turned.resize_(3, 2), turned.resize_as_(turned)):
        assert same is turned and turned.stride() == (1, 3)


def test_set_shares_memory():
    x, y = mg.zeros(2), mg.ones(3)
    x.set_(y)
    y[0] = 5
    assert x.tolist() == [5, 1, 1] and x.set_().shape == (0,)


def test_new_has_the_tensors_dtype():
    x = mg.zeros(1, dtype=mg.float64)
    assert x.new(2, 3).shape == (2, 3) and x.new(mg.Size((4,))).shape == (4,) and x.new().shape == (0,)
    assert x.new([1, 2]).tolist() == [1.0, 2.0] and x.new([1, 2]).dtype == mg.float64


def test_views_after_a_change_of_shape_have_gradients():
    x = mg.arange(6.0)
    x.resize_(2, 3)
    x.requires_grad_()
    (x[1] * mg.tensor([1.0, 2.0, 3.0])).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 0, 0], [1, 2, 3]])


@pytest.mark.parametrize("changed_before", [False, True])
def test_shapes_change_in_the_graph(changed_before):
    x = mg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = x * 2
    row = y[0]
    if changed_before:
        y.mul_(1)
    assert y.t_() is y and y.shape == (3, 2) and y.requires_grad and not y.is_leaf
    row.mul_(3)                                                 # a view of before, and one of after
    y[1].add_(row[1])
    (y.unsqueeze_(0).squeeze_() * mg.tensor([[1.0, 2], [3, 4], [5, 6]])).sum().backward()
    np.testing.assert_array_equal(y.detach().numpy(), [[0, 6], [12, 14], [12, 10]])
    np.testing.assert_array_equal(x.grad.numpy(), [[6, 60, 30], [4, 8, 12]])
    (s := x * 2).as_strided_((2, 2), (1, 3), 1).sum().backward()
    assert s.tolist() == [[2, 8], [4, 10]] and x.grad.tolist() == [[6, 62, 32], [4, 10, 14]]
    z = x * 2
    z.retain_grad()
    z.unsqueeze_(0).sum().backward()
    assert z.grad.shape == (1, 2, 3)
    w = (x * 2)
    product = w * x
    w.transpose_(0, 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_nonzero_static_is_nonzero():
    x = mg.tensor([[0, 1], [2, 0]])
    assert mg.nonzero_static(x, size=2).tolist() == mg.nonzero(x).tolist() and mg.nonzero_static(x, size=3)[2].tolist() == [-1, -1]


@pytest.mark.parametrize("call, kind, text", [
    (lambda: mg.ones(2, requires_grad=True).unsqueeze_(0), RuntimeError, "leaf Variable that requires grad"),
    (lambda: mg.ones(2, requires_grad=True)[:1].t_(), RuntimeError, "view of a leaf Variable"),
    (lambda: (mg.ones(2, 2, requires_grad=True) * 1).unbind(0)[0].unsqueeze_(0), RuntimeError, "multiple views"),
    (lambda: (mg.ones(2, requires_grad=True) * 1).resize_(1, 2), RuntimeError, "in a graph"),
    (lambda: mg.ones(2).set_(mg.ones(2, dtype=mg.float64)), RuntimeError, "dtype"),
    (lambda: (mg.ones(2, requires_grad=True) * 1).resize_(2), RuntimeError, "in a graph"),
    (lambda: mg.ones(2).resize_(2, memory_format="x"), NotImplementedError, "memory_format"),
    (lambda: mg.ones(2).masked_scatter(mg.tensor([True, True]), mg.ones(0)), RuntimeError, "each True"),
    (lambda: mg.nonzero_static(mg.ones(2), size=-1), RuntimeError, "negative"),
])
def test_refusals(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_as_strided_is_a_view():
    base = mg.arange(12.0)
    x = base[2:]
    y = x.as_strided((2, 2), (3, 1), 4)                     # counted from the memory's begin, as PyTorch does
    assert y.tolist() == [[4.0, 5.0], [7.0, 8.0]] and x.as_strided((2,), (1,)).tolist() == [2.0, 3.0]
    y.fill_(0)
    assert base.tolist() == [0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 6.0, 0.0, 0.0, 9.0, 10.0, 11.0]
    mg.as_strided_copy(x, (2,), (1,)).fill_(9)
    assert base[2].item() == 2
    assert x.as_strided((2,), (1,), 0).data_ptr() == base.data_ptr() and base[2:4].as_strided((2,), (1,), 10).tolist() == [10.0, 11.0]
    with pytest.raises(RuntimeError, match="outside the tensor"):
        x.as_strided((2,), (1,), 11)                        # beyond the memory
    with pytest.raises(RuntimeError, match="outside the tensor"):
        x.requires_grad_().as_strided((2,), (1,), 0)        # before what has a gradient


def test_as_strided_sees_the_memory_of_a_transposed_tensor():
    base = mg.arange(12.0).reshape(3, 4)
    assert base.t().as_strided((2, 2), (1, 2)).tolist() == [[0.0, 2.0], [1.0, 3.0]]
    assert base[:, 1:3].as_strided((2, 2), (1, 2)).tolist() == [[1.0, 3.0], [2.0, 4.0]]             # with gaps, outside a graph
    x = mg.arange(12.0, requires_grad=True)
    turned = (x * 1).reshape(3, 4).t()
    seen = turned.as_strided((2, 2), (1, 4), 1)
    assert seen.tolist() == [[1.0, 5.0], [2.0, 6.0]]
    (seen * mg.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert x.grad.tolist() == [0, 1, 3, 0, 0, 2, 4, 0, 0, 0, 0, 0]
    with pytest.raises(RuntimeError, match="must be contiguous"):
        turned[1:3].as_strided((2,), (1,))
    assert mg.as_strided_scatter(base.t(), mg.zeros(2), (2,), (1,), 1).t().tolist() == [[0, 0, 0, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert mg.as_strided_scatter(base[1], mg.zeros(2), (2,), (1,), 5).tolist() == [4, 0, 0, 7]      # counted as as_strided counts


def test_what_as_strided_sees_beyond_a_view_belongs_to_the_base():
    base, s = mg.arange(6.0), mg.tensor(2.0, requires_grad=True)
    before, behind = base[1:4].as_strided((2,), (1,), 0), base[3:].as_strided((2,), (1,), 1)
    before.mul_(s)
    assert base.tolist() == [0, 2, 2, 3, 4, 5] and base.requires_grad and behind.requires_grad
    assert mg.autograd.grad(behind.sum(), s)[0].item() == 1
    for array in (as_strided(np.full(4, 7.0, "f"), (2**40,), (0,)),
                  np.arange(4.0)[::-1]):                    # less memory than elements, or before the first of them
        with pytest.raises(RuntimeError):
            mg.from_numpy(array)[1:].as_strided((1,), (1,), 2**39)
        with pytest.raises(RuntimeError):
            mg.from_numpy(array)[1:].as_strided((4,), (1,), 0)
    with pytest.raises(RuntimeError, match="must fill its memory"):
        mg.as_strided_scatter(mg.arange(8.0)[::2], mg.ones(2), (2,), (2,))


def test_sizes_and_strides_are_tuples():
    with pytest.raises(TypeError, match=r"^\[as_strided\] size and stride must be tuples; got 2, 1;"):
        mg.arange(10).as_strided(2, 1)


def changed_through_a_view(lib, size, stride, offset, expanded=False):
    a = lib.arange(1.0, 13.0, requires_grad=True)
    x = a * 1
    y = x.as_strided(size, stride, offset)
    y.mul_(2.0)
    if expanded:                                            # the gradient is one number, seen 12 times
        x.sum().backward()
        return [t.detach().numpy() for t in (x, y, a.grad)]
    x.mul_(3.0)
    ((x * x).sum() + (y ** 3).sum()).backward()
    return [t.detach().numpy() for t in (x, y, a.grad)]


@pytest.mark.parametrize("arguments", [((2, 3), (4, 1), 1), ((3, 2), (1, 5), 0)])
def test_as_strided_is_changed_in_place_as_in_pytorch(torch, arguments):
    for expanded in (False, True):
        for mine, theirs in zip(*[changed_through_a_view(lib, *arguments, expanded) for lib in (mg, torch)], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_segments_that_leave_elements_out():
    x = mg.arange(5.0, requires_grad=True)
    found = mg.segment_reduce(x, "sum", offsets=mg.tensor([1, 2, 2, 4]))
    assert found.tolist() == [1.0, 0.0, 5.0]
    found.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert np.isnan(mg.segment_reduce(x, "mean", lengths=mg.tensor([5, 0]))[1].item())
    assert mg.segment_reduce(x, "max", lengths=mg.tensor([2, 3]), initial=3.0).tolist() == [3.0, 4.0]


def test_no_segments():
    none = mg.tensor([], dtype=mg.int64)
    assert mg.segment_reduce(mg.ones(0, 3), "sum", lengths=none).shape == (0, 3) and mg.segment_reduce(mg.ones(5), "sum", offsets=none.new_tensor([2])).shape == (0,)
    assert mg.segment_reduce(mg.ones(2, 0), "sum", lengths=none.reshape(1, 0).expand(2, 0), axis=1).shape == (2, 0)
    for counts in ({"lengths": mg.zeros(0, 2, dtype=mg.int64), "unsafe": True}, {"offsets": mg.zeros(0, 3, dtype=mg.int64)}):
        assert mg.segment_reduce(mg.ones(0, 4), "mean", axis=1, **counts).shape == (0, 2)


def test_the_gradient_of_an_extreme_goes_to_its_nan():
    """As that of `max`: several NaNs share it."""
    for how in ("amax", "amin"):
        x, src = mg.tensor([0.0, mg.nan, 2.0], requires_grad=True), mg.tensor([1.0, mg.nan, 3.0, mg.nan, 2.0], requires_grad=True)
        mg.scatter_reduce(x, 0, mg.tensor([0, 0, 0, 1, 2]), src, how).sum().backward()
        assert x.grad.tolist() == [0, 0.5, 0.5] and src.grad.tolist() == [0, 1, 0, 0.5, 0.5]
    data = mg.tensor([1.0, mg.nan, 3.0], requires_grad=True)
    mg.segment_reduce(data, "max", lengths=mg.tensor([1, 2])).sum().backward()
    assert data.grad.tolist() == [1, 1, 0]


def test_the_gradient_of_a_nan_among_factors_is_the_product_of_the_others():
    data = mg.tensor([1.0, mg.nan, 3.0, 4.0, 0.0], requires_grad=True)
    mg.segment_reduce(data, "prod", lengths=mg.tensor([1, 2, 2]), initial=2.0).sum().backward()
    assert str(data.grad.tolist()) == "[2.0, 6.0, nan, 0.0, 8.0]"


def test_segments_of_nothing_are_part_of_the_graph():
    for how in ("sum", "mean", "max", "min", "prod"):
        data = mg.ones(0, 3, requires_grad=True)
        mg.segment_reduce(data, how, lengths=mg.tensor([0, 0]), initial=2.0).sum().backward()
        assert data.grad.shape == (0, 3)


def test_parts_replaced_by_a_tensor_outside_of_the_graph():
    """The gradient needs the size of what is written, and no edge of the graph has it."""
    for f, want in ((lambda x: x.select_scatter(mg.ones(3), 0, 0), [[0, 0, 0], [1, 1, 1]]), (lambda x: x.slice_scatter(mg.ones(2, 1), 1, 2), [[1, 1, 0]] * 2),
                    (lambda x: x.diagonal_scatter(mg.ones(2)), [[0, 1, 1], [1, 0, 1]]),
                    (lambda x: x.scatter_reduce(0, mg.tensor([[0]]), mg.ones(2, 3), "amax", include_self=False), [[0, 1, 1], [1, 1, 1]])):
        x = mg.zeros(2, 3, requires_grad=True)
        y = f(x)
        assert mg.autograd.grad(y.sum(), x)[0].tolist() == want
        first, = mg.autograd.grad((f(x) ** 3).sum(), x, create_graph=True)
        assert mg.autograd.grad(first.sum(), x)[0].tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_no_places_to_reduce_at(reduce):
    x, source = mg.ones(2, requires_grad=True), mg.ones(3, requires_grad=True)
    y = x.scatter_reduce(0, mg.empty(0, dtype=mg.int64), source, reduce)
    assert [g.tolist() for g in mg.autograd.grad(y.sum(), [x, source])] == [[1, 1], [0, 0, 0]]
    with pytest.raises(RuntimeError, match="dtype"):
        x.scatter_reduce(0, mg.empty(0, dtype=mg.int64), mg.ones(3, dtype=mg.float64), reduce)
