"""PyTorch's own databases of operator and module samples, and its values as ours.

What minigrad leaves out on purpose stands in GAPS with the reason. Without PyTorch the databases are empty.
"""
from __future__ import annotations

import warnings

import numpy as np

import minigrad as mg

try:
    import expecttest  # noqa: F401         PyTorch's databases need it
    import torch
except ImportError:
    torch = None
    op_db = module_db = ()
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
    torch.backends.cuda.enable_flash_sdp(False)     # on the CPU too: fused attention has no second derivative in torch
    torch.set_num_threads(1)                        # its threads wait in a busy loop for the next of these small tasks

MAX_SAMPLES = 60            # of one operator and dtype
TYPES = {getattr(torch, name): np.dtype(name).type for name in
         ("float64", "float32", "int64", "bool", "int32", "uint8", "float16", "int8", "int16") if torch is not None}


class Unsupported(Exception):
    """A sample with something minigrad has not: complex numbers, memory formats, sparse tensors."""


def to_ours(value, requires_grad=False):
    """PyTorch's arguments as ours, keeping memory layouts."""
    if isinstance(value, torch.Tensor):
        if value.dtype not in TYPES or value.layout != torch.strided or value.is_conj() or value.is_quantized:
            raise Unsupported(f"{value.dtype} {value.layout}")
        if value.is_meta:
            raise Unsupported("a tensor without data")
        if value.ndim > 64:
            raise Unsupported("NumPy has no arrays of more than 64 dimensions")
        t = mg.from_numpy(value.detach().numpy(force=True))
        return t.requires_grad_() if requires_grad and value.requires_grad else t
    if isinstance(value, torch.dtype):
        if value not in TYPES:
            raise Unsupported(str(value))
        return np.dtype(TYPES[value])
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, torch.Size):
        return mg.Size(value)
    if isinstance(value, (torch.memory_format, torch.layout, torch.Generator)):
        raise Unsupported(str(value))
    if isinstance(value, complex):
        raise Unsupported("complex")
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        p, activation = value.dropout.p, {torch.nn.functional.relu: "relu", torch.nn.functional.gelu: "gelu"}[value.activation]
        return mg.nn.TransformerEncoderLayer(value.linear1.in_features, value.self_attn.num_heads, value.linear1.out_features, p, activation,
                                             value.norm1.eps, value.self_attn.batch_first, value.norm_first, value.linear1.bias is not None)
    if isinstance(value, torch.nn.PairwiseDistance):
        return mg.nn.PairwiseDistance(value.norm, value.eps, value.keepdim)
    if callable(value) and getattr(torch.nn.functional, getattr(value, "__name__", ""), None) is value:
        return getattr(mg.nn.functional, value.__name__)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[to_ours(v, requires_grad) for v in value])
    if isinstance(value, (list, tuple)):
        return type(value)(to_ours(v, requires_grad) for v in value)
    if isinstance(value, dict):
        return {k: to_ours(v, requires_grad) for k, v in value.items()}
    return value


def find(name):
    """minigrad's function of a PyTorch operator name, or None."""
    here = mg
    for part in name.split("."):
        here = getattr(here, part, None)
        if here is None:
            return None
    return here if callable(here) else None


# keyword, or (operator, option): why minigrad does not do it
GAPS = {
    "memory_format": "arrays are row-major",
    "layout": "there are no sparse tensors", "pin_memory": "no pinned memory argument",
}
# the database calls these on a copy, or with the arguments in another order than the functions of the same name have
ADAPT = {
    "zero_": lambda zero_: lambda input: zero_(input.clone()),
    "where": lambda where: lambda input, condition, other: where(condition, input, other),
    **dict.fromkeys(("polygamma", "special.polygamma"), lambda polygamma: lambda input, n: polygamma(n, input)),
    "nn.functional.embedding": lambda embedding: lambda weight, input, **options: embedding(input, weight, **options),
    "nn.functional.embedding_bag": lambda embedding_bag: lambda weight, input, *rest, **options: embedding_bag(input, weight, *rest, **options),
    "einsum": lambda einsum: lambda operands, equation: einsum(equation, *operands),
    "linalg.pinv-singular": lambda pinv: lambda a, b: pinv(a @ b.mT),
    "linalg.lstsq-grad_oriented": lambda lstsq: lambda a, b, driver: lstsq(a, b, driver=driver)[:2],
}
# what two libraries agree on: singular vectors and eigenvectors have no sign, and those beyond the rank are any
INVARIANT = {
    "svd": lambda r: (r[0][..., :r[1].shape[-1]].abs(), r[1], r[2][..., :r[1].shape[-1]].abs()),
    "linalg.svd": lambda r: (r[0][..., :r[1].shape[-1]].abs(), r[1], r[2][..., :r[1].shape[-1], :].abs()),
    "linalg.eigh": lambda r: (r[0], r[1].abs()),
    "mode": lambda r: r[0],             # of equal elements, torch takes any
}
# where PyTorch is no judge: of derivatives, and of values in single precision
OWN_DERIVATIVES = {
    "cholesky_inverse": "torch gives the triangle that is not read a gradient", "cholesky_solve": "the same",
    "linalg.norm-subgradients_at_zero": "torch's second derivative at 0 is NaN",
    "as_strided_scatter": "torch gives an element that is overwritten a gradient", "fill": "a tensor of one number depends on nothing",
    "masked.logaddexp": "torch's second derivative at -inf is NaN",
    "cov": "torch computes with weights in their float32",
    **dict.fromkeys([f"nn.functional.max_unpool{n}d" for n in (1, 2, 3)], "of several values at one place, torch gives each the gradient of the last (samples without: -grad)"),
    "nn.functional.ctc_loss": "torch's is that of logits behind a log_softmax, wherever log_probs come from; nn/test_ctc.py compares it there",
    "linalg.lstsq": "minigrad's singular values have derivatives, too (the solution's: lstsq-grad_oriented)",
}
OWN_ROUNDING = {
    **dict.fromkeys([("special.bessel_j0", "float64"), ("special.bessel_y1", "float64")], "torch's are off by 3e-7; SciPy's are minigrad's"),
    ("matrix_exp", "float32"): "minigrad's is computed in float64",
    ("histogramdd", "float32"): "a sample has edges that are not sorted",
    ("cov", "float64"): "torch computes with weights in their float32",
    **dict.fromkeys([(f"masked.{name}", dtype) for name in ("argmax", "argmin") for dtype in ("float32", "float64")],
                    "torch gives a 0-d input back, not its index"),
    ("masked.logsumexp", "int64"): "torch gives a 0-d input back, not a float",
}
# names that are something else in minigrad, or random without a shared stream
OTHER = {"empty", "empty_like", "rand_like", "randn_like", "randint_like", "randn", "randint", "bernoulli", "multinomial", "normal", "uniform",
         "new_empty", "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d", "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout", "to", "empty_strided", "nn.functional.rrelu"}
