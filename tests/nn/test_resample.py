"""Resizing, windows and grids: what the samples of their ops do not say."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
import minigrad.nn.functional as F
from minigrad import nn

RNG = np.random.default_rng(0)


def test_layers_call_their_functions():
    x = mg.tensor(RNG.standard_normal((1, 4, 6, 6)))
    for layer, want in ((nn.Upsample(scale_factor=2), F.interpolate(x, scale_factor=2)),
                        (nn.Upsample((3, 4), mode="bilinear", align_corners=True), F.interpolate(x, (3, 4), mode="bilinear", align_corners=True)),
                        (nn.UpsamplingNearest2d(4), F.interpolate(x, 4)),
                        (nn.UpsamplingBilinear2d(scale_factor=2), F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)),
                        (nn.Unfold(2, stride=2), F.unfold(x, 2, stride=2)),
                        (nn.Fold((6, 6), 2, stride=2), x.new_zeros(1, 1, 6, 6))):
        given = mg.zeros(1, 4, 9, dtype=mg.float64) if isinstance(layer, nn.Fold) else x
        assert mg.equal(layer(given), want), layer
    assert repr(nn.Upsample(scale_factor=2)) == "Upsample(scale_factor=2.0, mode='nearest')"
    assert repr(nn.Unfold(2)) == "Unfold(kernel_size=2, dilation=1, padding=0, stride=1)"


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_bytes_are_resized_and_rounded(torch, mode, antialias):
    """Weights of PyTorch's have 16 bits: a unit more or less."""
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 11, 17), dtype=np.uint8)
    for size in ((5, 8), (23, 40), (11, 30)):
        got = F.interpolate(mg.from_numpy(x), size, mode=mode, antialias=antialias)
        want = torch.nn.functional.interpolate(torch.from_numpy(x), size, mode=mode, antialias=antialias)
        off = np.abs(got.numpy().astype(int) - want.numpy().astype(int))
        assert got.dtype == np.uint8 and off.max() <= 2 and (off > 0).mean() < 0.05
    with pytest.raises(NotImplementedError, match="floating-point"):
        F.interpolate(mg.from_numpy(x), 5, mode="area")
    assert F.interpolate(mg.tensor([[[[200, 100]]]], dtype="uint8"), (1, 3), mode="bilinear", align_corners=True).tolist() == [[[[200, 150, 100]]]]


def test_fold_is_the_transpose_of_unfold():
    x, y = mg.tensor(RNG.standard_normal((2, 3, 5, 7))), mg.tensor(RNG.standard_normal((2, 18, 24)))
    options = {"kernel_size": (3, 2), "dilation": (1, 2), "padding": 1, "stride": (2, 1)}
    columns = F.unfold(x, **options)
    y = mg.tensor(RNG.standard_normal(columns.shape))
    assert (columns * y).sum().item() == pytest.approx((x * F.fold(y, (5, 7), **options)).sum().item())


def test_convolution_by_unfold():
    x, weight = mg.tensor(RNG.standard_normal((2, 3, 5, 6))), mg.tensor(RNG.standard_normal((4, 3, 3, 2)))
    columns = weight.reshape(4, -1) @ F.unfold(x, (3, 2), padding=1)
    np.testing.assert_allclose(columns.reshape(2, 4, 5, 7).numpy(), F.conv2d(x, weight, padding=1).numpy(), 1e-9, 1e-9)


def test_the_identity_grid_gives_the_image_back():
    for shape in ((2, 3, 4, 5), (1, 2, 3, 4, 5)):
        x, dims = mg.tensor(RNG.standard_normal(shape)), len(shape) - 2
        theta = mg.eye(dims, dims + 1, dtype=mg.float64).expand(shape[0], dims, dims + 1)
        for align in (False, True):
            grid = F.affine_grid(theta, shape, align_corners=align)
            np.testing.assert_allclose(F.grid_sample(x, grid, align_corners=align).numpy(), x.numpy(), 1e-9, 1e-9)


@pytest.mark.filterwarnings("ignore:Since version")
def test_affine_grid_is_torchs(torch):
    theta = RNG.standard_normal((2, 2, 3))
    for align in (False, True):
        for size in ((2, 1, 3, 4), (2, 1, 1, 5)):
            want = torch.nn.functional.affine_grid(torch.tensor(theta), size, align_corners=align)
            np.testing.assert_allclose(F.affine_grid(mg.tensor(theta), size, align_corners=align).numpy(), want.numpy(), 1e-9, 1e-9)
    theta = RNG.standard_normal((1, 3, 4))
    want = torch.nn.functional.affine_grid(torch.tensor(theta), (1, 2, 2, 3, 4), align_corners=False)
    np.testing.assert_allclose(F.affine_grid(mg.tensor(theta), (1, 2, 2, 3, 4), align_corners=False).numpy(), want.numpy(), 1e-9, 1e-9)


