"""Modules: the tree, hooks, state dicts, text and initial values, against PyTorch where it is installed."""
import copy
import math
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import functional as F
from minigrad.nn import init


def array(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


def tensor(*shape, seed=0, grad=False):
    return mg.tensor(array(*shape, seed=seed), requires_grad=grad)


# One constructor for both libraries: the rows of the tests below. `n` is minigrad.nn or torch.nn.
LAYERS = {
    "linear": lambda n: n.Linear(4, 3), "linear, no bias": lambda n: n.Linear(4, 3, bias=False), "identity": lambda n: n.Identity(3, a=4),
    "flatten": lambda n: n.Flatten(), "unflatten": lambda n: n.Unflatten(1, (2, 2)), "dropout": lambda n: n.Dropout(0.2),
    "dropout2d": lambda n: n.Dropout2d(0.3, inplace=True), "layer": lambda n: n.LayerNorm(4),
    "layer, no bias": lambda n: n.LayerNorm((2, 4), 1e-3, bias=False), "layer, plain": lambda n: n.LayerNorm(4, elementwise_affine=False),
    "rms": lambda n: n.RMSNorm(4), "rms, plain": lambda n: n.RMSNorm((4,), 1e-5, False), "group": lambda n: n.GroupNorm(2, 4),
    "group, no bias": lambda n: n.GroupNorm(2, 4, 1e-4, bias=False), "group, plain": lambda n: n.GroupNorm(1, 4, affine=False),
    "batch": lambda n: n.BatchNorm1d(4), "batch2": lambda n: n.BatchNorm2d(4, momentum=None),
    "batch3": lambda n: n.BatchNorm3d(4, bias=False), "batch, plain": lambda n: n.BatchNorm1d(4, 1e-3, 0.2, False, False),
    "instance": lambda n: n.InstanceNorm1d(4), "instance2": lambda n: n.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "instance3": lambda n: n.InstanceNorm3d(4, affine=True, bias=False), "relu": lambda n: n.ReLU(),
    "relu in place": lambda n: n.ReLU(inplace=True), "leaky": lambda n: n.LeakyReLU(0.2), "elu": lambda n: n.ELU(0.5, True),
    "celu": lambda n: n.CELU(), "selu": lambda n: n.SELU(), "gelu": lambda n: n.GELU("tanh"), "silu": lambda n: n.SiLU(),
    "mish": lambda n: n.Mish(), "softplus": lambda n: n.Softplus(2.0), "softsign": lambda n: n.Softsign(),
    "sigmoid": lambda n: n.Sigmoid(), "tanh": lambda n: n.Tanh(), "hardtanh": lambda n: n.Hardtanh(-2.0, 2.0),
    "relu6": lambda n: n.ReLU6(), "hardswish": lambda n: n.Hardswish(), "hardsigmoid": lambda n: n.Hardsigmoid(),
    "glu": lambda n: n.GLU(1), "prelu": lambda n: n.PReLU(4), "softmax": lambda n: n.Softmax(1),
    "log_softmax": lambda n: n.LogSoftmax(dim=-1), "logsigmoid": lambda n: n.LogSigmoid(), "mse": lambda n: n.MSELoss(reduction="sum"),
    "l1": lambda n: n.L1Loss(), "huber": lambda n: n.HuberLoss(), "smooth": lambda n: n.SmoothL1Loss(),
    "ce": lambda n: n.CrossEntropyLoss(label_smoothing=0.1), "nll": lambda n: n.NLLLoss(), "bce": lambda n: n.BCELoss(),
    "bcel": lambda n: n.BCEWithLogitsLoss(), "kl": lambda n: n.KLDivLoss(reduction="batchmean"),
    "tree": lambda n: n.Sequential(OrderedDict(a=n.Linear(2, 3), b=n.Sequential(n.BatchNorm1d(3), n.ReLU()))),
    "list": lambda n: n.ModuleList([n.Linear(2, 2), n.Linear(2, 2), n.ReLU(), n.Linear(2, 2)]),
    "dict": lambda n: n.ModuleDict({"x": n.Linear(2, 2), "y": n.Sequential()}), "empty": lambda n: n.ModuleList(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_text_and_state_dicts_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    mine, theirs = LAYERS[name](nn), LAYERS[name](torch.nn)
    assert repr(mine) == repr(theirs)
    ours, other = mine.state_dict(), theirs.state_dict()
    assert list(ours) == list(other) and ours._metadata == other._metadata
    assert [tuple(v.shape) for v in ours.values()] == [tuple(v.shape) for v in other.values()]
    assert [str(v.dtype) for v in ours.values()] == [str(v.dtype).removeprefix("torch.") for v in other.values()]
    assert str(mine.load_state_dict(other)) == str(theirs.load_state_dict(other))
    assert all(np.array_equal(v.numpy(), other[k].numpy()) for k, v in mine.state_dict().items())
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in mine.named_modules()] == [n for n, _ in theirs.named_modules()]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.again = self.first
        self.scale = nn.Parameter(mg.ones(1))
        self.register_buffer("count", mg.zeros(1))
        self.register_buffer("scratch", mg.zeros(1), persistent=False)
        self.register_parameter("nothing", None)
        self.note = "plain"

    def forward(self, x, shift=0.0):
        return self.second(self.first(x)) * self.scale + shift


class Late(nn.Module):
    def __init__(self):
        self.layer = nn.Linear(1, 1)


# ---- the tree ----

def test_members():
    m = Net()
    assert [n for n, _ in m.named_parameters()] == ["scale", "first.weight", "first.bias", "second.weight", "second.bias"]
    assert [n for n, _ in m.named_parameters(remove_duplicate=False)][-2:] == ["again.weight", "again.bias"]
    assert [n for n, _ in m.named_parameters(prefix="p", recurse=False)] == ["p.scale"]
    assert [n for n, _ in m.named_buffers()] == ["count", "scratch"]
    assert [n for n, _ in m.named_children()] == ["first", "second"] and [n for n, _ in m.named_modules()] == ["", "first", "second"]
    assert list(m.state_dict()) == ["scale", "count", "first.weight", "first.bias", "second.weight", "second.bias", "again.weight",
                                    "again.bias"]
    assert m.get_submodule("first") is m.first and m.get_submodule("") is m and m.get_parameter("first.bias") is m.first.bias
    assert m.get_buffer("count") is m.count
    m.set_submodule("second", nn.Identity())
    assert isinstance(m.second, nn.Identity)
    del m.scale, m.count, m.again
    assert list(m.state_dict()) == ["first.weight", "first.bias"] and "scratch" in dir(m)
    for call, text in ((lambda: m.get_submodule("third"), "no attribute `third`"), (lambda: m.get_submodule("note"), "not an nn.Module"),
                       (lambda: m.get_parameter("note"), "not an nn.Parameter"), (lambda: m.get_buffer("first.bias"), "not a buffer"),
                       (lambda: m.absent, "has no attribute 'absent'")):
        with pytest.raises(AttributeError, match=text):
            call()


@pytest.mark.parametrize(("act", "error", "text"), [
    (lambda m: setattr(m, "first", 3), TypeError, "child module 'first'"),
    (lambda m: setattr(m, "scale", mg.ones(1)), TypeError, "as parameter 'scale'"),
    (lambda m: setattr(m, "count", 3), TypeError, "as buffer 'count'"),
    (lambda m: m.register_parameter("note", nn.Parameter(mg.ones(1))), KeyError, "already exists"),
    (lambda m: m.register_parameter("a.b", None), KeyError, "contain"),
    (lambda m: m.register_parameter("", None), KeyError, "empty string"),
    (lambda m: m.register_parameter(3, None), TypeError, "should be a string"),
    (lambda m: m.register_parameter("p", mg.ones(1)), TypeError, "nn.Parameter or None"),
    (lambda m: m.register_buffer("b", 3), TypeError, "Tensor or None"),
    (lambda m: m.add_module("m", 3), TypeError, "not a Module"),
    (lambda m: m.train(1), ValueError, "boolean"),
    (lambda m: m.to(mg.int64), TypeError, "floating point"),
    (lambda m: m.load_state_dict(3), TypeError, "dict-like"),
    (lambda m: nn.Module()(3), NotImplementedError, "missing the required \"forward\""),
    (lambda m: nn.Parameter(mg.tensor([1, 2])), RuntimeError, "floating"),
    (lambda m: Late(), AttributeError, "before Module"),
])
def test_wrong_members(act, error, text):
    with pytest.raises(error, match=text):
        act(Net())


def test_assignment_moves_between_kinds():
    m = nn.Module()
    m.x = 3
    m.x = nn.Parameter(mg.ones(2))
    assert "x" in m._parameters and "x" not in m.__dict__
    m.x = None
    assert m.x is None and list(m.parameters()) == []
    m.y = mg.ones(2)
    assert list(m.buffers()) == []
    m.register_buffer("z", mg.ones(2), persistent=False)
    m.z = mg.zeros(2)
    assert m.z.tolist() == [0.0, 0.0] and list(m.state_dict()) == []
    m.z = nn.Linear(1, 1)
    assert [n for n, _ in m.named_modules()] == ["", "z"] and m._buffers == {}


def test_containers():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    s = nn.Sequential(a, b)
    assert s[0] is a and s[-1] is b and len(s[:1]) == 1 and isinstance(s[:1], nn.Sequential)
    s.append(c).insert(0, c)
    assert list(s) == [c, a, b, c] and s.pop(0) is c and [n for n, _ in s.named_children()] == ["0", "1", "2"]
    del s[1:]
    assert list(s + nn.Sequential(b)) == [a, b] and list(s * 2) == [a, a]
    s += nn.Sequential(b)
    s *= 2
    s[1] = c
    assert list(s) == [a, c, a, b]
    items = nn.ModuleList([a])
    items += [b, c]
    items.insert(1, c)
    del items[0]
    assert list(items) == [c, b, c] and list(items[1:]) == [b, c] and list(items + [a])[-1] is a
    assert list(items._modules) == ["0", "1", "2"]
    names = nn.ModuleDict([("p", a), ("q", b)])
    names.update({"r": c})
    assert list(names) == list(names.keys()) == ["p", "q", "r"] and names["q"] is b and names.pop("p") is a
    assert "p" not in names and len(names) == 2
    for act, error in ((lambda: s[9], IndexError), (lambda: items[-9], IndexError), (lambda: names["p"], KeyError),
                       (lambda: s + [a], ValueError), (lambda: s * 0, ValueError), (lambda: s * "x", TypeError),
                       (lambda: nn.ModuleList(3), TypeError), (lambda: names.update([1]), TypeError),
                       (lambda: items(3), NotImplementedError)):
        with pytest.raises(error):
            act()


def test_modes_and_gradients():
    m = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.Linear(2, 1)))
    assert m.eval() is m and not m[1][0].training and m.train()[1][0].training
    m(mg.ones(1, 2)).sum().backward()
    assert all(p.grad is not None for p in m.parameters())
    m.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in m.parameters())
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())
    m[0].requires_grad_(False)
    m(mg.ones(1, 2)).sum().backward()
    assert m[0].weight.grad is None and m[1][1].weight.grad is not None
    order = []
    m.apply(lambda module: order.append(type(module).__name__))
    assert order == ["Linear", "Dropout", "Linear", "Sequential", "Sequential"]


