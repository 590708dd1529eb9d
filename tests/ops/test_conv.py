"""Convolution and pooling beyond their samples: kernels against definitions on shapes drawn at random, large images, ties and NaN, a CNN captured."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import nn, optim, testing
from minigrad.core.op import set_fused
from minigrad.nn import functional as F
from minigrad.ops.conv import conv_sizes, convolution, convolution_transpose, transposed_sizes
from minigrad.ops.pool import adaptive_max_pool, avg_pool, max_pool, sliding


def values(*shape, seed=0, dtype=np.float64):
    return mg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def both_paths(op, args, attrs, tolerance=1e-11):
    """Outputs and gradients of the kernels against those of the definition."""
    with set_fused("require"):
        got = testing.evaluate(op, args, attrs)
    with set_fused("off"):
        want = testing.evaluate(op, args, attrs)
    for a, b in zip([*got[0], *got[1]], [*want[0], *want[1]], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max()), err_msg=str(attrs))


numbers = lambda dims, low, high: st.tuples(*[st.integers(low, high)] * dims)      # noqa: E731


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


# ---- pooling ----------------------------------------------------------------------------------------------------------

@st.composite
def poolings(draw):
    dims = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(numbers(dims, 1, 4)), draw(numbers(dims, 1, 4)), draw(numbers(dims, 1, 3))
    size, padding = draw(numbers(dims, 1, 20 if dims < 3 else 6)), draw(numbers(dims, 0, 2))
    return draw(st.integers(1, 4)), size, kernel, stride, padding, dilation, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(poolings())
def test_pooling_kernels_on_any_shape(case):
    """With many equal elements, so that the order in which they are looked at counts."""
    n, size, kernel, stride, padding, dilation, ceil_mode, include = case
    padding = tuple([min(p, k // 2) for p, k in zip(padding, kernel, strict=True)])
    x = mg.tensor(np.random.default_rng(0).integers(0, 4, (n, *size)).astype(np.float64))
    windows = sliding(size, kernel, stride, padding, dilation, ceil_mode)
    if all(windows) and all(b < e for spans in windows for b, e in spans):
        both_paths(max_pool, (x,), {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode})
    if all(sliding(size, kernel, stride, padding, (1,) * len(size), ceil_mode)):
        both_paths(avg_pool, (x,), {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode,
                                    "count_include_pad": include, "divisor_override": None})
    both_paths(adaptive_max_pool, (x,), {"output_size": kernel})


@pytest.mark.parametrize("fused", ["require", "off"])
def test_max_pool_of_nan_and_infinities_is_torchs(fused):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.choice([np.nan, -np.inf, np.inf, 0.0, 1.0, 2.0], (4, 3, 13, 11), p=[0.1, 0.3, 0.05, 0.25, 0.2, 0.1])
    x[0] = -np.inf
    for kernel, stride, padding, dilation, ceil_mode in ((2, 2, 0, 1, False), (3, 2, 1, 1, True), (3, 1, 1, 2, False)):
        want = torch.nn.functional.max_pool2d(torch.tensor(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        with set_fused(fused):
            got = F.max_pool2d(mg.tensor(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        np.testing.assert_array_equal(got[0].numpy(), want[0].numpy())
        np.testing.assert_array_equal(got[1].numpy(), want[1].numpy())


def test_the_mean_of_many_elements_is_accurate():
    x = np.random.default_rng(0).uniform(9999, 10001, (1, 1, 3000, 64)).astype(np.float32)
    for shape in ((1, 1, 3000, 64), (1, 1, 1, 192000)):
        y = F.adaptive_avg_pool2d(mg.tensor(x.reshape(shape)), 1).item()
        assert abs(y - x.astype(np.float64).mean()) < 1e-2


# ---- layers -----------------------------------------------------------------------------------------------------------

def test_output_size_of_a_transposed_layer():
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = mg.zeros(1, 2, 5, 5)
    assert layer(x).shape == (1, 3, 9, 9)
    assert layer(x, output_size=(10, 9)).shape == (1, 3, 10, 9) and layer(x[0], output_size=(3, 10, 10)).shape == (3, 10, 10)
    with pytest.raises(ValueError, match=r"\[ConvTranspose2d\] output_size must be from \[9, 9\] to \[10, 10\]"):
        layer(x, output_size=(11, 9))
    with pytest.raises(ValueError, match="must have 2 or 4 elements"):
        layer(x, output_size=(11,))


def test_initial_values():
    """U(-k, k) with k = 1 / sqrt(fan in), weight and bias."""
    mg.manual_seed(0)
    for layer, bound in ((nn.Conv2d(8, 64, 3), 1 / np.sqrt(72)), (nn.Conv2d(8, 64, 3, groups=4), 1 / np.sqrt(18)),
                         (nn.ConvTranspose1d(64, 16, 5), 1 / np.sqrt(80))):
        for p in (layer.weight, layer.bias):
            v = p.numpy(force=True)
            assert np.abs(v).max() <= bound and np.abs(v).max() > 0.8 * bound and abs(v.mean()) < 0.2 * bound


def test_what_layers_refuse():
    for arguments, options, kind, text in (((4, 4, 3), {"padding": "same", "stride": 2}, ValueError, "strided"),
                                           ((4, 4, 3), {"padding": "half"}, ValueError, r"\[Conv2d\] padding must be.*got 'half'"),
                                           ((4, 4, 3), {"padding_mode": "mirror"}, ValueError, "padding_mode"),
                                           ((3, 4, 3), {"groups": 2}, ValueError, "divisible"),
                                           ((4, 4, 3), {"groups": 0}, ValueError, "positive")):
        with pytest.raises(kind, match=text):
            nn.Conv2d(*arguments, **options)
    with pytest.raises(ValueError, match="zeros"):
        nn.ConvTranspose2d(4, 4, 3, padding_mode="reflect")
    x, w = mg.zeros(1, 2, 5, 5), mg.zeros(3, 2, 3, 3)
    for call, text in ((lambda: F.conv2d(x, w, padding="same", stride=2), "stride 1"), (lambda: F.conv2d(x, w, padding="half"), "'valid'"),
                       (lambda: F.conv2d(x, w, stride=(1, 2, 3)), "stride must be a whole number or 2"),
                       (lambda: F.conv2d(x[0, 0], w), r"\[conv2d\] the input must have 4 dimensions"),
                       (lambda: F.conv1d(x, w), r"\[conv1d\]"), (lambda: F.max_pool2d(x[:, :0], 2), "only the batch may be empty"),
                       (lambda: F.max_pool2d(x, 7), "at least one element")):
        with pytest.raises(RuntimeError, match=text):
            call()


def small_cnn():
    mg.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 9, 3, stride=2, padding=1),
                          nn.ReLU(), nn.AvgPool2d(2), nn.ConvTranspose2d(9, 4, 2, stride=2), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    def step(x, t):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss
    return model, step


def test_a_captured_cnn_has_the_bits_of_the_eager_one():
    rng = np.random.default_rng(0)
    batches = [(mg.tensor(rng.standard_normal((5, 1, 8, 8)).astype(np.float32)), mg.tensor(rng.integers(0, 10, 5))) for _ in range(20)]
    eager_model, eager = small_cnn()
    losses = [eager(*b).item() for b in batches]
    captured_model, step = small_cnn()
    captured = mg.capture(step)
    assert [captured(*b).item() for b in batches] == losses
    for (name, a), b in zip(eager_model.state_dict().items(), captured_model.state_dict().values(), strict=True):
        assert (a.numpy() == b.numpy()).all(), name
    assert losses[-1] < losses[0]


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


def test_indices_that_were_written_to_lead_no_gradient_astray():
    x = mg.randn(1, 2, 4, 4, requires_grad=True)
    y, index = F.max_pool2d(x, 2, return_indices=True)
    index.numpy()[...] = [[[1 << 40, -1], [0, -1 << 63]]] * 2
    y.sum().backward()
    assert x.grad.sum().item() == 2
