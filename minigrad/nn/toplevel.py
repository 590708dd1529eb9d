"""Norms with the arguments, and their order, of `torch.layer_norm` and its relatives, which differ from those in
`torch.nn.functional`: `minigrad.layer_norm` and so on. What they compute is in `nn/norm.py`.

`cudnn_enable` and `cudnn_enabled` choose a library in PyTorch, never a result; there is no such choice here.
"""
from __future__ import annotations

from ..core.messages import guarded
from ..core.tensor import Tensor
from . import norm
from .arguments import Size


@guarded
def layer_norm(input: Tensor, normalized_shape: Size, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, cudnn_enable: bool = True) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and biased variance over the last dimensions, whose sizes are
    `normalized_shape` (Ba, Kiros and Hinton 2016)."""
    return norm.layer_norm(input, normalized_shape, weight, bias, eps)


@guarded
def rms_norm(input: Tensor, normalized_shape: Size, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimensions (Zhang and Sennrich 2019); `eps` None is the machine
    epsilon."""
    return norm.rms_norm(input, normalized_shape, weight, eps)


@guarded
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, cudnn_enabled: bool = True) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, per sample and group of channels: input (N, C, *), weight and bias
    (C) (Wu and He 2018)."""
    return norm.group_norm(input, num_groups, weight, bias, eps)


@guarded
def batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
               running_var: Tensor | None, training: bool, momentum: float, eps: float, cudnn_enabled: bool) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, per channel: input (N, C, *), the others (C). In training with the
    statistics of the batch, which also move the running ones (Ioffe and Szegedy 2015)."""
    return norm.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


@guarded
def instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
                  running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float,
                  cudnn_enabled: bool) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, per sample and channel: input (N, C, *), the others (C) (Ulyanov,
    Vedaldi and Lempitsky 2016)."""
    return norm.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
