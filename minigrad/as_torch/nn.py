"""`torch.nn` beside `minigrad.nn`."""
from __future__ import annotations

from ..nn import Module
from ..nn.module import Parameter
from .parallel import DataParallel

__all__ = ["Container", "DataParallel", "Parameter"]

Container = Module
