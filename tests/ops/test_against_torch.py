"""PyTorch as the outside judge: its own operator and module sample databases, run on minigrad.

For every operator of PyTorch's database whose name minigrad has: each of its samples in float64 (values, first and second
derivatives), float32 and int64 (values, result dtype), and the inputs that it says must be refused. What minigrad leaves out
on purpose stands in GAPS with the reason. Modules: outputs, gradients, state dict keys and shapes.
"""
from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg

torch = pytest.importorskip("torch", reason="torch is not installed: the comparison with it is skipped")
pytest.importorskip("expecttest", reason="expecttest is not installed: PyTorch's sample databases need it")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

torch.backends.cuda.enable_flash_sdp(False)     # on the CPU too: fused attention has no second derivative in torch
pytestmark = pytest.mark.filterwarnings("ignore")
MAX_SAMPLES = 60            # of one operator and dtype
TYPES = {torch.float64: np.float64, torch.float32: np.float32, torch.int64: np.int64, torch.bool: np.bool_, torch.int32: np.int32,
         torch.uint8: np.uint8, torch.float16: np.float16, torch.int8: np.int8, torch.int16: np.int16}
UNSUPPORTED = (torch.complex64, torch.complex128, torch.bfloat16, torch.complex32)


class Unsupported(Exception):
    """A sample with something minigrad has not: complex numbers, memory formats, sparse tensors."""


def to_ours(value, requires_grad=False):
    """PyTorch's arguments as ours, keeping memory layouts."""
    if isinstance(value, torch.Tensor):
        if value.dtype not in TYPES or value.layout != torch.strided or value.is_conj() or value.is_quantized:
            raise Unsupported(f"{value.dtype} {value.layout}")
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
    "out": "no out= arguments: results come from the pool",
    "memory_format": "arrays are row-major",
    "layout": "there are no sparse tensors", "pin_memory": "no pinned memory argument",
    ("norm", "nuc"): "the nuclear norm needs a singular value decomposition: decompositions are out of scope",
    ("scatter", "multiply"): "scatter adds or replaces; products are not accumulated, nor does torch differentiate them",
}
# the database calls these with the arguments in another order than the functions of the same name have
ADAPT = {
    "where": lambda where: lambda input, condition, other: where(condition, input, other),
    "polygamma": lambda polygamma: lambda input, n: polygamma(n, input),
    "nn.functional.embedding": lambda embedding: lambda weight, input, **options: embedding(input, weight, **options),
    "einsum": lambda einsum: lambda operands, equation: einsum(equation, *operands),
}
# names that are something else in minigrad, or random without a shared stream
OTHER = {"empty", "empty_like", "rand_like", "randn_like", "randint_like", "randn", "randint", "bernoulli", "multinomial", "normal", "uniform",
         "new_empty", "nn.functional.dropout", "nn.functional.dropout2d", "to", "empty_strided", "nn.functional.rrelu"}
OPS = {f"{op.name}-{op.variant_test_name}" if op.variant_test_name else op.name: op for op in op_db
       if find(op.name) is not None and op.name not in OTHER}


def ours_of(name):
    """minigrad's function, called as the database calls it."""
    return ADAPT.get(name, lambda f: f)(find(name))


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


# where the order of equal elements is left open: the position of dim among the arguments after the input
UNSTABLE = {"sort": 0, "argsort": 0, "topk": 1, "kthvalue": 1}


def point(name, sample, result):
    """The elements that an index result points to, sorted if they are many: what is defined when there are ties."""
    at = UNSTABLE[name]
    dim = sample.kwargs.get("dim", sample.args[at] if len(sample.args) > at else -1)
    indices = (result if name == "argsort" else result[1]).numpy(force=True)
    x = sample.input.numpy(force=True)
    x, flat = (x, indices) if x.ndim else (x.reshape(1), indices.reshape(1))
    full = flat if flat.ndim == x.ndim else np.expand_dims(flat, dim)
    ordered = np.sort(full, dim)
    assert not (np.diff(ordered, axis=dim) == 0).any(), f"{name}: an index comes twice"
    return np.take_along_axis(x, full, dim).reshape(indices.shape)


RELATIVE = {torch.float32: 1e-4, torch.float64: 1e-7}       # by the dtype of the result: an int64 input may have a float32 result


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
        t = tolerance.get(b.dtype, 0)
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, torch.bool], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", OPS)
def test_values(name, dtype):
    op, ours, ran = OPS[name], ours_of(OPS[name].name), 0
    for i, sample in samples(op, dtype, False):
        try:
            args = to_ours((sample.input, *sample.args))
            kwargs = to_ours(sample.kwargs)
        except Unsupported:
            continue
        where = f"{name} sample {i} {describe(sample)}"
        want = op.op(sample.input, *sample.args, **sample.kwargs)
        try:
            got = ours(*args, **kwargs)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        if op.name in UNSTABLE and not sample.kwargs.get("stable"):
            np.testing.assert_array_equal(point(op.name, sample, got), point(op.name, sample, want), where)
            got, want = (got[:1], want[:1]) if op.name != "argsort" else ((), ())
        close(got, want, where)
        ran += 1
    if not ran:
        pytest.skip("no sample of this dtype")