@pytest.mark.filterwarnings("ignore:Since version")
@pytest.mark.parametrize("n", [7, 28])
def test_places_on_pixels_have_their_derivative_from_the_side_that_pytorchs_have(torch, n):
    """The identity, with which a spatial transformer begins: rounding decides."""
    image, theta = RNG.standard_normal((1, 1, n, n)).astype(np.float32), np.eye(2, 3, dtype=np.float32)[None]
    for align in (False, True):
        found = []
        for lib, functions in ((torch, torch.nn.functional), (mg, F)):
            grid = functions.affine_grid(lib.tensor(theta), (1, 1, n, n), align_corners=align).detach().requires_grad_()
            functions.grid_sample(lib.tensor(image), grid, align_corners=align).sum().backward()
            found.append((grid.detach().numpy(), grid.grad.numpy()))
        assert (found[0][0] == found[1][0]).all()
        np.testing.assert_allclose(found[1][1], found[0][1], 1e-4, 1e-4)


def test_older_names_warn():
    x = mg.zeros(1, 1, 2, 2)
    for call in (F.upsample, F.upsample_nearest, F.upsample_bilinear):
        with pytest.warns(UserWarning, match="older name"):
            assert call(x, scale_factor=2).shape == (1, 1, 4, 4)
    with pytest.warns(UserWarning, match="align_corners"):
        F.affine_grid(mg.zeros(1, 2, 3), (1, 1, 2, 2))


def test_places_that_are_no_numbers_do_no_harm():
    grid = mg.tensor([[[[float("nan"), float("inf")], [-float("inf"), 1e30]]]])
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            assert F.grid_sample(mg.ones(1, 1, 3, 3), grid, mode, padding, align_corners=False).shape == (1, 1, 1, 2)


@pytest.mark.parametrize("mode", ("bilinear", "nearest", "bicubic"))
def test_places_infinitely_far_away_are_outside(mode):
    image = mg.arange(1, 10, dtype=mg.float64).reshape(1, 1, 3, 3).requires_grad_()
    grid = mg.tensor([[[[float("inf"), 0], [-float("inf"), 0], [0, 1e300], [-4, 4.0]]]], dtype=mg.float64, requires_grad=True)
    for padding, expected, read in ("zeros", [0] * 4, 0), ("border", [6, 4, 8, 7], 4):
        out = F.grid_sample(image, grid, mode, padding, align_corners=False)
        assert out.tolist() == [[[pytest.approx(expected)]]]
        to_image, to_grid = mg.autograd.grad(out.sum(), (image, grid))
        assert to_image.sum().item() == pytest.approx(read) and to_grid[mg.isfinite(to_grid)].numel() == 8
        far = abs(grid) > 1
        assert (to_grid[far] == 0).all() and (padding == "border" or (to_grid == 0).all())


def test_the_nearest_element_is_a_step_function_of_the_grid():
    """A parameter that makes the grid has a gradient of 0, not none."""
    theta = mg.eye(2, 3).reshape(1, 2, 3).requires_grad_()
    F.grid_sample(mg.ones(1, 2, 3, 3), F.affine_grid(theta, (1, 2, 4, 4), align_corners=False), "nearest", align_corners=False).sum().backward()
    assert theta.grad.tolist() == [[[0] * 3] * 2]


@pytest.mark.parametrize("theta, size, kind", [(mg.zeros(1, 2, 3), (1, 1, 2), NotImplementedError), (mg.zeros(1, 3, 3), (1, 1, 2, 2), ValueError),
                                               (mg.zeros(1, 2, 3), (1, 1, 0, 2), ValueError), (mg.zeros(1, 2, 3, dtype=mg.int64), (1, 1, 2, 2), RuntimeError)])
def test_affine_grid_refuses(theta, size, kind):
    with pytest.raises(kind, match="affine_grid"):
        F.affine_grid(theta, size, align_corners=False)


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle"])
def test_a_shuffle_by_one_is_no_view(name):
    x = mg.ones(1, 2, 3, 3)
    getattr(mg.nn.functional, name)(x, 1).zero_()
    assert x.sum().item() == 18
