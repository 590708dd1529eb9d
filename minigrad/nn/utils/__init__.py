"""Gradient clipping, parameters as one vector, normalized weights, (`utils.rnn`) batches of sequences, and
(`utils.parametrize`, `utils.parametrizations`) parameters that are computed, which are imported when asked for."""
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from ...core.messages import NoAttribute as _NoAttribute
from . import rnn
from .clip_grad import clip_grad_norm_, clip_grad_value_, get_total_norm
from .convert_parameters import parameters_to_vector, vector_to_parameters

if TYPE_CHECKING:
    from . import parametrizations, parametrize, prune
    from .weights import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

__all__ = ["clip_grad_norm_", "clip_grad_value_", "get_total_norm", "parameters_to_vector", "parametrizations",
           "parametrize", "prune", "remove_spectral_norm", "remove_weight_norm", "rnn", "spectral_norm",
           "vector_to_parameters", "weight_norm"]

_WEIGHTS = ("remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm")

if not TYPE_CHECKING:
    def __getattr__(name: str) -> object:
        if name in ("parametrizations", "parametrize", "prune"):
            return _import_module(f".{name}", __name__)
        if name in _WEIGHTS:
            return getattr(_import_module(".weights", __name__), name)
        raise _NoAttribute("module 'minigrad.nn.utils'", name, lambda: __all__)