def test_conversion_keeps_parameters():
    m = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = list(m.parameters())
    m(mg.ones(3, 2) * mg.arange(3).reshape(3, 1)).sum().backward()
    assert m.double() is m and all(a is b for a, b in zip(before, m.parameters(), strict=True))
    assert {p.dtype for p in m.parameters()} == {p.grad.dtype for p in m.parameters()} == {np.dtype("float64")}
    assert m[1].running_mean.dtype == np.float64 and m[1].num_batches_tracked.dtype == np.int64
    assert m.to(mg.zeros(1)).float().to("cpu", mg.float64).half()[0].weight.dtype == np.float16
    assert all(p.is_leaf and p.requires_grad for p in m.parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_whole_and_apart(duplicate):
    m = Net()
    other = duplicate(m)
    assert other.again is other.first and type(other.scale) is nn.Parameter
    x = tensor(2, 3)
    assert np.array_equal(m(x).detach().numpy(), other(x).detach().numpy())
    with mg.no_grad():
        m.scale.fill_(5.0)
    assert other.scale.item() == 1.0


# ---- state dicts ----

def test_load_state_dict():
    m, state = Net(), Net().state_dict()
    assert repr(m.load_state_dict({k: v.numpy() for k, v in state.items()})) == "<All keys matched successfully>"
    keys = m.load_state_dict({"scale": mg.ones(1), "new": mg.ones(1)}, strict=False)
    assert keys.unexpected_keys == ["new"] and "first.weight" in keys.missing_keys
    with pytest.raises(RuntimeError) as error:
        changed = {**state, "first.new": mg.ones(1), "scale": mg.ones(3), "second.bias": "x"}
        del changed["count"]
        m.load_state_dict(changed)
    for text in ("loading state_dict for Net", 'Missing key(s) in state_dict: "count"', 'Unexpected key(s) in state_dict: "first.new"',
                 "size mismatch for scale: copying a param with shape (3,) from checkpoint, the shape in current model is (1,)",
                 '"second.bias"'):
        assert text in str(error.value)
    weight = m.first.weight
    given = {k: v.double() for k, v in state.items()}
    m.load_state_dict(given, assign=True)
    assert m.first.weight is not weight and m.first.weight.dtype == np.float64
    assert m.first.weight.requires_grad and type(m.first.weight) is nn.Parameter
    assert m.state_dict(keep_vars=True)["scale"] is m.scale and list(m.state_dict(prefix="x."))[0] == "x.scale"
    old = nn.BatchNorm1d(2)
    old.load_state_dict({k: v for k, v in nn.BatchNorm1d(2).state_dict().items() if k != "num_batches_tracked"})     # as before version 2


def test_extra_state_and_state_hooks():
    class Counter(nn.Linear):
        steps = 0

        def get_extra_state(self):
            return {"steps": self.steps}

        def set_extra_state(self, state):
            self.steps = state["steps"]

    m, other, seen = nn.Sequential(Counter(1, 1)), nn.Sequential(Counter(1, 1)), []
    m[0].steps = 4
    m.register_state_dict_pre_hook(lambda module, prefix, keep: seen.append("pre"))
    handle = m.register_state_dict_post_hook(lambda module, state, prefix, meta: seen.append(len(state)))
    other.register_load_state_dict_pre_hook(lambda module, state, prefix, *_: state.pop("junk"))
    other.register_load_state_dict_post_hook(lambda module, keys: seen.append(keys.missing_keys))
    other.load_state_dict({**m.state_dict(), "junk": 3})
    assert other[0].steps == 4 and seen == ["pre", 3, []]
    handle.remove()
    m.state_dict()
    assert seen[3:] == ["pre"]
    with pytest.raises(RuntimeError, match="_extra_state"):
        nn.Sequential(nn.Linear(1, 1)).load_state_dict(m.state_dict())


# ---- hooks ----

def test_forward_hooks():
    m, seen = Net(), []
    handles = [m.register_forward_hook(lambda mod, args, out: seen.append("b") or out * 2),
               m.register_forward_hook(lambda mod, args, kwargs, out: seen.append(("a", kwargs)), prepend=True, with_kwargs=True),
               m.register_forward_pre_hook(lambda mod, args: seen.append("pre") or args[0] + 1),
               m.register_forward_pre_hook(lambda mod, args, kwargs: (args, {"shift": 10.0}), with_kwargs=True)]
    x = tensor(2, 3)
    y = m(x, shift=1.0)
    assert seen == ["pre", ("a", {"shift": 10.0}), "b"]
    for h in handles:
        h.remove()
    np.testing.assert_allclose(y.detach().numpy(), 2 * m(x + 1, 10.0).detach().numpy(), rtol=1e-6)
    assert len(seen) == 3
    m.register_forward_pre_hook(lambda mod, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="pre-hook must return"):
        m(x)


def test_hooks_that_run_whatever_happens():
    m, seen = nn.Linear(2, 2), []
    m.register_forward_hook(lambda mod, args, out: seen.append("always"), always_call=True)
    m.register_forward_hook(lambda mod, args, out: seen.append("never"))
    with pytest.raises(Exception):      # noqa: B017
        m(mg.ones(3, 3))
    assert seen == ["always"]
    m.register_forward_hook(lambda mod, args, out: 1 / 0, always_call=True)
    with pytest.warns(UserWarning, match="silenced"), pytest.raises(RuntimeError):
        m(mg.ones(3, 3))


def test_hooks_for_all_modules():
    m, seen = nn.Sequential(nn.Identity(), nn.Tanh()), []
    before = nn.module.register_module_forward_pre_hook(lambda mod, args: seen.append("in " + type(mod).__name__))
    after = nn.module.register_module_forward_hook(lambda mod, args, out: seen.append("out " + type(mod).__name__))
    m(mg.ones(1))
    assert seen == ["in Sequential", "in Identity", "out Identity", "in Tanh", "out Tanh", "out Sequential"]
    before.remove(), after.remove()
    m(mg.ones(1))
    assert len(seen) == 6 and not nn.Module._hooked


def listed(grads):
    return [None if g is None else g.tolist() for g in grads]


@pytest.mark.parametrize("changes", [False, True])
def test_backward_hooks_are_pytorchs(changes):
    torch = pytest.importorskip("torch")
    logs, results = [], []
    for n, make in ((nn, mg.tensor), (torch.nn, torch.tensor)):
        class Two(n.Module):
            def forward(self, a, b, c=None):
                return a * b, a.exp()

        m, log = Two(), []

        def before(mod, gout, log=log):
            log.append(("pre", listed(gout)))
            return tuple(2 * g for g in gout) if changes else None

        def after(mod, gin, gout, log=log):
            log.append(("full", listed(gin), listed(gout)))
            return tuple(None if g is None else 3 * g for g in gin) if changes else None

        m.register_full_backward_pre_hook(before)
        m.register_full_backward_hook(after)
        a, b = make([0.5, 2.0], requires_grad=True), make([3.0, -1.0])
        y, z = m(a, b)
        (y.sum() + 2 * z.sum()).backward()
        logs.append(log), results.append(a.grad.tolist())
    assert [entry[0] for entry in logs[0]] == ["pre", "full"]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)
    for mine, theirs in zip(*logs, strict=True):
        for x, y in zip(mine[1:], theirs[1:], strict=True):
            assert [v is None for v in x] == [v is None for v in y]
            np.testing.assert_allclose([v for v in x if v is not None], [v for v in y if v is not None], rtol=1e-6)


