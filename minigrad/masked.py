"""PyTorch's `torch.masked`: reductions and normalizations of the elements where a mask is true; see ops/masked.py."""
from .core.messages import guarded as _guarded
from .ops.masked import masked_amax as amax
from .ops.masked import masked_amin as amin
from .ops.masked import masked_argmax as argmax
from .ops.masked import masked_argmin as argmin
from .ops.masked import masked_cumprod as cumprod
from .ops.masked import masked_cumsum as cumsum
from .ops.masked import masked_log_softmax as log_softmax
from .ops.masked import masked_logaddexp as logaddexp
from .ops.masked import masked_logsumexp as logsumexp
from .ops.masked import masked_mean as mean
from .ops.masked import masked_median as median
from .ops.masked import masked_norm as norm
from .ops.masked import masked_normalize as normalize
from .ops.masked import masked_prod as prod
from .ops.masked import masked_softmax as softmax
from .ops.masked import masked_softmin as softmin
from .ops.masked import masked_std as std
from .ops.masked import masked_sum as sum
from .ops.masked import masked_var as var

__all__ = [
    "amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp", "logsumexp", "mean", "median",
    "norm", "normalize", "prod", "softmax", "softmin", "std", "sum", "var",
]

for _name in __all__:
    globals()[_name] = _guarded(globals()[_name], __name__, _name)
