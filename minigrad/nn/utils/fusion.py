"""Batch normalization that is done with training, as part of the layer before it."""
from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

from ...core.tensor import Tensor
from ..module import Module, Parameter

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]

_Layer = TypeVar("_Layer", bound=Module)


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                         bn_w: Tensor | None, bn_b: Tensor | None, transpose: bool = False,
                         ) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution with batch normalization after it: r = bn_w / sqrt(bn_rv + bn_eps) times the
    weight of each channel, and (conv_b - bn_rm) r + bn_b (Jacob et al. 2018). `transpose`: of a transposed one."""
    scale = (bn_rv + bn_eps).rsqrt()
    scale = scale if bn_w is None else scale * bn_w
    bias = (-bn_rm if conv_b is None else conv_b - bn_rm) * scale
    bias = bias if bn_b is None else bias + bn_b
    shape = (1, -1) if transpose else (-1, 1)
    weight = conv_w * scale.reshape(*shape, *(1,) * (conv_w.ndim - 2))
    return (Parameter(weight.detach().to(conv_w.dtype), conv_w.requires_grad),
            Parameter(bias.detach().to(conv_w.dtype), conv_w.requires_grad if conv_b is None else conv_b.requires_grad))


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                           bn_w: Tensor | None, bn_b: Tensor | None) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer followed by batch normalization: see `fuse_conv_bn_weights`."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_conv_bn_eval(conv: _Layer, bn: Any, transpose: bool = False) -> _Layer:
    """A convolution that computes bn(conv(x)), both in eval mode. AssertionError in training mode, or if `bn` has no
    running statistics.

        >>> utils.fuse_conv_bn_eval(nn.Conv2d(3, 4, 3, bias=False).eval(), nn.BatchNorm2d(4).eval()).bias.shape
        Size([4])
    """
    if conv.training or bn.training or bn.running_mean is None:
        raise AssertionError("[fuse_conv_bn_eval] Fusion only for eval, with running statistics; call eval() first")
    fused: Any = deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps,
                                                    bn.weight, bn.bias, transpose)
    return fused            # type: ignore[no-any-return]


def fuse_linear_bn_eval(linear: _Layer, bn: Any) -> _Layer:
    """A linear layer that computes bn(linear(x)), both in eval mode. AssertionError as `fuse_conv_bn_eval`, or if the
    numbers of features differ."""
    if bn.num_features not in (1, linear.out_features):
        raise AssertionError("[fuse_linear_bn_eval] linear.out_features == bn.num_features or bn.num_features == 1; "
                             f"got {linear.out_features} and {bn.num_features}")
    return fuse_conv_bn_eval(linear, bn)
