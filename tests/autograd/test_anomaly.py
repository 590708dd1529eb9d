"""Errors that say where: `detect_anomaly`, and what failing costs nothing to name."""
from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd, nn, optim
from minigrad.autograd.anomaly import detect_anomaly, set_detect_anomaly
from minigrad.core import engine, tape
from minigrad.devices import opened
from minigrad.nn import functional as F
from minigrad.utils.checkpoint import checkpoint


class Log(nn.Module):
    def forward(self, x):
        return x.log()          # the line


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.ModuleDict({"norm": Log()})["norm"], nn.ReLU())
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(2, 2, bias=False)

    def forward(self, x):
        return self.head(self.encoder(x))


def attempt(text, call):
    with pytest.raises(RuntimeError, match=text) as caught:
        call()
    return str(caught.value)


def test_forward_names_op_module_and_line():
    model = Model()
    x = mg.randn(5, 3)
    with detect_anomaly():
        text = attempt(r"\[detect_anomaly\] log made (nan|inf) out of finite values, in model\.encoder\.1 \(Log\), at ", lambda: model(x))
    assert "test_anomaly.py:" in text and "in forward: return x.log()          # the line" in text and "float32[5, 4]" in text
    model(x)                                            # off again


@pytest.mark.parametrize("call, op", [
    (lambda x: mg.exp(x * -1000), "exp"), (lambda x: x / 0, "div"), (lambda x: x.sqrt(), "sqrt"), (lambda x: mg.logsumexp(x / 0, 0), "div"),
    (lambda x: F.softmax(mg.full((2, 3), -np.inf), 1), "softmax"), (lambda x: mg.full((2,), np.inf) - np.inf, "sub"), (lambda x: x.rsqrt_(), "rsqrt"),
    (lambda x: (x * 1e38) @ (x * 1e38).t(), "matmul"), (lambda x: x.var(0)[:0].mean(), "mean"),
    (lambda x: mg.tensor([1e30]).half(), "cast")])
def test_ops(call, op):
    for _ in range(2):                          # the second call of a signature goes another way
        with detect_anomaly():
            text = attempt(r"\[detect_anomaly\] ", lambda: call(mg.tensor(-np.ones((3, 4)), dtype=mg.float32)))
        assert text.startswith(f"[detect_anomaly] {op} made ") and "test_anomaly.py" in text


def test_what_is_let_through():
    x = mg.randn(2, 3, requires_grad=True)
    with detect_anomaly():
        mask = mg.full((2, 3), -np.inf).triu(1)
        y = F.softmax(x + mask, 1)
        z = mg.where(mg.tensor([[True, False, True]]), mg.full((2, 3), np.nan), x)          # nan that came in is nobody's fault here
        y = y + mg.nan_to_num(mg.full((2, 3), np.nan)) + x.masked_fill(mask < 0, -np.inf).max()
        (y * y).sum().backward()
        assert mg.isnan(z).any().item()
    assert np.isfinite(x.grad.numpy()).all()
    for values in ([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]):                     # the gradient of a norm of zeros is 0
        x = mg.tensor(values, requires_grad=True)
        with detect_anomaly():
            (x.norm() + x.norm(dim=1).sum() + x.norm(p=3, dim=1).sum() + F.normalize(x).sum()).backward()
        assert np.isfinite(x.grad.numpy()).all()


def test_backward_names_the_forward():
    layer = nn.Sequential(nn.Linear(3, 4))
    x = mg.randn(2, 3)
    with detect_anomaly():
        a = mg.zeros(3, requires_grad=True)
        y = a.sqrt()                                    # its line
        text = attempt(r"the backward of sqrt (made|gave) (inf|nan).*recorded at .*y = a\.sqrt\(\)  ", y.sum().backward)
        loss = layer(x).sum()
        text = attempt(r"the backward of sum gave nan for its input 0 of a gradient that was not finite", lambda: loss.backward(mg.tensor(np.nan, dtype=mg.float32)))
    del text
    b = mg.zeros(3, requires_grad=True).sqrt()
    with detect_anomaly():
        attempt(r"backward of sqrt .*recorded before detect_anomaly\(\) was on", b.sum().backward)


CELL, LSTM = nn.GRUCell(3, 3), nn.LSTM(3, 3)
CALLS = {
    "unary": ("sqrt", lambda x: x.sqrt()),
    "binary": ("mul", lambda x: x * x),
    "with a number": ("mul", lambda x: x * 3.0),
    "power": ("power", lambda x: x ** 3),
    "activation": ("gelu", lambda x: F.gelu(x)),
    "activation with a number": ("leaky_relu", lambda x: F.leaky_relu(x, 0.3)),
    "clamp": ("clamp", lambda x: x.clamp(-1, 1)),
    "choice": ("where", lambda x: mg.where(x > 0, x, x * 2)),
    "reduction": ("sum", lambda x: x.sum(0)),
    "transposed": ("permute", lambda x: x.t()),
    "reshaped": ("reshape", lambda x: x.reshape(9)),
    "slice": ("window", lambda x: x[1:]),
    "index": ("take", lambda x: x[mg.tensor([0, 1])]),
    "cat": ("cat", lambda x: mg.cat([x, x])),
    "stack": ("stack", lambda x: mg.stack([x, x])),
    "split": ("split", lambda x: x.split(2)[0]),
    "unbind": ("unbind", lambda x: x.unbind()[0]),
    "maximum": ("", lambda x: x.max(0)[0]),
    "matmul": ("matmul", lambda x: x @ x),
    "linear": ("linear", lambda x: F.linear(x, x)),
    "an @op": ("layer_norm", lambda x: F.layer_norm(x, (3,))),
    "a cell": ("gru_cell", lambda x: CELL(x)),
    "a layer": ("", lambda x: LSTM(x)[0]),
    "cast": ("cast", lambda x: x.double()),
}


