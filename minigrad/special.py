"""Functions of mathematics with the names of `torch.special`, as far as minigrad has them; defined in `ops`."""
from .core.messages import guarded as _guarded
from .ops.activation import sigmoid as expit
from .ops.formula import logit, round, sinc, xlogy
from .ops.further import entr, multigammaln, ndtr, xlog1py
from .ops.math import digamma, erf, erfc, erfinv, exp2, expm1, lgamma, log1p, polygamma
from .ops.softmax import log_softmax, logsumexp, softmax

psi, gammaln = digamma, lgamma

__all__ = [
    "digamma", "entr", "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "gammaln", "log1p", "log_softmax", "logit",
    "logsumexp", "multigammaln", "ndtr", "polygamma", "psi", "round", "sinc", "softmax", "xlog1py", "xlogy",
]

for _name in ("log_softmax", "logsumexp", "softmax", "polygamma"):
    globals()[_name] = _guarded(globals()[_name])