def test_backward_hooks_manners():
    m, seen = nn.Linear(2, 2), []
    m.register_full_backward_hook(lambda mod, gin, gout: seen.append(gin))
    with pytest.warns(UserWarning, match="no inputs require gradients"):
        m(mg.ones(1, 2)).sum().backward()
    assert seen == [(None,)]
    m(tensor(1, 2, grad=True)).sum().backward()
    assert seen[1][0].shape == (1, 2)
    with mg.no_grad():
        m(tensor(1, 2))
    m.register_full_backward_hook(lambda mod, gin, gout: (None, None))
    with pytest.raises(RuntimeError, match="invalid number of grad_input"):
        m(tensor(1, 2, grad=True)).sum().backward()


# ---- initial values ----

def draws(fill, shape=(200, 300)):
    mg.manual_seed(0)
    return fill(mg.empty(*shape)).numpy().astype(np.float64)


@pytest.mark.parametrize(("fill", "low", "high", "std"), [
    (lambda t: init.uniform_(t, -2, 3), -2, 3, 5 / math.sqrt(12)),
    (lambda t: init.normal_(t, 1, 2), None, None, 2),
    (lambda t: init.xavier_uniform_(t, 2.0), -2 * math.sqrt(6 / 500), 2 * math.sqrt(6 / 500), 2 * math.sqrt(2 / 500)),
    (lambda t: init.xavier_normal_(t), None, None, math.sqrt(2 / 500)),
    (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), -1 / math.sqrt(300), 1 / math.sqrt(300), 1 / math.sqrt(900)),
    (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"), None, None, math.sqrt(2 / 200)),
    (lambda t: init.trunc_normal_(t), -2, 2, 0.8796), (lambda t: init.trunc_normal_(t, 0, 1, 1.0, 1.5), 1, 1.5, 0.1428),
])
def test_distributions(fill, low, high, std):
    x = draws(fill)
    assert abs(x.std() / std - 1) < 0.02
    if low is not None:
        assert low <= x.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < x.max() <= high


