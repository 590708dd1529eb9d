"""Convolution beyond its samples: kernels against definitions on shapes drawn at random, large images, infinities, absurd sizes."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import both_paths, numbers

import minigrad as mg
from minigrad import testing
from minigrad.devices.base import NoKernel
from minigrad.devices.memory import layout
from minigrad.devices.native import get_num_threads, set_num_threads
from minigrad.nn import functional as F
from minigrad.ops.conv import _geometry, conv_sizes, convolution, convolution_transpose, transposed_sizes
from minigrad.ops.dispatch import set_fused


def values(*shape, seed=0, dtype=np.float64):
    return mg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


@st.composite
def convolutions(draw):
    dims = draw(st.integers(1, 3))
    groups, c, k = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 3, 4, 6, 17]))
    kernel, stride, dilation = draw(numbers(dims, 1, 4)), draw(numbers(dims, 1, 3)), draw(numbers(dims, 1, 3))
    size, before, after = draw(numbers(dims, 1, 12 if dims < 3 else 5)), draw(numbers(dims, 0, 4)), draw(numbers(dims, 0, 4))
    return draw(st.integers(1, 5)), groups, c, k, size, kernel, stride, dilation, before, after


@settings(max_examples=150, deadline=None, derandomize=True)
@given(convolutions())
def test_convolution_kernels_on_any_shape(case):
    n, groups, c, k, size, kernel, stride, dilation, before, after = case
    padding = tuple(zip(before, after, strict=True))
    if min(conv_sizes(size, kernel, stride, padding, dilation)) < 1:
        return
    args = values(n, groups * c, *size), values(groups * k, c, *kernel, seed=1), values(groups * k, seed=2)
    both_paths(convolution, args, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups})


@settings(max_examples=150, deadline=None, derandomize=True)
@given(convolutions())
def test_transposed_convolution_kernels_on_any_shape(case):
    n, groups, c, k, size, kernel, stride, dilation, padding, extra = case
    extra = tuple([min(e, max(s, d) - 1) for e, s, d in zip(extra, stride, dilation, strict=True)])
    if min(transposed_sizes(size, kernel, stride, padding, extra, dilation)) < 1:
        return
    args = values(n, groups * k, *size), values(groups * k, c, *kernel, seed=1), values(groups * c, seed=2)
    both_paths(convolution_transpose, args, {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups})


@pytest.mark.parametrize(("x", "w", "stride", "groups"), [
    ((2, 3, 67, 70), (5, 3, 3, 3), 1, 1),           # parts of an image
    ((1, 4, 129, 65), (8, 1, 5, 5), 2, 4),          # depthwise in parts
    ((2, 2, 5000), (7, 2, 9), 3, 1),
    ((1, 2, 5, 40, 40), (3, 2, 3, 3, 3), 1, 1),
    ((40, 33, 3, 3), (9, 33, 3, 3), 1, 1),          # many images in a strip, more than one block of steps
])
def test_convolutions_that_are_cut_up(x, w, stride, groups):
    dims = len(x) - 2
    attrs = {"stride": (stride,) * dims, "padding": ((1, 1),) * dims, "dilation": (1,) * dims, "groups": groups}
    both_paths(convolution, (values(*x), values(*w, seed=1), values(w[0], seed=2)), attrs)


def test_a_sample_has_the_same_bits_in_any_batch():
    x, w, b = values(7, 5, 6, 6, dtype=np.float32), values(19, 5, 3, 3, dtype=np.float32), values(19, dtype=np.float32)
    whole = F.conv2d(x, w, b, padding=1).numpy()
    for i in range(7):
        assert (F.conv2d(x[i:i + 1], w, b, padding=1).numpy()[0] == whole[i]).all()


# ---- 3 x 3 without a step and with many channels: native/winograd.c, float32 ------------------------------------------

def in_float32(n, c, h, w, k, padding):
    return (values(n, c, h, w, dtype=np.float32), values(k, c, 3, 3, seed=1, dtype=np.float32), values(k, seed=2, dtype=np.float32),
            {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1})


def both_within(op, args, attrs):
    """Outputs and gradients of the kernels: their errors may be three times those of the definition, as in the conformance tests."""
    with set_fused("require"):
        got = testing.evaluate(op, args, attrs)
    with set_fused("off"):
        plain, truth = testing.evaluate(op, args, attrs), testing.evaluate(op, [a if a is None else a.double() for a in args], attrs)
    for one in (0, 1):
        for k, (a, b, c) in enumerate(zip(got[one], plain[one], truth[one], strict=True)):
            if a is not None:
                testing.arbitrate(a, b, c, f"{('output', 'gradient')[one]} {k} of {[a.shape for a in args if a is not None]} {attrs}")


@pytest.mark.parametrize(("x", "w", "stride", "padding", "dilation", "groups"), [
    ((2, 16, 9, 13), (32, 16, 5, 5), 1, 2, 1, 1),           # more than one block of steps
    ((3, 16, 6, 31), (96, 8, 3, 3), 1, 2, 2, 2),            # three vectors of outputs in a group, tiles of 8 and 7 positions
    ((5, 36, 9, 18), (60, 36, 4, 4), 2, 1, 1, 1),           # several images in a piece, outputs that fill no vector
    ((1, 100, 257), (32, 100, 3), 1, 1, 1, 1),              # a row in parts, the last position alone
    ((2, 6, 4, 7, 9), (32, 6, 3, 2, 3), 1, 1, 1, 1),
    ((1, 4, 60, 50), (32, 4, 3, 5), 1, 3, 3, 1),            # parts of an image
])
def test_convolutions_whose_vectors_are_of_outputs(x, w, stride, padding, dilation, groups, level):
    """Turned tiles of native/conv.c: the errors, and the same bits on any number of threads."""
    dims = len(x) - 2
    attrs = {"stride": (stride,) * dims, "padding": (padding,) * dims, "dilation": (dilation,) * dims, "groups": groups}
    one, two, back = (values(*shape, dtype=np.float32) for shape in (x, w, (x[0], w[0], *x[2:])))
    before = get_num_threads()
    for op, args, rest in [(convolution, (one, two, values(w[0], dtype=np.float32)), {"padding": ((padding, padding),) * dims}),
                           (convolution_transpose, (back, two, values(x[1], dtype=np.float32)), {"output_padding": (0,) * dims})]:
        both_within(op, args, {**attrs, **rest})
        results = []
        try:
            for threads in (1, 2):
                set_num_threads(threads)
                out, gradients = testing.evaluate(op, args, {**attrs, **rest})
                results.append([*out, *gradients])
        finally:
            set_num_threads(before)
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("n", "c", "h", "w", "k", "padding"), [
    (1, 16, 8, 8, 16, ((1, 1), (1, 1))),            # one block of tiles
    (2, 31, 9, 7, 61, ((0, 2), (2, 1))),            # odd sizes, channels that fill no vector
    (1, 33, 1, 12, 47, ((1, 1), (0, 0))),           # one line
    (3, 300, 4, 5, 20, ((2, 2), (1, 0))),           # two chains over c
    (9, 16, 14, 13, 30, ((1, 1), (1, 1))),          # blocks that begin and end inside an image
    (2, 265, 10, 76, 54, ((1, 0), (0, 0))),         # blocks beside each other
    (1, 16, 3, 1100, 16, ((1, 1), (2, 2))),
])
def test_convolutions_by_fewer_multiplications(n, c, h, w, k, padding):
    *args, attrs = in_float32(n, c, h, w, k, padding)
    both_within(convolution, args, attrs)
    transposed = {**attrs, "padding": tuple([p[0] for p in padding]), "output_padding": (0, 0)}
    both_within(convolution_transpose, (values(n, k, h, w, dtype=np.float32), args[1], values(c, dtype=np.float32)), transposed)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(14, 50), st.integers(14, 50), numbers(2, 1, 17), numbers(4, 0, 3))
def test_convolutions_by_fewer_multiplications_on_any_shape(n, c, k, size, padding):
    *args, attrs = in_float32(n, c, *size, k, (padding[:2], padding[2:]))
    if min(conv_sizes(size, (3, 3), **{key: attrs[key] for key in ("stride", "padding", "dilation")})) > 0:
        both_within(convolution, args, attrs)


@pytest.mark.parametrize("shape", [
    (24, 16, 14, 14, 32), (5, 40, 12, 12, 33), (3, 32, 30, 34, 33),
    (17, 180, 16, 16, 190),                         # sums of the weights' gradient of as many groups as there are threads
])
def test_fewer_multiplications_give_the_same_bits_on_any_number_of_threads_and_in_any_batch(shape):
    *args, attrs = in_float32(*shape, ((1, 1), (1, 1)))
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            out, gradients = testing.evaluate(convolution, args, attrs)
            results.append([*out, *gradients])
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert (a == b).all()
    for i in (0, shape[0] - 1):
        assert (convolution(args[0][i:i + 1], *args[1:], **attrs).numpy()[0] == results[0][0][i]).all()


@pytest.mark.parametrize(("n", "groups", "k", "size", "kernel", "before", "dilation"), [
    (3, 1, 16, (8, 8), (3, 3), (1, 1), (1, 1)),
    (2, 3, 9, (4, 12), (2, 4), (0, 3), (1, 1)),     # padding on one side more than on the other
    (2, 2, 300, (6, 16), (2, 3), (1, 0), (3, 2)),   # two chains over the outputs
    (5, 1, 8, (16,), (4,), (1,), (2,)),
    (1, 1, 8, (16, 1), (3, 3), (2, 1), (1, 1)),     # more taps than columns
    (14, 1, 33, (28, 28), (3, 3), (1, 1), (1, 1)),
])
def test_the_gradient_of_one_channel(n, groups, k, size, kernel, before, dilation, level):
    """Same sizes of input and output: products come first, then the taps."""
    ones, spread = (1,) * len(size), [(a - 1) * d for a, d in zip(kernel, dilation, strict=True)]
    padding = tuple([(b, all_ - b) for b, all_ in zip(before, spread, strict=True)])
    attrs = {"stride": ones, "padding": padding, "dilation": dilation, "groups": groups}
    for dtype in (np.float32, np.float64):
        args = [values(*shape, seed=i, dtype=dtype) for i, shape in enumerate(((n, groups, *size), (groups * k, 1, *kernel), (groups * k,)))]
        both_within(convolution, args, attrs)
        if all(a == b for a, b in padding):
            x, bias = values(n, groups * k, *size, dtype=dtype), values(groups, dtype=dtype)
            even = {**attrs, "padding": tuple([a for a, _ in padding]), "output_padding": (0,) * len(size)}
            both_within(convolution_transpose, (x, args[1], bias), even)


def test_the_gradient_of_one_channel_has_the_same_bits_on_any_number_of_threads_and_in_any_batch():
    g, w = values(40, 16, 8, 8, dtype=np.float32), values(16, 1, 3, 3, seed=1, dtype=np.float32)
    g.numpy()[3, 5, 0, 7] = np.nan                  # stays in its image, and with the taps that read it
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            results.append(F.conv_transpose2d(g, w, padding=1).numpy())
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(F.conv_transpose2d(g[3:5], w, padding=1).numpy(), results[0][3:5])
    expected = np.zeros((40, 1, 8, 8), bool)
    expected[3, 0, 0:2, 6:8] = True
    np.testing.assert_array_equal(np.isnan(results[0]), expected)


def test_the_gradient_of_the_weights_is_not_one_long_sum():
    """A sum of 100,000 positive products: 2 to 3 ulps off; as one sum of the blocks of tiles it would be 8.5."""
    draw = np.random.default_rng(0).random
    x, w, g = (draw(shape, dtype=np.float32) for shape in ((2, 16, 224, 224), (16, 16, 3, 3), (2, 16, 224, 224)))
    found = []
    for dtype, fused in ((np.float32, "require"), (np.float64, "off")):
        weight = mg.tensor(w.astype(dtype), requires_grad=True)
        with set_fused(fused):
            F.conv2d(mg.tensor(x.astype(dtype)), weight, padding=1).backward(mg.tensor(g.astype(dtype)))
        found.append(weight.grad.numpy())
    assert np.abs(found[0] - found[1]).max() < 5 * np.finfo(np.float32).eps * found[1].max()


@pytest.mark.parametrize("special", [np.inf, np.nan, 3e38])
@pytest.mark.parametrize("which", [0, 1])
def test_fewer_multiplications_spread_no_infinity_and_do_not_overflow_alone(special, which):
    """Results that do not read the element are as finite as those of the definition, and sums of large numbers too."""
    x, w = np.ones((1, 16, 8, 8), np.float32), np.full((16, 16, 3, 3), 1e-3, np.float32)
    if which:
        w[3, 5, 1, 2] = special
        x *= np.float32(1e-3)
    else:
        x[0, 5, 2, 3:5] = x[0, 5, 3, 3:5] = special
    attrs = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    both_within(convolution, (mg.tensor(x), mg.tensor(w), None), attrs)


@pytest.mark.parametrize("special", [np.inf, np.nan])
def test_what_is_not_finite_stays_where_it_belongs(special):
    """A weight that is not finite must not meet the zeros between and around the inputs of a transposed convolution."""
    w = np.ones((2, 2, 3, 3))
    w[0, 1, 0, 2] = special
    args = values(1, 2, 4, 4), mg.tensor(w), None
    attrs = {"stride": (2, 2), "padding": (1, 1), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1}
    with set_fused("require"):
        got = convolution_transpose(*args, **attrs).numpy()
    with set_fused("off"):
        want = convolution_transpose(*args, **attrs).numpy()
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    assert np.isfinite(got).any()


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_steps_that_are_never_taken_may_be_any_number(fused):
    """The stride from a lone output and the dilation of a lone tap, up to the largest int64: what adds them up must not wrap round."""
    most = (1 << 63) - 1
    x = mg.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
    w = mg.ones(1, 1, 2, 2, requires_grad=True)
    one = mg.ones(1, 1, 1, 1, requires_grad=True)
    with set_fused(fused):
        for y, count in ((F.conv2d(x, w, stride=most), 4), (F.conv2d(x, one, dilation=most), 16),
                         (F.max_pool2d(x, 1, 1, dilation=most), 16), (F.max_pool2d(x, 2, most), 1)):
            assert mg.autograd.grad(y.sum(), x)[0].sum().item() == count
        y = F.conv_transpose2d(one, w, stride=most)
        assert y.tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]] and mg.autograd.grad(y.sum(), one)[0].item() == 4


def test_padding_beyond_all_memory_is_an_error_and_no_abort():
    x, w = mg.ones(1, 1, 1), mg.ones(1, 1, 2)
    with pytest.raises(MemoryError):
        F.conv1d(x, w, padding=1 << 43, dilation=1 << 44)
    with pytest.raises(MemoryError):
        F.conv_transpose1d(x, w, padding=1 << 43, dilation=1 << 44)
    with pytest.raises(RuntimeError, match="output_size must be at most"):
        F.adaptive_avg_pool1d(x, 1 << 40)


@pytest.mark.parametrize("channels, height, fast", [(15, 8, False), (16, 8, True), (32, 8, True), (16, 5, True), (16, 3, False)])
def test_which_convolutions_are_winograds(channels, height, fast):
    """A filter that copies, and an image of one pixel, are exact in the direct sum and not after Winograd's transforms."""
    fast = fast and mg.simd_level() != "baseline"
    rng, shape = np.random.default_rng(0), (1, channels, height, 8)
    copying = np.zeros((channels, channels, 3, 3), np.float32)
    copying[range(channels), range(channels), 1, 1] = 1
    pixel = np.zeros(shape, np.float32)
    pixel[:, :, 1, 4] = 1
    x, g = rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)
    image, weight = mg.tensor(x, requires_grad=True), mg.tensor(copying, requires_grad=True)
    y = F.conv2d(image, weight, padding=1)
    y.backward(mg.tensor(g))
    assert np.array_equal(y.detach().numpy(), x) != fast
    assert np.array_equal(image.grad.numpy(), g) != fast
    weight.grad = None
    F.conv2d(mg.tensor(pixel), weight, padding=1).backward(mg.tensor(g))
    want = np.broadcast_to(g[0, :, None, 2::-1, 5:2:-1], weight.shape)         # gw[m, c, dy, dx] = g[m, 2 - dy, 5 - dx]
    assert np.array_equal(weight.grad.numpy(), want) != fast
    np.testing.assert_allclose(weight.grad.numpy(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("x,weight,padding,stride,fits", [
    ((4, 2, 1 << 29), (3, 2, 5), (2, 2), 1, True),
    ((1, 4, 1 << 29), (3, 4, 5), (2, 2), 1, False),                     # the elements of an image of x,
    ((1, 2, 1 << 29), (4, 2, 5), (2, 2), 1, False),                     # or of y,
    ((1, 1, 8), (1, 1, 2), (0, 1 << 32), 4, False),                     # how far the last position reaches,
    ((1, 1 << 16, 4), (1 << 16, 1 << 16, 1), (0, 0), 1, False)])        # and the weights are counted in 32 bits
def test_images_that_kernels_cannot_count_go_to_the_definition(x, weight, padding, stride, fits):
    device, dtype = mg.device("cpu"), np.dtype("float32")
    y = x[0], weight[0], *conv_sizes(x[2:], weight[2:], (stride,), (padding,), (1,))
    x, weight, y = (layout(device, dtype, shape) for shape in (x, weight, y))
    if fits:
        _geometry(x, weight, y, (stride,), padding[:1], (1,), 1)
        return
    with pytest.raises(NoKernel, match="of less than 2.31 elements"):
        _geometry(x, weight, y, (stride,), padding[:1], (1,), 1)
