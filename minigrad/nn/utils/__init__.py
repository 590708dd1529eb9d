"""Gradient clipping, parameters as one vector, normalized weights, (`utils.rnn`) batches of sequences, and
(`utils.parametrize`, `utils.parametrizations`) parameters that are computed, which are imported when asked for."""
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from ...core.messages import NoAttribute as _NoAttribute
from . import rnn
from .clip_grad import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from .convert_parameters import parameters_to_vector, vector_to_parameters

if TYPE_CHECKING:
    from . import fusion, parametrizations, parametrize, prune
    from .fusion import fuse_conv_bn_eval, fuse_conv_bn_weights, fuse_linear_bn_eval, fuse_linear_bn_weights
    from .weights import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "fuse_conv_bn_eval", "fuse_conv_bn_weights",
           "fuse_linear_bn_eval", "fuse_linear_bn_weights", "fusion", "get_total_norm", "parameters_to_vector",
           "parametrizations", "parametrize", "prune", "remove_spectral_norm", "remove_weight_norm", "rnn",
           "spectral_norm", "vector_to_parameters", "weight_norm"]

_WEIGHTS = ("remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm")
_FUSION = ("fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights")

if not TYPE_CHECKING:
    def __getattr__(name: str) -> object:
        if name in ("fusion", "parametrizations", "parametrize", "prune"):
            return _import_module(f".{name}", __name__)
        for file, names in ((".weights", _WEIGHTS), (".fusion", _FUSION)):
            if name in names:
                return getattr(_import_module(file, __name__), name)
        raise _NoAttribute("module 'minigrad.nn.utils'", name, lambda: __all__)