def test_structured_values():
    q = draws(lambda t: init.orthogonal_(t, 2.0), (30, 20))
    np.testing.assert_allclose(q.T @ q, 4 * np.eye(20), atol=1e-5)
    np.testing.assert_allclose((q := draws(init.orthogonal_, (6, 4, 5)).reshape(6, 20)) @ q.T, np.eye(6), atol=1e-5)
    assert np.array_equal(draws(init.eye_, (3, 5)), np.eye(3, 5)) and (draws(init.ones_) == 1).all() and (draws(init.zeros_) == 0).all()
    assert (draws(lambda t: init.constant_(t, 3)) == 3).all() and ((draws(lambda t: init.sparse_(t, 0.25)) == 0).sum(0) == 50).all()
    torch = pytest.importorskip("torch")
    assert np.array_equal(draws(lambda t: init.dirac_(t, 2), (4, 3, 3, 5)), torch.nn.init.dirac_(torch.empty(4, 3, 3, 5), 2).numpy())
    for name, param in (("linear", None), ("tanh", None), ("relu", None), ("leaky_relu", 0.3), ("leaky_relu", None), ("selu", None)):
        assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


@pytest.mark.parametrize(("act", "error"), [
    (lambda: init.calculate_gain("swish"), ValueError), (lambda: init.calculate_gain("leaky_relu", "x"), ValueError),
    (lambda: init.xavier_uniform_(mg.empty(3)), ValueError), (lambda: init.kaiming_uniform_(mg.empty(3, 3), mode="in"), ValueError),
    (lambda: init.eye_(mg.empty(3)), ValueError), (lambda: init.dirac_(mg.empty(3, 3)), ValueError),
    (lambda: init.orthogonal_(mg.empty(3)), ValueError), (lambda: init.sparse_(mg.empty(3), 0.1), ValueError)])