def flat_outputs(result):
    return [t for t in tensors_in(result) if t.requires_grad]


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.supports_autograd and torch.float64 in op.dtypes])
def test_gradients(name):
    """First derivatives of every sample, second ones along one direction where torch has them."""
    op, ours, ran = OPS[name], ours_of(OPS[name].name), 0
    for i, sample in samples(op, torch.float64, True):
        try:
            args, kwargs = to_ours((sample.input, *sample.args), True), to_ours(sample.kwargs, True)
        except Unsupported:
            continue
        where = f"{name} sample {i} {describe(sample)}"
        want, got = flat_outputs(op.op(sample.input, *sample.args, **sample.kwargs)), flat_outputs(ours(*args, **kwargs))
        their_leaves = [t for t in tensors_in((sample.input, *sample.args, sample.kwargs)) if t.requires_grad]
        leaves = [t for t in tensors_in((*args, kwargs)) if t.requires_grad]
        assert len(want) == len(got), f"{where}: {len(got)} differentiable outputs, torch {len(want)}"
        if not want or not leaves:
            continue
        rng = np.random.default_rng(0)
        seeds = [rng.standard_normal(tuple(t.shape)).astype(TYPES[t.dtype]) for t in want]
        second = op.supports_gradgrad
        theirs = torch.autograd.grad(want, their_leaves, [torch.tensor(s) for s in seeds], create_graph=second, allow_unused=True)
        mine = mg.autograd.grad(got, leaves, [mg.tensor(s) for s in seeds], create_graph=second, allow_unused=True)
        compare_gradients(mine, theirs, where)
        ran += 1
        pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None and b.requires_grad and a.requires_grad]
        if second and pairs:
            directions = [rng.standard_normal(tuple(b.shape)).astype(TYPES[b.dtype]) for _, b in pairs]
            theirs = torch.autograd.grad([b for _, b in pairs], their_leaves, [torch.tensor(d) for d in directions], allow_unused=True)
            mine = mg.autograd.grad([a for a, _ in pairs], leaves, [mg.tensor(d) for d in directions], allow_unused=True)
            compare_gradients(mine, theirs, where + ", second derivative")
    if not ran:
        pytest.skip("no differentiable sample")


def compare_gradients(mine, theirs, where):
    for k, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        zero = lambda t: t is None or not t.detach().to_dense().count_nonzero() if isinstance(t, torch.Tensor) or t is None else not t.numpy(force=True).any()      # noqa: E731
        if a is None or b is None:
            assert zero(a) and zero(b), f"{where}, input {k}: only one side has a gradient"
            continue
        np.testing.assert_allclose(a.numpy(force=True), b.detach().to_dense().numpy(force=True), rtol=1e-6, atol=1e-7, err_msg=f"{where}, input {k}", equal_nan=True)


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.error_inputs_func is not None])
def test_refusals(name):
    """What torch refuses, minigrad refuses, with an exception of the same type (or a subclass of a plain error)."""
    op, ours, ran = OPS[name], ours_of(OPS[name].name), 0
    for i, error in enumerate(op.error_inputs("cpu")):
        sample = error.sample_input
        if is_gap(op.name, sample):
            continue
        try:
            args, kwargs = to_ours((sample.input, *sample.args)), to_ours(sample.kwargs)
        except Unsupported:
            continue
        try:
            op.op(sample.input, *sample.args, **sample.kwargs)
            continue                                    # torch itself accepts it here
        except Exception as theirs:
            expected = type(theirs)
        try:
            ours(*args, **kwargs)
        except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError) as mine:
            allowed = {RuntimeError: (RuntimeError, ValueError, TypeError, IndexError), IndexError: (IndexError,),
                       ValueError: (ValueError, RuntimeError), TypeError: (TypeError,)}
            assert isinstance(mine, allowed.get(expected, Exception)), \
                f"{name} error sample {i} {describe(sample)}: {type(mine).__name__} {mine}; torch {expected.__name__}"
        else:
            raise AssertionError(f"{name} error sample {i} {describe(sample)}: accepted; torch refuses it with {expected.__name__}")
        ran += 1
    if not ran:
        pytest.skip("no error sample applies")


# ---- modules ----------------------------------------------------------------------------------------------------------------

