"""The ops. Importing this package binds them to `Tensor` and to the engine."""
from __future__ import annotations

from .. import engine, op
from ..tensor import Tensor
from . import creation, elementwise, norm, reduce, shape_ops

engine.add = elementwise.add.call
engine.add_ = elementwise.accumulate
engine.sum_to = reduce.sum_to
engine.cast = elementwise.cast
engine.clone = creation.clone
engine.transfer = creation.transfer
engine.as_tensor = creation.as_tensor
engine.ones_like = creation.ones_like
op.contiguous_copy = elementwise.contiguous_copy
op.alias = shape_ops.alias
op.zeros_like_layout = creation.zeros_like_layout

Tensor.__add__ = Tensor.__radd__ = elementwise.add.call
Tensor.__mul__ = Tensor.__rmul__ = elementwise.mul.call
Tensor.sum = reduce.sum
Tensor.clone = creation.clone