def test_init_errors(act, error):
    with pytest.raises(error):
        act()


def test_layers_start_as_pytorchs_do():
    mg.manual_seed(0)
    m = nn.Linear(100, 400)
    weight, bias = m.weight.detach().numpy(), m.bias.detach().numpy()
    assert abs(weight.std() * math.sqrt(300) - 1) < 0.02 and abs(bias).max() <= 0.1 < 1.02 * abs(bias).max()
    mg.manual_seed(0)
    assert np.array_equal(nn.Linear(100, 400).weight.detach().numpy(), m.weight.detach().numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert nn.Linear(0, 3).weight.shape == (3, 0)


# ---- layers against PyTorch: values and gradients ----

INPUTS = {"linear": (5, 4), "linear, no bias": (2, 3, 4), "flatten": (2, 3, 4), "unflatten": (3, 4), "layer": (3, 4),
          "layer, no bias": (5, 2, 4), "layer, plain": (3, 4), "rms": (3, 4), "rms, plain": (2, 3, 4), "group": (3, 4, 5),
          "group, no bias": (3, 4, 2, 2), "group, plain": (3, 4, 5), "batch": (6, 4), "batch2": (3, 4, 2, 3), "batch3": (2, 4, 2, 2, 2),
          "batch, plain": (4, 4, 3), "instance": (2, 4, 6), "instance2": (2, 4, 3, 3), "instance3": (4, 2, 2, 3), "glu": (3, 4),
          "prelu": (3, 4, 2)}
ACTIVATIONS = ["relu", "leaky", "celu", "selu", "gelu", "silu", "mish", "softplus", "softsign", "sigmoid", "tanh", "hardtanh", "relu6",
               "hardswish", "hardsigmoid", "softmax", "log_softmax", "logsigmoid"]


@pytest.mark.parametrize("name", [*INPUTS, "identity", *ACTIVATIONS])
@pytest.mark.parametrize("training", [True, False])
def test_layers_are_pytorchs(name, training):
    torch = pytest.importorskip("torch")
    mine, theirs = LAYERS[name](nn), LAYERS[name](torch.nn)
    shape = INPUTS.get(name, (3, 4))
    for i, p in enumerate(theirs.parameters()):
        p.data = torch.tensor(array(*p.shape, seed=7 + i))
    mine.load_state_dict(theirs.state_dict())
    for step in range(3):
        x = array(*shape, seed=step)
        a, b = mg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        mine.train(training or step < 2), theirs.train(training or step < 2)
        ya, yb = mine(a), theirs(b)
        g = array(*yb.shape, seed=20 + step)
        ya.backward(mg.tensor(g)), yb.backward(torch.tensor(g))
        np.testing.assert_allclose(ya.detach().numpy(), yb.detach().numpy(), rtol=3e-5, atol=2e-6)
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=3e-5, atol=5e-6)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=3e-5, atol=1e-5)
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


LOSSES = [("MSELoss", {}), ("L1Loss", {}), ("SmoothL1Loss", {"beta": 0.5}), ("SmoothL1Loss", {"beta": 0.0}), ("HuberLoss", {"delta": 0.7}),
          ("BCELoss", {}), ("BCEWithLogitsLoss", {}), ("KLDivLoss", {}), ("KLDivLoss", {"log_target": True}),
          ("CrossEntropyLoss", {"label_smoothing": 0.2, "ignore_index": 1}), ("NLLLoss", {"ignore_index": 2})]