@pytest.mark.parametrize("kind", CALLS)
def test_every_call_is_named(kind):
    """Not only the first of a signature: from the second on, an op takes a shorter way, whose nodes were once not noticed."""
    (op, call), kept = CALLS[kind], []
    for _ in range(3):
        x = mg.full((3, 3), 0.5, requires_grad=True)
        with detect_anomaly():
            y = call(x)
            gradient = mg.full(tuple(y.shape), np.nan, dtype=y.dtype)
            text = attempt(rf"the backward of \w*{op}\w* gave nan .*recorded (at|in) ", lambda y=y, g=gradient: y.backward(g))
        assert f'"{kind}": (' in text               # its line
        kept.append(gradient)                       # its memory, full of nan, is not handed out again: see the next test


def test_memory_that_held_nan_before_is_nobodys_fault():
    x = mg.ones(3, 3)
    mg.full((6, 3), np.nan)                         # and dropped
    with detect_anomaly():
        mg.cat([x, x])


def test_the_module_of_a_backward():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Root()))
    with mg.no_grad():
        net[0].weight.zero_(), net[0].bias.zero_()
    with detect_anomaly():
        attempt(r"the backward of sqrt made inf.*in net\.1\.1 \(Root\)", net(mg.ones(2, 3)).sum().backward)
        x = mg.zeros(2, requires_grad=True)
        attempt("the backward of sqrt made inf", checkpoint(lambda t: t.sqrt() * 2, x, use_reentrant=False).sum().backward)        # inside a block
        w = mg.zeros(3, requires_grad=True)
        g, = autograd.grad((w ** 1.5).sum(), w, create_graph=True)
        attempt("made inf", lambda: autograd.grad(g.sum(), w))


def test_optimiser_and_training():
    mg.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))
    x, t = mg.randn(12, 8), mg.randint(0, 3, (12,))
    for kind in (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad):
        optimizer = kind(model.parameters(), lr=0.01)
        captured = mg.capture(lambda x, t: F.cross_entropy(model(x), t))
        with detect_anomaly():
            for _ in range(2):
                loss = F.cross_entropy(model(x), t)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            assert np.isfinite(captured(x, t).item())
            attempt("detect_anomaly", lambda c=captured: c(x * 1e38 * 10, t))               # eagerly, not replayed


def test_parameters_without_a_gradient():
    model = Model()
    model.encoder[1] = nn.Identity()
    with detect_anomaly(), pytest.warns(UserWarning, match=r"these parameters got no gradient: model\.unused\.weight; "):
        model(mg.randn(4, 3)).sum().backward()
    with detect_anomaly(), warnings.catch_warnings():
        warnings.simplefilter("error")
        model.unused.requires_grad_(False)
        model(mg.randn(4, 3)).sum().backward()


def test_errors_in_backward_tell_where_the_forward_was():
    class Broken(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise KeyError("broken")
    x = mg.ones(2, requires_grad=True)
    with detect_anomaly(check_nan=False):
        assert autograd.is_anomaly_enabled() and not autograd.is_anomaly_check_nan_enabled()
        y = Broken.apply(x)
        with pytest.raises(KeyError) as caught:
            y.sum().backward()
        assert mg.isinf(x / 0).all().item()
    if hasattr(caught.value, "__notes__"):
        assert "in the backward of Broken, recorded at" in caught.value.__notes__[0] and "y = Broken.apply(x)" in caught.value.__notes__[0]


def test_nothing_is_left_behind():
    kernels = [k for d in opened() for k in (*d.kernels, d.host)]
    before = list(tape.observers), list(tape.locators), engine.walk, engine.backward
    with detect_anomaly():
        assert tape.observers != before[0] and all(k.call != k.function for k in kernels)
        with detect_anomaly(check_nan=False):
            assert not autograd.is_anomaly_check_nan_enabled()
        assert autograd.is_anomaly_check_nan_enabled()
        with set_detect_anomaly(False):
            assert not autograd.is_anomaly_enabled() and tape.observers == before[0]
        y = (mg.ones(2, requires_grad=True) * 2).sum()
        y.backward(retain_graph=True)
        assert type(y.grad_fn.op).__name__ != "_Watch"
    assert (tape.observers, tape.locators, engine.walk, engine.backward) == before and not autograd.is_anomaly_enabled()
    assert all(k.call == k.function for k in kernels)
    set_detect_anomaly(True)
    assert autograd.is_anomaly_enabled()
    set_detect_anomaly(False)
    assert (tape.observers, tape.locators) == before[:2]


# ---- without the mode: names are looked for when something failed ----

def test_failing_names_the_module():
    model = Model()
    model.encoder[1] = nn.Identity()
    x = mg.randn(4, 3)
    loss = model(x).relu().sum()
    loss.backward()
    attempt(r"freed by an earlier backward\(\): relu \(after Model\.head\) has nothing saved", loss.backward)
    y = model.encoder[0](x)
    y.sum().backward()
    attempt(r"linear \(Model\.encoder\.0\) has nothing saved", lambda: y.backward(mg.ones_like(y)))
    loss = model(x).sum()
    with mg.no_grad():
        model.head.weight.mul_(2)
    attempt(r"\[linear backward\] .*modified by an inplace operation since the forward pass \(Model\.head\)", loss.backward)
    attempt(r"input 1 \(Model\.unused\.weight\) was not used", lambda: autograd.grad(model(x).sum(), [model.head.weight, model.unused.weight]))
    a = mg.ones(2, requires_grad=True)
    b = (a * a).sum()
    b.backward()
    attempt("mul has nothing saved", b.backward)
