"""Half precision on the GPU: the values of the CPU, autocast, and steps with a GradScaler."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import emulated

import minigrad as mg
from minigrad import nn, optim, testing
from minigrad.amp import is_autocast_available
from minigrad.core.op import registry
from minigrad.devices import cuda, launch_hook
from minigrad.devices.base import split
from minigrad.devices.launch import KERNELS
from minigrad.ops.random import dropout

pytest.importorskip("ml_dtypes")
pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
F = nn.functional
HALVES = [mg.float16, mg.bfloat16]
rng = np.random.default_rng(0)


def on(device, *shape):
    return mg.tensor(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32), device=device)


# ---- autocast --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_products_run_in_half_precision(dtype):
    x, w, image = on("cuda", 4, 8), on("cuda", 8, 8), on("cuda", 1, 2, 5, 5)
    with mg.autocast("cuda", dtype=dtype):
        made = {"matmul": x @ w, "linear": F.linear(x, w, w[0]), "bmm": mg.bmm(x[None], w[None]), "conv2d": F.conv2d(image, on("cuda", 3, 2, 3, 3)),
                "attention": F.scaled_dot_product_attention(x, x, x), "lstm": nn.LSTM(8, 3).to("cuda")(x)[0]}
        h = x @ w
        wide = {"softmax": F.softmax(h, 1), "log_softmax": F.log_softmax(h, 1), "layer_norm": F.layer_norm(h, (8,)),
                "group_norm": F.group_norm(h[None].transpose(1, 2), 2), "mse": F.mse_loss(h, h * 2),
                "cross_entropy": F.cross_entropy(h, mg.arange(4, device="cuda"))}
        assert (h + x).dtype == mg.float32 and (h + h).dtype == h.relu().dtype == dtype
        assert (x.double() @ w.double()).dtype == mg.float64
    assert {name: t.dtype for name, t in made.items() if t.dtype != dtype} == {}
    assert {name: t.dtype for name, t in wide.items() if t.dtype != mg.float32} == {}
    assert (x @ w).dtype == mg.float32


def test_each_device_has_its_own_block():
    """As in PyTorch: a block for one type of device leaves the other alone, and blocks of both may be nested."""
    a, b = on("cpu", 4, 4), on("cuda", 4, 4)
    state = lambda: ((a @ a).dtype, (b @ b).dtype, a.softmax(1).dtype, (b.half().softmax(1)).dtype)       # noqa: E731
    f32, f16, bf16 = mg.float32, mg.float16, mg.bfloat16
    assert state() == (f32, f32, f32, f16) and is_autocast_available("cuda")
    with mg.autocast("cuda"):
        assert state() == (f32, f16, f32, f32) and mg.is_autocast_enabled() and not mg.is_autocast_enabled("cpu")
        with mg.autocast("cpu"):
            assert state() == (bf16, f16, f32, f32) and mg.is_autocast_enabled() and mg.is_autocast_enabled("cpu")
            with mg.autocast("cuda", enabled=False):
                assert state() == (bf16, f32, f32, f16)
            with mg.autocast("cuda", mg.bfloat16):
                assert state() == (bf16, bf16, f32, f32) and mg.get_autocast_dtype("cuda") == bf16
        assert state() == (f32, f16, f32, f32)
    assert state() == (f32, f32, f32, f16) and mg.get_autocast_dtype("cuda") == f16

    @mg.autocast("cuda")
    def decorated():
        return state()
    with mg.autocast("cpu"):
        assert decorated() == (bf16, f16, f32, f32) and state() == (bf16, f32, f32, f16)


def test_checkpointed_blocks_keep_both(gpu):
    seen = []

    def block(x):
        seen.append(((x @ x).dtype, (mg.ones(2, 2) @ mg.ones(2, 2)).dtype))
        return x @ x
    x = on("cuda", 3, 3).requires_grad_()
    with mg.autocast("cuda", mg.bfloat16), mg.autocast("cpu", mg.float16):
        y = mg.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    y.sum().backward()
    assert seen == [(mg.bfloat16, mg.float16)] * 2 and x.grad.dtype == mg.float32


# ---- training --------------------------------------------------------------------------------------------------------

def _model():
    mg.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_scaled_step_agrees_with_the_cpu(dtype):
    """Parameters, states and gradients are float32 (the master weights); products and their gradients are in half precision."""
    losses = {}
    for device in ("cpu", "cuda"):
        model = _model().to(device)
        optimizer, scaler = optim.AdamW(model.parameters(), lr=1e-2), mg.amp.GradScaler(device, init_scale=2.0 ** 10, growth_interval=3)
        x, y, losses[device] = on(device, 32, 12), (mg.arange(32) % 4).to(device), []
        for _ in range(6):
            with mg.autocast(device, dtype=dtype):
                loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            assert {p.grad.dtype for p in model.parameters()} == {np.dtype("float32")}
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            losses[device].append(loss.item())
        assert scaler.get_scale() == 2.0 ** 12 and {p.dtype for p in model.parameters()} == {np.dtype("float32")}
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=2e-2)
    assert losses["cuda"][-1] < 0.8 * losses["cuda"][0]


@pytest.mark.parametrize("half", [True, False], ids=["half", "autocast"])
def test_captured_steps_have_the_bits_of_eager_ones(half):
    """Convolution, pool, dropout, a recurrent layer, clipping: of parameters of half precision, and under autocast."""
    x, y, made = on("cuda", 8, 1, 8, 8), mg.arange(8, device="cuda") % 4, []
    for wrap in (lambda step: step, mg.capture):
        mg.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Sigmoid(), nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten(),
                            nn.Linear(64, 4)).to("cuda").to(mg.float16 if half else mg.float32)
        rnn = nn.LSTM(8, 8, batch_first=True).to("cuda")
        optimizer = optim.AdamW([*net.parameters(), *rnn.parameters()], lr=1e-2)

        @wrap
        def step(x, y, net=net, rnn=rnn, optimizer=optimizer):
            optimizer.zero_grad()
            with mg.autocast("cuda", enabled=not half):
                loss = F.cross_entropy(net(x.half() if half else x), y) + (rnn(x[:, 0])[0].float() ** 2).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
            return loss
        losses = [step(x, y).item() for _ in range(4)]
        made.append((losses, [p.float().numpy(force=True) for p in [*net.parameters(), *rnn.parameters()]]))
    (eager, want), (captured, got) = made
    assert eager == captured and len(set(eager)) == 4 and all((a == b).all() for a, b in zip(want, got, strict=True))


def test_an_overflow_leaves_the_step_out():
    w = nn.Parameter(mg.ones(3, device="cuda"))
    optimizer, scaler = optim.SGD([w], lr=0.1), mg.amp.GradScaler("cuda", init_scale=2.0 ** 20)
    for _ in range(2):
        optimizer.zero_grad()
        with mg.autocast("cuda"):
            loss = (w[None] @ mg.ones(3, 1, device="cuda")).sum()
        scaler.scale(loss).backward()           # the gradient of the product is float16: 2^20 is infinite there
        scaler.step(optimizer)
        scaler.update()
    assert w.tolist() == [1, 1, 1] and scaler.get_scale() == 2.0 ** 18


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_parameters_have_float32_masters(dtype):
    """A model all in half precision: captured steps have the bits of eager ones, and losses are those of the CPU."""
    made = []
    for device, run in (("cpu", lambda step: step), ("cuda", lambda step: step), ("cuda", mg.capture)):
        model = _model().to(device).to(dtype)
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        y = (mg.arange(32) % 4).to(device)

        def step(x, model=model, optimizer=optimizer, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss
        step = run(step)
        losses = [step(on(device, 32, 12).to(dtype) * (1 + i)).item() for i in range(6)]
        masters = [optimizer.state[p]["master_param"] for p in model.parameters()]
        assert all(m.dtype == mg.float32 and (m.to(dtype) == p).all() for m, p in zip(masters, model.parameters(), strict=True))
        made.append((losses, [m.numpy(force=True) for m in masters]))
    (want, exact), eager, captured = made
    assert eager[0] == captured[0] and all((a == b).all() for a, b in zip(eager[1], captured[1], strict=True))
    np.testing.assert_allclose(eager[0], want, rtol=4 * float(mg.finfo(dtype).eps))
    for a, b in zip(eager[1], exact, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)             # Adam's steps have a sign even where a gradient is nearly 0


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.AdamW(p, 0.01, amsgrad=True),
                                  lambda p: optim.RMSprop(p, 0.01, momentum=0.9, centered=True), lambda p: optim.Adagrad(p, 0.1)],
                         ids=["sgd", "adam", "rmsprop", "adagrad"])
def test_one_launch_updates_parameters_and_masters(make, dtype, monkeypatch):
    """It has the bits of the launches apart: gradients cast, masters of changed values set, all rounded."""
    suffix = {mg.float16: "f16", mg.bfloat16: "bf16"}[dtype]

    def run():
        params = [mg.nn.Parameter(on("cuda", *shape).to(dtype)) for shape in ((3, 5), (1,), (1100,), (0,), (2, 2), (7,), (1,), (4,), (6,))]
        optimizer, launched = make(params), []
        for step in range(3):
            for p in params:
                p.grad = on("cuda", *p.shape).to(dtype) * (step + 1)
            with mg.no_grad():
                params[0][1] = step                         # the masters of these elements follow
            with launch_hook(lambda kernel, arguments: (launched.append(kernel.name), kernel.function(*arguments))):
                optimizer.step()
        versions = [p._version for p in params]
        return [p.float().numpy(force=True) for p in params], [optimizer.state[p]["master_param"].cpu().numpy() for p in params], launched, versions
    params, masters, launched, versions = run()
    assert len(launched) == 3 and set(launched) == {launched[0]} and launched[0].endswith(suffix), launched
    monkeypatch.delitem(getattr(mg.device("cuda").kernels, launched[0].removesuffix(f"_{suffix}")).members, suffix)
    apart = run()
    assert len(apart[2]) > 50 and versions == apart[3]
    for a, b in zip([*params, *masters], [*apart[0], *apart[1]], strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((m != p).any() for m, p in zip(masters, params, strict=True))


# ---- kernels ---------------------------------------------------------------------------------------------------------

def bits(t):
    return t.numpy(force=True).view(np.uint16)


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("to", ["float16", "bfloat16", "float32", "float64", "int32", "int64", "bool"])
def test_casts(source, to):
    """To the last bit: rounded once to nearest, ties to even; infinities, NaN, subnormal numbers, what overflows."""
    if source[:3] == "int" or source == "bool":
        x = rng.integers(-70000, 70000, 4000).astype(source)
    else:
        x = np.concatenate([rng.standard_normal(2000) * 10.0 ** rng.integers(-9, 6, 2000), np.arange(-40, 40) / 16, [0.0, -0.0, np.inf, -np.inf,
                            np.nan, 65504, 65519.99, 65520, 1e39, 6e-8, 2.9e-8, 3.1e-8, 1 + 2 ** -11, 1 + 2 ** -11 + 2 ** -40, 1 + 3 * 2 ** -11,
                            1 + 2 ** -8 + 2 ** -33, -1 - 2 ** -8 - 2 ** -33, 1 - 2 ** -12 - 2 ** -40]])
        with np.errstate(all="ignore"):
            x = x.astype(np.dtype(getattr(mg, source)))
            x = x[np.abs(x.astype(np.float64)) < 2e9] if to[:3] == "int" else x
    a, b = (mg.tensor(x, device=d).to(np.dtype(getattr(mg, to))) for d in ("cpu", "cuda"))
    assert b._version == 0 and a.dtype == b.dtype
    want, got = a.numpy(), b.numpy(force=True)
    nan = want != want
    np.testing.assert_array_equal(got != got, nan)
    whole = np.dtype(f"u{want.itemsize}") if want.itemsize > 1 else np.uint8
    np.testing.assert_array_equal(got[~nan].view(whole), want[~nan].view(whole))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_elementwise_kernels_read_and_write_half_precision(dtype):
    """One launch, without casts, with the values of the CPU: computed in float32, rounded once."""
    x, y = (rng.uniform(0.1, 0.9, shape).astype(np.float32) for shape in ((7, 5), (5,)))
    for name in "add sub mul div neg abs square maximum exp log sqrt tanh sigmoid pow eq lt isfinite floor remainder".split():
        op = getattr(mg.ops.math, name)
        on_cpu, on_gpu = ([mg.tensor(a, device=d).to(dtype) for a in (x, y)[:len(op.inputs)]] for d in ("cpu", "cuda"))
        want, launched = op(*on_cpu), []
        with launch_hook(lambda kernel, arguments: (launched.append(kernel.name), kernel.function(*arguments))):
            got = op(*on_gpu)
        assert got.dtype == want.dtype and (want.dtype == dtype or op.result == "bool")
        assert launched == [f"{op.kernel_name}_{'f16' if dtype == mg.float16 else 'bf16'}"]
        close = 2e-3 if dtype == mg.float16 else 1.6e-2                  # one step, where float32 differs in its last bits
        np.testing.assert_allclose(got.float().cpu().numpy(), want.float().numpy(), close, err_msg=name)


HALF_OPS = ("layer_norm rms_norm valid_norm batch_norm batch_norm_eval group_norm softmax log_softmax logsumexp cross_entropy mse_loss l1_loss huber_loss "
            "smooth_l1_loss binary_cross_entropy binary_cross_entropy_with_logits max_pool adaptive_max_pool avg_pool adaptive_avg_pool "
            "masked_dropout").split()


@pytest.mark.parametrize("name", [*HALF_OPS, "index_add", "scaled_dot_product_attention", "convolution", "convolution_transpose", "sigmoid", "tanh", "sum", "mean", "add", "sub",
                                  "cumsum"])
def test_every_sample_rounds_once(name):
    """Outputs and gradients within one ulp of the definition in float64."""
    testing.check_half(registry[name], device="cuda")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", HALF_OPS)
def test_kernels_of_ops_read_and_write_half_precision(name, dtype):
    """No cast and no float32 copy: each launch, forward and backward, is of the half type."""
    op, launched = registry[name], []
    [x, *others], attrs = testing.samples_of(op, dtype, "cuda")[0]
    with launch_hook(lambda kernel, arguments: (launched.append(kernel.name), kernel.function(*arguments))):
        y = op(x.detach().requires_grad_(), *others, **attrs)
        y = y[0] if isinstance(y, tuple) else y
        y.backward(mg.ones_like(y))
    made = [n for n in launched if not n.startswith(("fill", "copy"))]
    assert len(made) == 2 and all(n.endswith("f16") for n in made), launched


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_layers_cast_nothing(dtype):
    """Neither forward nor backward; what counts and looks at half precision does not, either."""
    x, b = (on("cuda", *shape).to(dtype).requires_grad_() for shape in ((6, 8), (8,)))
    layer = nn.Linear(8, 8).to("cuda").to(dtype)
    for run in (lambda: layer(x), lambda: F.dropout(x, 0.4), lambda: F.dropout(x.T, 0.4), lambda: x + b, lambda: x - b, lambda: x.sum(0), lambda: x.sum(), lambda: x.sigmoid(), lambda: F.tanh(x), lambda: x.cumsum(1),
                lambda: x.mean(), lambda: F.max_pool1d(x, 2), lambda: F.adaptive_avg_pool1d(x, 1)):
        launched = []
        with launch_hook(lambda kernel, arguments, launched=launched: (launched.append(kernel.name), kernel.function(*arguments))):
            y = run()
        g = mg.ones_like(y)
        with launch_hook(lambda kernel, arguments, launched=launched: (launched.append(kernel.name), kernel.function(*arguments))):
            y.backward(g)
        casts = [name for name in launched if "cast" in name]
        assert not casts or len(casts) == 2 and "div_f32" in launched, launched                # the gradient of a mean is divided by a number
    convolution = nn.Conv1d(6, 4, 3).to("cuda").to(dtype)
    with launch_hook(lambda kernel, arguments: (launched.append(kernel.name), kernel.function(*arguments))):
        launched.clear()
        convolution(x[None])[0].backward(x[:4, :6].detach())
        assert sum("cast" in name for name in launched) == 3 and not [name for name in launched if "cast_f32" in name], launched
        launched.clear()
        found = x.argmax(1), x.argmin(), x.any(), x.all(1), mg.count_nonzero(x)
    assert not [name for name in launched if "cast_f32" in name], launched
    for got, want in zip(found, (x.float().argmax(1), x.float().argmin(), x.any(), x.all(1), mg.count_nonzero(x.float())), strict=True):
        assert (got == want).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", [name for name in HALF_OPS if "norm" in name])
def test_norms_read_half_precision_beside_float32_parameters(name, dtype):
    """Without a cast; values and gradients are those of float32, rounded where they have the dtype of x."""
    op, made = registry[name], []
    for device in ("cpu", "cuda"):
        [x, *others], attrs = testing.samples_of(op, np.float32, device)[0]
        given, launched = [x.to(dtype), *others], []
        given = [t.detach().requires_grad_() if t is not None and t.is_floating_point() else t for t in given]
        if name == "batch_norm_eval":
            given[1:3] = [t.detach() for t in given[1:3]]
        g = mg.full(x.shape, 0.75, dtype=dtype, device=device)
        with launch_hook(lambda kernel, arguments, launched=launched: (launched.append(kernel.name), kernel.function(*arguments))):
            y = op(*given, **attrs)
            y = y[0] if isinstance(y, tuple) else y
            y.backward(g)
        made.append([y, *[t.grad for t in given if t is not None and t.requires_grad]])
    assert len([n for n in launched if n.endswith({mg.float16: "_f16w", mg.bfloat16: "_bf16w"}[dtype])]) == 2, launched
    assert not [n for n in launched if "cast" in n], launched
    assert [t.dtype for t in made[1]] == [t.dtype for t in made[0]] == [dtype, dtype] + [mg.float32] * (len(made[0]) - 2)
    for want, got in zip(*made, strict=True):
        a, b = got.float().numpy(force=True), want.float().numpy(force=True)
        np.testing.assert_allclose(a, b, rtol=mg.finfo(got.dtype).eps if got.dtype == dtype else 2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_attention_reads_half_precision_and_casts_its_result_alone(dtype):
    n, launched = {mg.float16: "f16", mg.bfloat16: "bf16"}[dtype], []
    q, k, v, g = (on("cuda", 2, 6, 5).to(dtype).requires_grad_() for _ in range(4))
    for items, weights, casts in ((2, False, 1), (2, True, 2), (1, True, 5)):       # the gradients of what broadcasts are summed in float32
        launched.clear()
        with launch_hook(lambda kernel, arguments: (launched.append(kernel.name), kernel.function(*arguments))):
            y = F.scaled_dot_product_attention(q, k[:items], v[:items], need_weights=weights)
            (y[0] if weights else y).backward(g)
        made = [name for name in launched if not name.startswith(("copy", "cast", "sum", "add"))]
        assert made == [f"attention_forward_{n}", f"attention_backward_{n}{'w' if items == 1 else ''}"]
        assert [name for name in launched if "cast" in name] == [f"cast_{n}_f32"] * casts, launched


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_second_derivatives_are_those_of_the_cpu(dtype):
    """They follow from the definition, which runs in float32 and rounds once."""
    for function in (lambda x: F.layer_norm(x, (9,)), lambda x: F.softmax(x, 1), lambda x: F.scaled_dot_product_attention(x, x, x)):
        made = []
        for device in ("cpu", "cuda"):
            x = mg.tensor(np.random.default_rng(3).standard_normal((4, 9)), device=device).to(dtype).requires_grad_()
            gradient, = mg.autograd.grad((function(x) * mg.linspace(0, 3, 9, device=device).to(dtype)).sum(), x, create_graph=True)
            second, = mg.autograd.grad(gradient.float().square().sum(), x)
            made.append((gradient, second))
        for want, got in zip(*made, strict=True):
            a, b = got.detach().float().cpu().numpy(), want.detach().float().numpy()
            np.testing.assert_allclose(a, b, rtol=2 * mg.finfo(dtype).eps, atol=mg.finfo(dtype).eps * np.abs(b).max())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_running_statistics(dtype):
    """In half precision they move by batch statistics in float32, in one launch, and round once a step."""
    norms = [nn.BatchNorm1d(5).to(device).to(dtype) for device in ("cpu", "cuda")]
    for step in range(3):
        for norm in norms:
            norm(mg.tensor(np.random.default_rng(step).standard_normal((20, 5)), device=norm.weight.device).to(dtype) * 3 + 1)
    for name in ("running_mean", "running_var"):
        want, got = (getattr(norm, name) for norm in norms)
        assert got.dtype == dtype
        np.testing.assert_array_equal(bits(got), bits(want))
    x, launched = mg.ones(4, 5, dtype=dtype, device="cuda"), []
    with launch_hook(lambda kernel, arguments: (launched.append(kernel.name), kernel.function(*arguments))):
        norms[1](x)
    assert sum("running_update" in name for name in launched) == 2 and not [name for name in launched if "cast" in name], launched


def seeded():
    return mg.Generator("cuda").manual_seed(3)


SHAPES = {      # paths that the samples of the ops, which are small, do not take: functions and the shapes of their inputs
    "layer norm, long rows": (lambda x, w, b: F.layer_norm(x, (4200,), w, b), (5, 4200), (4200,), (4200,)),
    "layer norm, many rows": (lambda x, w, b: F.layer_norm(x, (40,), w, b), (300, 40), (40,), (40,)),
    "rms norm, a block for a row": (lambda x, w: F.rms_norm(x, (1500,), w), (7, 1500), (1500,)),
    "batch norm, segments": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (700, 3), (3,), (3,)),
    "batch norm, images": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (9, 2, 40, 40), (2,), (2,)),
    "group norm, large groups": (lambda x, w, b: F.group_norm(x, 2, w, b), (2, 4, 30, 30), (4,), (4,)),
    "log-sum-exp, long lines": (lambda x: mg.logsumexp(x, 1), (3, 4500)),
    "log-sum-exp, columns": (lambda x: mg.logsumexp(x, 0), (70, 33)),
    "convolution, chains": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), (2, 70, 9, 8), (5, 70, 3, 3), (5,)),
    "convolution, chunks": (lambda x, w: F.conv1d(x, w, None, 1, 2, 2, 2), (3, 4, 3000), (6, 2, 5)),
    "convolution, transposed": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1), (2, 40, 9, 7), (40, 6, 3, 4), (6,)),
    "max pool, overlapping": (lambda x: F.max_pool2d(x, 3, 2, 1), (2, 3, 17, 19)),
    "max pool, a block for a window": (lambda x: F.max_pool1d(x, 900, 7), (2, 3, 1300)),
    "average pool, overlapping": (lambda x: F.avg_pool2d(x, (3, 5), 2, (1, 2), count_include_pad=False), (2, 3, 17, 19)),
    "average pool, planes": (lambda x: F.adaptive_avg_pool2d(x, 1), (2, 3, 40, 41)),
    "dropout": (lambda x: dropout(x, 0.3, generator=seeded()), (70, 33)),
    "sum, segments": (lambda x: x.sum(), (300, 301)),
    "sum, columns": (lambda x: x.sum(0), (3000, 3)),
    "mean, rows": (lambda x: x.mean(-1), (5, 1100)),
    "linear": (F.linear, (700, 8), (16, 8), (16,)),
    "add, broadcast": (lambda x, y: x + y, (90, 40), (40,)),
    "sub, broadcast": (lambda x, y: x - y, (1, 40), (90, 1)),
    "cross entropy, long lines": (lambda x: F.cross_entropy(x, mg.arange(5, device=x.device), label_smoothing=0.1), (5, 4500)),
    "cross entropy, pixels": (lambda x: F.cross_entropy(x, mg.zeros(2, 33, dtype=mg.int64, device=x.device), reduction="none"), (2, 7, 33)),
    "mse, chunks": (lambda x, y: F.mse_loss(x, y), (300, 300), (300, 300)),
    "an embedding's gradient": (lambda w: F.embedding(mg.tensor(np.arange(2500) ** 2 % 83, device=w.device), w), (83, 5)),
    "index_add, columns of their own": (lambda x, y: x.index_add(1, mg.tensor([2, 0, 2, 2, 70], device=x.device), y), (3, 71, 2), (3, 5, 2)),
    "attention": (F.scaled_dot_product_attention, (2, 2, 70, 8), (2, 2, 130, 8), (2, 2, 130, 70)),
    "attention, causal, with dropout": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.3, True, generator=seeded()), (3, 90, 66), (3, 90, 66),
                                        (3, 90, 5)),
    "attention, masked": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mg.arange(80, device=q.device) % 3 > 0), (5, 8), (80, 8), (80, 9)),
    "attention, weights": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, need_weights=True)[0], (2, 70, 8), (2, 90, 8), (2, 90, 7)),
    "attention, through weights": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, need_weights=True)[1], (2, 5, 8), (2, 7, 8), (2, 7, 6)),
    "attention, grouped queries": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), (2, 4, 70, 8), (2, 2, 35, 8), (2, 2, 35, 70)),
    "attention, one query for all": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mg.arange(9, device=q.device) % 3 > 0), (5, 8), (3, 9, 8), (9, 4)),
    "attention, huge scores": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=9e4), (5, 8), (7, 8), (7, 9)),
    "bce with logits, weights": (lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, w, reduction="sum"), (90, 100), (90, 100), (90, 100)),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_values_are_those_of_float32_rounded(name, dtype):
    """To the last bit, since a kernel's text is the same; but attention adds the tiles of a gradient in another order."""
    function, *shapes = SHAPES[name]
    given = [mg.tensor(np.random.default_rng(i).standard_normal(s), device="cuda").to(dtype) for i, s in enumerate(shapes)]

    def run(to):
        inputs = [t.detach().to(to).requires_grad_() for t in given]
        y = function(*inputs)
        g = mg.tensor(np.random.default_rng(9).standard_normal(tuple(y.shape)), device="cuda").to(dtype)
        y.backward(g.to(to))
        return [y.detach(), *[t.grad for t in inputs]]
    for half, single in zip(run(dtype), run(mg.float32), strict=True):
        assert half.dtype == dtype and np.isfinite(half.float().numpy(force=True)).all()
        a, b = (bits(t).astype(np.int32) for t in (half, single.to(dtype)))
        assert (a == b).all() or "attention" in name and np.abs(a - b).max() <= 1 and (a == b).mean() > 0.99, (a, b)