WEIGHTED = ("BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "NLLLoss")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "options"), LOSSES)
@pytest.mark.filterwarnings("ignore:reduction")
def test_losses_are_pytorchs(name, options, reduction, weighted):
    torch = pytest.importorskip("torch")
    if (reduction == "batchmean" and name != "KLDivLoss") or (weighted and name not in WEIGHTED):
        pytest.skip("no such option")
    x, target = array(5, 4), 1 / (1 + np.exp(-array(5, 4, seed=1)))
    if name in ("CrossEntropyLoss", "NLLLoss"):
        target = np.array([0, 1, 3, 2, 3])
    if name == "BCELoss":
        x = 1 / (1 + np.exp(-x))
    weight = np.array([0.5, 1.0, 2.0, 0.25], np.float32) if weighted else None
    results = []
    for n, make in ((nn, mg.tensor), (torch.nn, torch.tensor)):
        w = {"weight": make(weight)} if weighted else {}
        t = make(x, requires_grad=True)
        loss = getattr(n, name)(reduction=reduction, **options, **w)(t, make(target))
        loss.sum().backward()
        results.append((loss.detach().numpy(), t.grad.numpy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_weighted_regression_losses():
    torch = pytest.importorskip("torch")
    x, y, w = array(3, 4), array(3, 4, seed=1), abs(array(3, 4, seed=2))
    for name in ("mse_loss", "l1_loss", "huber_loss"):
        for reduction in ("none", "mean", "sum"):
            a = getattr(F, name)(mg.tensor(x), mg.tensor(y), reduction=reduction, weight=mg.tensor(w))
            b = getattr(torch.nn.functional, name)(torch.tensor(x), torch.tensor(y), reduction=reduction, weight=torch.tensor(w))
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="same size"):
        F.mse_loss(mg.tensor(x), mg.tensor(y), weight=mg.ones(3))
    with pytest.warns(UserWarning, match="target size"):
        assert F.mse_loss(mg.zeros(3, 4), mg.ones(4)).item() == 1.0
    with pytest.warns(UserWarning, match="reduction='sum'"):
        assert F.mse_loss(mg.zeros(3, 4), mg.ones(3, 4), size_average=False).item() == 12.0
    for reduction in ("batchmean", "average"):
        with pytest.raises(ValueError, match="not a valid value for reduction"):
            F.mse_loss(mg.tensor(x), mg.tensor(y), reduction=reduction)


# ---- layer behaviour of our own ----

def test_batch_norm_refuses_one_value_per_channel():
    for m, x in ((nn.BatchNorm1d(3), mg.ones(1, 3)), (nn.BatchNorm2d(3), mg.ones(1, 3, 1, 1))):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            m(x)
        assert m.num_batches_tracked.item() == 0 and m.eval()(x).shape == x.shape
    m = nn.BatchNorm1d(3)
    assert m(mg.ones(0, 3)).shape == (0, 3) and m.running_var.tolist() == [1.0] * 3 and m.num_batches_tracked.item() == 1
    with pytest.raises(ValueError, match="more than 1 spatial"):
        nn.InstanceNorm1d(3)(mg.ones(2, 3, 1))
    for m, x, text in ((nn.BatchNorm1d(3), mg.ones(2, 3, 1, 1), "2D or 3D"), (nn.BatchNorm2d(3), mg.ones(2, 3), "4D"),
                       (nn.InstanceNorm2d(3), mg.ones(2, 3), "3D or 4D")):
        with pytest.raises(ValueError, match=text):
            m(x)
    with pytest.raises(ValueError, match="divisible"):
        nn.GroupNorm(3, 4)
    with pytest.raises(ValueError, match="eps"):
        nn.BatchNorm1d(3, eps=0.0)(mg.ones(2, 3))


def test_dropout():
    mg.manual_seed(0)
    x = mg.ones(100, 100, requires_grad=True)
    y = nn.Dropout(0.25)(x)
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.02 and np.allclose(y.detach().numpy()[kept], 1 / 0.75)
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), y.detach().numpy())
    assert nn.Dropout(0.25).eval()(x) is x and (nn.Dropout(1.0)(x).detach().numpy() == 0).all()
    channels = nn.Dropout2d(0.5)(mg.ones(10, 20, 3, 3)).numpy().reshape(200, 9)
    assert set(channels.sum(1)) == {0.0, 18.0}
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            nn.Dropout(p)


IN_PLACE = {"relu": lambda n: n.ReLU(inplace=True), "leaky": lambda n: n.LeakyReLU(0.2, True), "elu": lambda n: n.ELU(0.5, True),
            "selu": lambda n: n.SELU(True), "celu": lambda n: n.CELU(0.7, True), "silu": lambda n: n.SiLU(True), "mish": lambda n: n.Mish(True),
            "hardtanh": lambda n: n.Hardtanh(inplace=True), "relu6": lambda n: n.ReLU6(True), "hardswish": lambda n: n.Hardswish(True),
            "hardsigmoid": lambda n: n.Hardsigmoid(True)}


