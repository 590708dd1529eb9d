"""Layers with batch normalization fused into them."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import utils

LAYERS = [("Conv2d", (4, 6, 3), {"groups": 2}, "BatchNorm2d", (2, 4, 5, 5)), ("Conv1d", (4, 6, 3), {"bias": False}, "BatchNorm1d", (2, 4, 9)),
          ("ConvTranspose2d", (4, 6, 3), {}, "BatchNorm2d", (2, 4, 5, 5)), ("Linear", (4, 6), {}, "BatchNorm1d", (3, 4)), ("Linear", (4, 6), {"bias": False}, "BatchNorm1d", (3, 4))]


def made(name, given, options, norm, affine):
    mg.manual_seed(0)
    layer, bn = getattr(nn, name)(*given, **options).double(), getattr(nn, norm)(6, affine=affine, eps=0.1).double()
    for t in (bn.running_mean, bn.running_var, *bn.parameters()):
        t.data = mg.rand(6, dtype=mg.float64) + 0.2
    return layer.eval(), bn.eval()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("name", "given", "options", "norm", "shape"), LAYERS)
def test_the_fused_layer_does_both(name, given, options, norm, shape, affine):
    layer, bn = made(name, given, options, norm, affine)
    fused = utils.fuse_linear_bn_eval(layer, bn) if name == "Linear" else utils.fuse_conv_bn_eval(layer, bn, "Transpose" in name)
    x = mg.randn(*shape, dtype=mg.float64)
    np.testing.assert_allclose(fused(x).detach().numpy(), bn(layer(x)).detach().numpy(), rtol=1e-9, atol=1e-12)
    assert type(fused) is type(layer) and fused is not layer and isinstance(fused.weight, nn.Parameter) and fused.weight.is_leaf and fused.bias.requires_grad
    layer.weight.requires_grad_(False)
    assert not utils.fuse_conv_bn_eval(layer, bn, "Transpose" in name).weight.requires_grad
    with pytest.raises(AssertionError, match="only for eval"):
        utils.fuse_conv_bn_eval(layer.train(), bn)
    with pytest.raises(AssertionError, match="num_features"):
        utils.fuse_linear_bn_eval(nn.Linear(4, 5).eval(), bn)


def test_weights_are_pytorchs(torch):
    draw = np.random.default_rng(0)
    w, b, mean, var, scale, shift = draw.standard_normal((6, 4, 3)), *(draw.random((5, 6)) + 0.1)
    for name, given in (("conv", (w, b, mean, var, 1e-3, scale, shift)), ("conv", (w, None, mean, var, 1e-3, None, None)), ("linear", (w[:, :, 0], None, mean, var, 1e-3, scale, shift))):
        for mine, theirs in zip(*(getattr(where, f"fuse_{name}_bn_weights")(*(lib.tensor(v) if isinstance(v, np.ndarray) else v for v in given))
                                  for lib, where in ((mg, utils), (torch, torch.nn.utils))), strict=True):
            np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)
