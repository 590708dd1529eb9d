"""Views beyond their samples."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg


def test_writing_into_expanded():
    with pytest.raises(RuntimeError, match="share one place"):
        mg.zeros(1).expand(3).add_(mg.ones(3))


def test_memory_read_as_another_dtype():
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x.view(mg.int32)
    np.testing.assert_array_equal(y.numpy(), x.numpy().view(np.int32))
    y[0, 0] = 0
    assert x.tolist() == [[0.0, 2.0], [3.0, 4.0]]                       # one memory
    for dtype in (mg.uint8, mg.int64, mg.float64, mg.float16):
        np.testing.assert_array_equal(x.view(dtype).numpy(), x.numpy().view(dtype))
    assert mg.ones(4).bfloat16().view(dtype=mg.int16).tolist() == [16256] * 4 and x.view("float32").shape == (2, 2)
    leaf = mg.ones(2, requires_grad=True)
    assert not leaf.view(mg.int32).requires_grad
    z = leaf * leaf
    leaf.detach().view(mg.int32).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
    b = mg.arange(16).to(mg.uint8)
    for call, error, text in ((lambda: b[1:9].view(mg.int32), RuntimeError, "multiple of 4 bytes"), (lambda: b[:3].view(mg.int32), RuntimeError, "last size"),
                              (lambda: x.T.view(mg.float64), RuntimeError, "last stride"), (lambda: mg.tensor(1.0).view(mg.uint8), RuntimeError, "cannot be read as uint8"),
                              (lambda: b.view(mg.bool), RuntimeError, "bools"), (lambda: (b > 1).view("uint8").fill_(255), RuntimeError, r"bools, share no memory.*convert with \.to\(uint8\)"),
                              (lambda: mg.ones(4).view((2, 2), dtype="int32"), TypeError, "a shape or a dtype, not both"), (lambda: mg.ones(4).view("int8", dtype="int32"), TypeError, "not both"),
                              (lambda: leaf.view(mg.float64), RuntimeError, "requires a gradient"),
                              *[(lambda wrong=wrong: x.view(wrong), TypeError, r"\[(view|index)\]") for wrong in (None, 3.5, "S", mg.ones(2), complex)]):
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("shape", [(2,), (2, 3, 4)])
def test_h_is_the_transpose_of_a_matrix(shape):
    assert mg.ones(2, 3).H.shape == (3, 2) and mg.ones(()).H.shape == ()
    with pytest.raises(RuntimeError, match="dimensions"):
        _ = mg.ones(shape).H


def test_ravel_is_contiguous():
    x = mg.arange(12).reshape(4, 3)
    assert x[:, 0].ravel().is_contiguous() and x[:, 0].ravel().tolist() == [0, 3, 6, 9]
    assert x.ravel().data_ptr() == x.data_ptr() and x.t().ravel().tolist() == x.t().reshape(-1).tolist()


@pytest.mark.parametrize("cut", [lambda x: x.chunk(2, 2)[1], lambda x: x.narrow(2, 4, 2), lambda x: x[:, :, 3:],
                                 lambda x: x.unbind(2)[5], lambda x: x.select(2, 4), lambda x: x.diagonal(2, 2, 3)])
def test_a_captured_view_of_no_elements(cut):
    """It began beyond the memory of its tensor, which then was nobody's."""
    x = mg.zeros(0, 3, 6, 8)
    step = mg.capture(lambda x: cut(x) * 2)
    assert step(x).shape == step(x).shape == cut(x).shape