@pytest.mark.parametrize("case", IN_PLACE)
def test_in_place_activations_in_a_graph(case):
    """The input holds the result from then on; gradients of orders 1 and 2 flow through it."""
    torch = pytest.importorskip("torch")
    values = np.linspace(-4, 4, 24).reshape(4, 6).astype("float64")
    found = []
    for m, n in ((torch, torch.nn), (mg, nn)):
        x = m.tensor(values, requires_grad=True)
        y = x * 1.5
        z = IN_PLACE[case](n)(y)
        assert z is y and not y.is_leaf
        g, = m.autograd.grad((y * z).sum(), x, create_graph=True)
        h = g if case == "hardsigmoid" else m.autograd.grad((g ** 2).sum(), x)[0]       # PyTorch has no second derivative of it
        found.append([t.detach().numpy() for t in (y, g, h)])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("before", [lambda n: n.Linear(6, 6), lambda n: n.BatchNorm1d(6), lambda n: n.LayerNorm(6),
                                    lambda n: n.Conv1d(1, 1, 3, padding=1), lambda n: n.AvgPool1d(2), lambda n: n.GroupNorm(1, 6)])
def test_in_place_behind_a_layer(before):
    """What the layers keep for their backward is not the memory that is overwritten."""
    torch = pytest.importorskip("torch")
    conv = before(nn).__class__.__name__ in ("Conv1d", "AvgPool1d")
    values = np.random.default_rng(0).normal(size=(4, 1, 6) if conv else (4, 6)).astype("float32")
    theirs, ours = (n.Sequential(before(n), n.ReLU(inplace=True), n.Dropout(0.0, inplace=True)) for n in (torch.nn, nn))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    found = []
    for m, net in ((torch, theirs), (mg, ours)):
        x = m.tensor(values, requires_grad=True)
        net(x).square().sum().backward()
        found.append([x.grad.numpy(), *(p.grad.numpy() for p in net.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_in_place_options():
    x = tensor(3)
    with mg.no_grad():
        assert nn.ReLU(inplace=True)(x) is x and (x >= 0).all()
    y = tensor(3, grad=True) * 2
    product = y * y
    nn.ReLU(inplace=True)(y)
    with pytest.raises(RuntimeError, match="changed"):          # its old values were needed
        product.sum().backward()
    with pytest.raises(RuntimeError, match="leaf"):
        nn.ReLU(inplace=True)(tensor(3, grad=True))
    with pytest.raises(NotImplementedError, match="inplace=True changes a view"):
        nn.ReLU(inplace=True)((tensor(4, grad=True) * 2)[1:])


def test_softmax_without_dim_warns():
    with pytest.warns(UserWarning, match="Implicit dimension"):
        assert nn.Softmax()(mg.ones(2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]


# ---- utils ----

@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf, 0.5])
def test_clipping_is_pytorchs(norm_type):
    torch = pytest.importorskip("torch")
    arrays = [array(3, 4), array(5, seed=1), array(2, 2, seed=2)]
    for limit in (0.5, 1000.0):
        mine, theirs = [nn.Parameter(mg.tensor(a)) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
        for p, q, a in zip(mine[:2], theirs, arrays, strict=False):
            p.grad, q.grad = mg.tensor(a), torch.tensor(a)
        total = nn.utils.clip_grad_norm_(mine, limit, norm_type)
        np.testing.assert_allclose(total.item(), torch.nn.utils.clip_grad_norm_(theirs, limit, norm_type).item(), rtol=1e-5)
        for p, q in zip(mine[:2], theirs, strict=False):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)
        nn.utils.clip_grad_value_(iter(mine), 0.1), torch.nn.utils.clip_grad_value_(theirs, 0.1)
        for p, q in zip(mine[:2], theirs, strict=False):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)


def test_clipping_manners():
    p = nn.Parameter(mg.ones(2))
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == 0.0 and nn.utils.clip_grad_norm_(p, 1.0).item() == 0.0
    p.grad = mg.tensor([math.inf, 1.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    with pytest.raises(NotImplementedError, match="foreach"):
        nn.utils.clip_grad_norm_(p, 1.0, foreach=True)
    with pytest.warns(UserWarning, match="empty generator"):
        nn.utils.clip_grad_norm_((q for q in []), 1.0)


def test_parameters_as_a_vector():
    m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    v = nn.utils.parameters_to_vector(m.parameters())
    assert v.shape == (13,) and v.requires_grad
    nn.utils.vector_to_parameters(mg.arange(13).float(), m.parameters())
    assert m[0].weight.tolist() == [[0, 1], [2, 3], [4, 5]] and m[1].bias.tolist() == [12]
    with pytest.raises(TypeError):
        nn.utils.vector_to_parameters([1.0], m.parameters())


def test_summary():
    m = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout()))
    m[0].requires_grad_(False)
    text = nn.summary(m, (2, 3))
    assert [line.split() for line in text.splitlines() if "---" not in line] == [
        ["module", "type", "input", "output", "parameters"], "model Sequential (2, 3) (2, 4)".split(), "0 Linear (2, 3) (2, 4) 16".split(),
        "1 Sequential (2, 4) (2, 4)".split(), "0 BatchNorm1d (2, 4) (2, 4) 8".split(), "1 Dropout (2, 4) (2, 4)".split(),
        "24 parameters, 8 of them trained; 9 numbers in buffers; 0.1 KiB".split()]
    assert m.training and m[1][0].num_batches_tracked.item() == 0 and not m[0]._forward_hooks
    assert nn.summary(m, input_data=mg.ones(2, 3)) == text


def test_summary_of_several_inputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.n, self.u, self.t = nn.Linear(3, 4), nn.Linear(5, 4), nn.Tanh(), nn.Linear(1, 1), nn.Linear(3, 4)
            self.t.weight = self.a.weight

        def forward(self, x, y, scale=1.0):
            h = self.n(self.n(self.a(x) + self.b(y) * scale))
            return {"h": h, "pair": (h, self.t(x.double().float()), None)}
    net = Net()
    text = nn.summary(net, [(2, 3), (2, 5)], scale=2.0)
    assert [line.split() for line in text.splitlines()[2:-2]] == [
        "model Net [(2, 3), (2, 5), float] {h: (2, 4), pair: [(2, 4), (2, 4), None]}".split(), "a Linear (2, 3) (2, 4) 16".split(),
        "b Linear (2, 5) (2, 4) 24".split(), "n Tanh (2, 4) (2, 4)".split(), "n Tanh (2, 4) (2, 4)".split(), "t Linear (2, 3) (2, 4) 4".split(),
        "u Linear not called 2".split()]
    assert text.endswith("46 parameters, 46 of them trained; 0.2 KiB")
    assert nn.summary(net, input_data=(mg.ones(2, 3), mg.ones(2, 5))).count("\n") == text.count("\n")
    assert "(2, 3), (2, 5)" in nn.summary(net, [(2, 3), (2, 5)], dtype=[mg.float32, mg.float32])
    for wrong in ({}, {"input_shape": (1, 2), "input_data": mg.ones(2)}, {"input_shape": [(2, 3), (2, 5)], "dtype": [mg.float32]}):
        with pytest.raises(ValueError, match="summary"):
            nn.summary(net, **wrong)
    with pytest.raises(RuntimeError):
        nn.summary(net, [(2, 4), (2, 5)])
    assert not net.a._forward_hooks and net.training


def test_hooks_are_pytorchs():
    torch = pytest.importorskip("torch")
    from torch.nn.modules import module as theirs
    x, w = array(4, 3), array(2, 3, seed=1)
    logs = []
    for lib, everywhere in ((torch, theirs), (mg, nn.module)):
        log = []
        m = lib.nn.Sequential(lib.nn.Linear(3, 2), lib.nn.Tanh())
        with lib.no_grad():
            m[0].weight.copy_(lib.tensor(w))
            m[0].bias.zero_()
        handles = [
            m.register_forward_pre_hook(lambda mod, args, kwargs, log=log: log.append(("pre", len(args), sorted(kwargs))), with_kwargs=True),
            m[0].register_forward_hook(lambda mod, args, out, log=log: log.append(("out", tuple(out.shape))) or out * 2),
            m[0].register_full_backward_hook(lambda mod, gi, go, log=log: log.append(("full", [g.detach().numpy() for g in (*gi, *go)])) or (gi[0] * 3,)),
            m[1].register_full_backward_pre_hook(lambda mod, go, log=log: log.append(("full pre", [g.detach().numpy() for g in go])) or (go[0] * 5,)),
            everywhere.register_module_full_backward_hook(lambda mod, gi, go, log=log: log.append(("all", type(mod).__name__))),
            everywhere.register_module_full_backward_pre_hook(lambda mod, go, log=log: log.append(("all pre", type(mod).__name__))),
            everywhere.register_module_forward_hook(lambda mod, args, out, log=log: log.append(("all out", type(mod).__name__))),
            m[0].weight.register_post_accumulate_grad_hook(lambda p, log=log: log.append(("post", p.grad.detach().numpy().copy()))),
        ]
        t = lib.tensor(x, requires_grad=True)
        m(t).sum().backward()
        log.append(("x", t.grad.numpy()))
        for h in handles:
            h.remove()
        n = len(log)
        m(t).sum().backward()
        assert len(log) == n
        logs.append(sorted(log, key=lambda e: e[0] == "post"))       # here .grad is filled after the walk, there on the way
    assert [e[0] for e in logs[0]] == [e[0] for e in logs[1]]
    for a, b in zip(*logs, strict=True):
        if a[0] in ("full", "full pre", "post", "x"):
            for p, q in zip(a[1] if isinstance(a[1], list) else [a[1]], b[1] if isinstance(b[1], list) else [b[1]], strict=True):
                np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6)
        else:
            assert a == b


# ---- what a notebook shows ----

def test_notebook_form():
    html = mg.tensor([[1.5, np.nan], [2.0, -np.inf]], requires_grad=True)._repr_html_()
    assert "tensor [2, 2], float32, cpu, requires_grad=True" in html and html.count("<tr>") == 2
    assert "<td>1.5</td><td>nan</td>" in html and "<td>-inf</td>" in html
    html = mg.arange(60).reshape(30, 2)._repr_html_()
    assert html.count("<tr>") == 11 and "⋮" in html and "<td>59</td>" in html
    assert mg.ones(3, 40)._repr_html_().count("…") == 3
    assert "shown: [0, :, :]" in mg.ones(2, 3, 4)._repr_html_() and "<td>3</td>" in mg.tensor(3.0)._repr_html_()
    assert "<tr>" not in mg.ones(0, 3)._repr_html_() and "&lt;mul_backward&gt;" in (mg.ones(2, requires_grad=True) * 2)._repr_html_()
    with pytest.raises(RuntimeError, match="reads a value while recording"):
        mg.capture(lambda x: x._repr_html_())(mg.ones(2))