OTHER |= {"svd_lowrank", "pca_lowrank", "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d"}
OTHER |= {"as_strided-partial_views"}       # it reads beyond the view that it is given
OPS = {f"{op.name}-{op.variant_test_name}" if op.variant_test_name else op.name: op for op in op_db
       if find(op.name) is not None and not {op.name, f"{op.name}-{op.variant_test_name}"} & OTHER}
MODULES = {m.name: m for m in module_db if find(m.name) is not None}


def ours_of(key):
    """minigrad's function, called as the database calls it."""
    name = OPS[key].name
    return ADAPT.get(key, ADAPT.get(name, lambda f: f))(find(name))


def invariant(name, result):
    """The part of a result that does not depend on the library."""
    return INVARIANT.get(name, lambda r: r)(result)


def is_gap(name, sample):
    options = [v for v in (*sample.args, *sample.kwargs.values()) if isinstance(v, str)]
    dropout = sample.args[9] if name == "nn.functional.multi_head_attention_forward" else sample.kwargs.get("dropout_p")
    if dropout and sample.kwargs.get("training", True) or sample.kwargs.get("sparse"):
        return True                 # random numbers without a shared stream; sparse gradients
    return any(k in GAPS for k in sample.kwargs) or any((name, v) in GAPS for v in options)


def tensors_in(value):
    if isinstance(value, (torch.Tensor, mg.Tensor)):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v)]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors_in(v)]
    return []


RELATIVE = {"float32": 1e-4, "float64": 1e-7}       # by the dtype of the result: an int64 input may have a float32 result


def close(ours, theirs, where, tolerance=RELATIVE):
    mine, other = tensors_in(ours), tensors_in(theirs)
    if not other:
        assert ours == theirs or (isinstance(theirs, float) and np.isclose(ours, theirs, equal_nan=True)), where
        return
    assert len(mine) == len(other), f"{where}: {len(mine)} results, torch gives {len(other)}"
    for a, b in zip(mine, other, strict=True):
        assert tuple(a.shape) == tuple(b.shape), f"{where}: shape {tuple(a.shape)}, torch {tuple(b.shape)}"
        if b.dtype in TYPES:
            assert a.dtype == TYPES[b.dtype], f"{where}: dtype {a.dtype}, torch {b.dtype}"
        t = tolerance.get(str(b.dtype).removeprefix("torch."), 0)
        np.testing.assert_allclose(a.numpy(force=True), b.numpy(force=True), rtol=t, atol=t, err_msg=where, equal_nan=True)


def samples(op, dtype, requires_grad):
    if dtype not in op.dtypes:
        return
    torch.manual_seed(0)
    for i, sample in enumerate(op.sample_inputs("cpu", dtype, requires_grad=requires_grad)):
        if i >= MAX_SAMPLES:
            return
        if not is_gap(op.name, sample):
            yield i, sample


def describe(sample):
    show = lambda v: f"{tuple(v.shape)}:{str(v.dtype)[6:]}" if isinstance(v, torch.Tensor) else [show(x) for x in v] if isinstance(v, (list, tuple)) else repr(v)      # noqa: E731
    return f"({show(sample.input)}, {', '.join(map(str, map(show, sample.args)))}, {({k: show(v) for k, v in sample.kwargs.items()})})"


def flat_outputs(result):
    return [t for t in tensors_in(result) if t.requires_grad and t.numel()]


def compare_gradients(mine, theirs, where):
    for k, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        zero = lambda t: t is None or not t.detach().to_dense().count_nonzero() if isinstance(t, torch.Tensor) or t is None else not t.numpy(force=True).any()      # noqa: E731
        if a is None or b is None:
            assert zero(a) and zero(b), f"{where}, input {k}: only one side has a gradient"
            continue
        np.testing.assert_allclose(a.numpy(force=True), b.detach().to_dense().numpy(force=True), rtol=1e-6, atol=1e-7, err_msg=f"{where}, input {k}", equal_nan=True)
