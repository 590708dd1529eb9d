"""`torch.nn` beside `minigrad.nn`."""
from __future__ import annotations

from ..nn import Module, NLLLoss
from ..nn.module import Parameter
from .parallel import DataParallel

__all__ = ["Container", "DataParallel", "NLLLoss2d", "Parameter"]

Container, NLLLoss2d = Module, NLLLoss