MODULES = {m.name: m for m in module_db if find(m.name) is not None}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODULES)
def test_module(name, training):
    """Same state dict, same outputs and gradients (float64) after copying the parameters; same string."""
    info, kind, ran = MODULES[name], find(name), 0
    for i, sample in enumerate(info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)):
        made, called = sample.constructor_input, sample.forward_input
        try:
            arguments, options = to_ours(made.args), to_ours(made.kwargs)
            inputs, named = to_ours(called.args, True), to_ours(called.kwargs, True)
        except Unsupported:
            continue
        where = f"{name} sample {i} {made.args} {made.kwargs}"
        torch.manual_seed(0)
        theirs = info.module_cls(*made.args, **made.kwargs).double().train(training)
        ours = kind(*arguments, **options).double().train(training)
        state, mine = theirs.state_dict(), ours.state_dict()
        assert list(mine) == list(state), f"{where}: state dict {list(mine)}, torch {list(state)}"
        assert [tuple(t.shape) for t in mine.values()] == [tuple(t.shape) for t in state.values()], where
        assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear"), where
        ours.load_state_dict({k: mg.tensor(v.numpy()) for k, v in state.items()})
        if name in OTHER or "Dropout" in name and training:
            continue
        want, got = theirs(*called.args, **called.kwargs), ours(*inputs, **named)
        close(got, want, where, {torch.float64: 1e-8})
        for (k, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            np.testing.assert_allclose(a.numpy(force=True), b.numpy(), rtol=1e-8, atol=1e-10, err_msg=f"{where}: {k} after the call")
        roots, mine_roots = flat_outputs(want), flat_outputs(got)
        if roots:
            sum((t * t).sum() for t in roots).backward()
            sum((t * t).sum() for t in mine_roots).backward()
            for (k, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
                assert (p.grad is None) == (q.grad is None), f"{where}: {k}"
                if q.grad is not None:
                    np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6, atol=1e-8, err_msg=f"{where}: gradient of {k}")
            pairs = zip(tensors_in((inputs, named)), tensors_in((called.args, called.kwargs)), strict=True)
            leaves = [(a, b) for a, b in pairs if isinstance(b, torch.Tensor) and b.requires_grad and b.is_leaf]
            compare_gradients([a.grad for a, _ in leaves], [b.grad for _, b in leaves], f"{where}: gradient of the input")
        ran += 1
    if not ran:
        pytest.skip("no sample applies")


@pytest.mark.parametrize("name", [n for n, info in MODULES.items() if info.module_error_inputs_func is not None])
def test_module_refusals(name):
    info, kind, ran = MODULES[name], find(name), 0
    for sample in info.module_error_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=False):
        made, called = sample.module_error_input.constructor_input, sample.module_error_input.forward_input

        def attempt(kind, convert, made=made, called=called):
            arguments = convert(made.args), convert(made.kwargs), convert(called.args if called else ()), convert(called.kwargs if called else {})
            try:
                kind(*arguments[0], **arguments[1]).double()(*arguments[2], **arguments[3])
            except Exception as error:
                return type(error)
            return None
        theirs = attempt(info.module_cls, lambda v: v)
        if theirs is not None:
            try:
                mine = attempt(kind, to_ours)
            except Unsupported:
                continue
            assert mine is not None and issubclass(mine, (theirs, ValueError, RuntimeError)), f"{name} {made.args} {made.kwargs}: {mine}, torch {theirs}"
            ran += 1
    if not ran:
        pytest.skip("no error sample applies")


@pytest.mark.parametrize(("name", "arguments", "shape"), [("Flatten", (), (2, 3, 4)), ("Flatten", (0, 1), (2, 3, 4)), ("Unflatten", (1, (2, 3)), (4, 6)),
                                                          ("Identity", (), (2, 3)), ("Hardsigmoid", (), (2, 3)), ("Hardswish", (), (2, 3))])
def test_modules_that_the_database_lacks(name, arguments, shape):
    values = np.random.default_rng(0).uniform(-4, 4, shape)
    ours, theirs = getattr(mg.nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    x, y = mg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    got, want = ours(x), theirs(y)
    close(got, want, name)
    (got * got).sum().backward()
    (want * want).sum().backward()
    compare_gradients([x.grad], [y.grad], name)


def test_result_types_are_torchs():
    """The dtype of an operation, for every pair of dtypes, of tensors with and without dimensions, and numbers."""
    kinds = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64]
    operands = [torch.ones(shape, dtype=kind) for kind in kinds for shape in ((2,), ())] + [True, 2, 2.5]
    for a in operands:
        for b in operands:
            want = torch.result_type(a, b)
            got = mg.result_type(to_ours(a), to_ours(b))
            assert got == TYPES[want], f"{a} with {b}: {got}, torch {want}"
            if isinstance(a, torch.Tensor):
                assert (to_ours(a) * to_ours(b)).dtype == TYPES[(a * b).dtype], f"{a} * {b}"
    for a in kinds:
        for b in kinds:
            assert mg.promote_types(TYPES[a], TYPES[b]) == TYPES[torch.promote_types(a, b)], f"{a} with {b}"


def test_the_databases_are_reached():
    assert len(OPS) > 150 and len(MODULES) > 25, (len(OPS), len(MODULES))