def test_numbers_beside_half_precision_are_not_rounded():
    x = mg.tensor([1.0, 3.0, 1001.0], device="cuda").half()
    for make in (lambda t: t * 0.1, lambda t: 1.0003 + t, lambda t: t - 1e-4, lambda t: t / 3.1, lambda t: t ** 1.1):
        np.testing.assert_array_equal(bits(make(x)), bits(make(x.cpu())))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("make", [lambda x: x * 0.1, lambda x: 0.1 * x, lambda x: x / 3.1, lambda x: x + 1.0003, lambda x: x - 1e-4], ids="mul rmul div add sub".split())
def test_a_number_beside_half_precision_costs_one_launch(make, dtype):
    """Forward, in a captured step, and backward for what gradient ever; with the bits of the CPU."""
    made = []
    for device in ("cpu", "cuda"):
        x, g, turned = (mg.tensor(np.linspace(*ends, 12, dtype=np.float32), device=device).to(dtype).reshape(shape).requires_grad_()
                        for ends, shape in (((-2, 3), (3, 4)), ((-1, 2), (3, 4)), ((-1, 2), (4, 3))))
        launched = []
        with launch_hook(lambda kernel, arguments, launched=launched: (launched.append(kernel.name), kernel.function(*arguments))):
            y = make(x)
            if device == "cuda":
                assert len(launched) == 1 and launched[0].endswith("w") and not launched.clear()
            first, = mg.autograd.grad(y, x, g, create_graph=True)
            assert device == "cpu" or len(launched) <= 1, launched
        second, = mg.autograd.grad(first, g, mg.full((3, 4), 0.7, device=device).to(dtype))
        more = mg.autograd.grad(make(x), x, turned.detach().t()) + mg.autograd.grad(make(x).sum(), x)
        captured = mg.capture(make)
        made.append([t.float().numpy(force=True) for t in (y, first, second, *more, captured(x.detach()), captured(x.detach()))])
    for want, got in zip(*made, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_changes_in_place_and_gradients(dtype):
    made = []
    for device in ("cpu", "cuda"):
        x, y = (mg.tensor(np.linspace(-2, 2, 24).reshape(4, 6), device=device).to(dtype).requires_grad_() for _ in "12")
        (x * y.sigmoid() + x.tanh() / 2).sum().backward()
        z = x.detach().clone()
        z += y.detach()
        z[1:, ::2] *= z[1:, 1::2]
        made.append([x.grad, y.grad, z])
    for want, got in zip(*made, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.float().cpu().numpy(), want.float().numpy(), rtol=1.6e-2, atol=1e-3)


def test_kernels_of_modules_that_are_imported_later(gpu, monkeypatch):
    """`mg.optim` is imported where a program first names it, often after its tensors are on the GPU."""
    entry = KERNELS["sgd"]
    monkeypatch.delitem(KERNELS, "sgd")
    opened = cuda.CUDA(0)
    monkeypatch.setitem(KERNELS, "sgd", entry)
    assert {name for name in ("f32", "f16", "bf16") if opened.kernels.sgd.member(name)} == {"f32", "f16", "bf16"}
    halves = {name for name, suffix in map(split, (kernel.name for kernel in opened.kernels)) if suffix in ("f16", "bf16")}
    assert halves & set(KERNELS) == {name for name, entry in KERNELS.items() if entry.half}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_activations(dtype):
    """Forward and backward are one launch each where the derivative follows from the input; else in float32, through casts."""
    for name in ("relu", "gelu", "silu", "leaky_relu", "hardswish", "softplus", "sigmoid", "tanh"):
        made = []
        for device in ("cpu", "cuda"):
            x = mg.tensor(np.linspace(-4, 4, 60), device=device).to(dtype).requires_grad_()
            y = getattr(F, name)(x)
            y.backward(mg.linspace(0.5, 1.5, 60, device=device).to(dtype))
            made.append([y, x.grad])
        for want, got in zip(*made, strict=True):
            assert got.dtype == dtype
            np.testing.assert_allclose(got.float().cpu().detach().numpy(), want.float().detach().numpy(),
                                       rtol=2e-3 if dtype == mg.float16 else 1.6e-2, atol=1e-6, err_msg=name)


def test_derivatives_round_once():
    """Those of x / y are the float32 ones, rounded: not a product of rounded quotients."""
    x, y = ((mg.tensor(np.linspace(0.3, 3, 200)) * f).half().requires_grad_() for f in (1, 0.7))
    a, b = (t.detach().cuda().requires_grad_() for t in (x, y))
    for p, q in ((x, y), (a, b)):
        (p / q * (p.exp() - q.tanh())).sum().backward()
    np.testing.assert_array_equal(bits(a.grad), bits(x.grad))
    np.testing.assert_array_equal(bits(b.grad), bits(y.grad))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_products_add_up_in_float32_and_round_once(dtype):
    """Forward and both gradients are half precision for cuBLAS; the values are those of the CPU, nearly always to the last bit."""
    n = {mg.float16: "f16", mg.bfloat16: "bf16"}[dtype]

    def run(device, function, *shapes):
        tensors = [mg.tensor(np.random.default_rng(i).standard_normal(s), device=device).to(dtype).requires_grad_() for i, s in enumerate(shapes)]
        y = function(*tensors)
        y.backward(mg.tensor(np.random.default_rng(9).standard_normal(tuple(y.shape)), device=device).to(dtype))
        return [y, *[t.grad for t in tensors]]
    for function, shapes, direct in [
            (mg.matmul, ((40, 70), (70, 30)), True), (mg.matmul, ((3, 4, 50), (50, 6)), True), (mg.matmul, ((2, 3, 4, 50), (2, 3, 50, 6)), True),
            (mg.matmul, ((2, 1, 4, 50), (3, 50, 6)), False), (mg.matmul, ((50,), (50, 6)), True), (F.linear, ((20, 60), (30, 60)), True),
            (F.linear, ((2, 20, 60), (30, 60), (30,)), True), (F.linear, ((20, 7), (1, 7), (1,)), True)]:
        launched = []
        with launch_hook(lambda kernel, arguments, seen=launched: (seen.append(kernel.name), kernel.function(*arguments))):
            got = run("cuda", function, *shapes)
        products = {name for name in launched if name.startswith("gemm")}
        assert products == ({f"gemm_{n}"} if direct else {"gemm_f32"}), (shapes, launched)
        for g, w in zip(got, run("cpu", function, *shapes), strict=True):
            assert g.dtype == dtype
            a, b = g.detach().float().cpu().numpy(), w.detach().float().numpy()
            np.testing.assert_allclose(a, b, rtol=1e-3 if dtype == mg.float16 else 8e-3, atol=1e-5)
            assert (a == b).mean() > 0.97       # float32 sums in another order, seldom on the other side of a tie
