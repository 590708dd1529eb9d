"""Convolution layers: sizes, initial values, refusals, a captured CNN."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F


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
                       (lambda: F.max_pool2d(x, 7), "at least one window")):
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


def test_types_of_arguments():
    layer = nn.Conv2d(3, 8, 3)
    for run in (lambda: layer(None), lambda: F.conv2d(None, layer.weight), lambda: F.conv2d(mg.ones(1, 3, 4, 4), None),
                lambda: nn.Conv1d(3, 8, 3)(np.ones((1, 3, 4))), lambda: nn.ConvTranspose2d(3, 8, 3)(None), lambda: F.conv_transpose1d(None, None),
                lambda: nn.Conv2d(None, 8, 3), lambda: nn.Conv2d(3, 8, None), lambda: nn.Conv2d(3, 8, "3"), lambda: nn.Conv2d(3, 8, (3, 3.0)),
                lambda: nn.Conv2d(3, 8, 3, dilation="12"), lambda: nn.ConvTranspose2d(3, 8, 3, output_padding=1.5)):
        with pytest.raises(TypeError):
            run()
    for stride in (2, (3, 1), (1, 3), (3, 1, 1), [2]):
        with pytest.raises(ValueError, match="padding='same' is for stride 1"):
            nn.Conv2d(3, 8, 3, stride=stride, padding="same")
    with pytest.raises(RuntimeError, match="the input must have 4 dimensions"):
        F.conv2d(mg.zeros(1, 1, 4, 3), mg.zeros(1, 2, 2), padding="same")
    with pytest.raises(RuntimeError, match="stride must be a whole number or 2 of them"):
        nn.Conv2d(3, 8, 3, stride=(1, 1, 1))
