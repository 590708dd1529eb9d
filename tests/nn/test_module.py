"""Modules: the tree of members, modes, conversion, state dicts, hooks."""
from __future__ import annotations

import copy
import functools
import gc
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim


def array(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


def tensor(*shape, seed=0, grad=False):
    return mg.tensor(array(*shape, seed=seed), requires_grad=grad)


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
    (lambda m: setattr(m, "count", 3), TypeError, "to buffer 'count'"),
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
    refused = r"\[linear\] the last size of the input must be in_features 2"
    with pytest.raises(RuntimeError, match=refused):
        m(mg.ones(3, 3))
    assert seen == ["always"]
    m.register_forward_hook(lambda mod, args, out: 1 / 0, always_call=True)
    with pytest.warns(UserWarning, match="silenced"), pytest.raises(RuntimeError, match=refused):
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
def test_backward_hooks_are_pytorchs(torch, changes):
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


def test_hooks_are_pytorchs(torch):
    from torch.nn.modules import module as theirs
    x, w = array(4, 3).astype(np.float64), array(2, 3, seed=1).astype(np.float64)     # float32: PyTorch's tanh' has lost digits
    logs = []
    for lib, everywhere in ((torch, theirs), (mg, nn.module)):
        log = []
        m = lib.nn.Sequential(lib.nn.Linear(3, 2), lib.nn.Tanh()).double()
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


# ---- attributes ----

def test_a_property_names_what_is_missing():
    class Net(nn.Module):
        runs = 0

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        @property
        def width(self):
            return self.missing_thing

        @property
        def deep(self):
            return self.inner.nothing

        @property
        def fine(self):
            return self.inner.in_features

        @functools.cached_property
        def cached(self):
            return self.width

    net = Net()
    for name, text in (("width", "'Net' object has no attribute 'missing_thing'"), ("deep", "'Linear' object has no attribute 'nothing'"),
                       ("cached", "'Net' object has no attribute 'missing_thing'"), ("other", "'Net' object has no attribute 'other'")):
        with pytest.raises(AttributeError, match=text):
            getattr(net, name)
        assert not hasattr(net, name)
    assert net.fine == 2
    net.missing_thing = 5
    assert net.width == net.cached == 5


# ---- to ----

@pytest.mark.parametrize(("args", "options"), [
    ((None, True), {}), (([],), {}), (({},), {}), ((True,), {}), (("cpu", True), {}), (("cpu", np.float32, True, True), {}), ((np.float32, "cpu"), {}),
    ((mg.ones(1), np.float32), {}), ((mg.ones(1), "cpu"), {}), (("cpu",), {"device": "cpu"}), ((), {"non_blocking": 3}), ((), {"device": []}),
    ((), {"copy": True}), ((), {"dtype": np.int64}), ((), {"dtype": 3}), ((), {"tensor": 3}), ((), {"nothing": 3})])
def test_arguments_of_to_that_make_no_sense(args, options):
    with pytest.raises(TypeError, match=r"^\[Module.to\]"):
        nn.Linear(2, 2).to(*args, **options)


def test_arguments_of_to():
    for args, options in (((), {}), ((None,), {}), ((None, None), {}), (("cpu", np.float64, True), {}), ((np.float64, False), {}), ((mg.ones(1), True), {}),
                          ((), {"tensor": mg.ones(1)}), ((), {"device": "cpu", "dtype": np.float64, "non_blocking": True}), ((float,), {}), (("cpu",), {"dtype": "float64"})):
        m = nn.BatchNorm1d(2).to(*args, **options)
        wide = np.float64 in args or float in args or "float64" in map(str, options.values()) or np.float64 in options.values()
        assert m.weight.dtype == m.running_mean.dtype == (np.float64 if wide else np.float32) and m.num_batches_tracked.dtype == np.int64


# ---- loading ----

def test_assigned_weights_stay_tied():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.o, self.free = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
            self.o.weight = self.e.weight
            self.register_buffer("a", mg.zeros(2))
            self.o.register_buffer("b", self.a)

    state = {k: v.clone() for k, v in Net().state_dict().items()}
    state["o.weight"] = state["e.weight"]
    for given in (state, {k: v.numpy() for k, v in state.items()}, {k: nn.Parameter(v) for k, v in state.items() if v.ndim == 2} | {"a": state["a"], "o.b": state["o.b"]}):
        m = Net()
        m.load_state_dict(given, assign=True)
        assert m.o.weight is m.e.weight and m.free.weight is not m.e.weight and m.o.b is m.a and len(list(m.parameters())) == 2
        assert np.array_equal(m.o.weight.detach().numpy(), state["o.weight"].numpy())
    other = {**state, "o.weight": state["o.weight"] + 1}            # the last one counts, as it does when values are copied
    copied, assigned = Net(), Net()
    copied.load_state_dict(other), assigned.load_state_dict(other, assign=True)
    assert copied.e.weight.tolist() == assigned.e.weight.tolist() and assigned.o.weight is assigned.e.weight


def test_loading_leaves_no_garbage():
    m = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2)))
    o = optim.Adam(m.parameters())
    for p in m.parameters():
        p.grad = mg.ones_like(p)
    o.step()
    state = [{k: v.clone() for k, v in m.state_dict().items()}, copy.deepcopy(o.state_dict())]
    gc.collect()
    m.load_state_dict(state[0])
    m.load_state_dict(state[0], assign=True)
    o.load_state_dict(state[1])
    assert gc.collect() == 0


def test_notebook_form():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.ReLU())
    model[0].bias.requires_grad_(False)
    model.tag = nn.Module()
    model.tag.extra_repr = lambda: "<tag>"
    html = model._repr_html_()
    assert html.count("<details") == html.count("</details>") == 3 and html.count("<div") == html.count("</div>")
    assert "<code>weight float32[4, 3]</code>" in html and "running_mean float32[4]" in html and "buffer" in html and "not trained" in html
    assert "2 to 3, each" in html and html.count("<b>ReLU</b>") == 1 and "24 parameters" in html and "&lt;tag&gt;" in html


def test_assigned_buffers():
    m, b = nn.Module(), nn.Buffer(mg.ones(3), persistent=False)
    assert isinstance(b, mg.Tensor) and not isinstance(b, nn.Parameter) and not b.requires_grad and type(b + 1) is mg.Tensor
    m.b = b
    assert m.b is b and list(m.buffers()) == [b] and not m.state_dict()
    m.b = mg.zeros(3)                               # stays what it was
    assert not m.state_dict() and list(m.buffers())[0] is m.b
    m.b = nn.Buffer(mg.zeros(2))
    assert list(m.state_dict()) == ["b"]
    m.c = nn.Buffer(mg.ones(2, requires_grad=True))
    assert m.c.requires_grad and nn.Buffer().shape == (0,)
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert [type(t) for t in twin.buffers()] == [nn.Buffer] * 2 and twin.b is not m.b and twin.c.requires_grad
        assert list(twin.state_dict()) == ["b", "c"]
    twin = pickle.loads(pickle.dumps(b))
    assert type(twin) is nn.Buffer and not twin.persistent and not copy.deepcopy(b).persistent
    m.c = nn.Parameter(mg.ones(2))
    assert [n for n, _ in m.named_buffers()] == ["b"] and [n for n, _ in m.named_parameters()] == ["c"]
    m.c = None
    m.number = 3
    with pytest.raises(KeyError, match="already exists"):
        m.number = nn.Buffer(mg.ones(1))

    class Early(nn.Module):
        def __init__(self):
            self.b = nn.Buffer(mg.ones(1))
    with pytest.raises(AttributeError, match="cannot assign buffers before"):
        Early()


def test_classes_behind_module_are_initialized_if_asked():
    class Behind:
        def __init__(self, *args, **kwargs):
            super().__init__()
            self.given = args, kwargs

    class Before(Behind, nn.Module):
        pass

    class After(nn.Module, Behind):
        pass

    assert hasattr(Before(), "given") and not hasattr(After(), "given")
    After.call_super_init = True
    assert After(1, b=2).given == ((1,), {"b": 2})
    with pytest.raises(TypeError, match=r"Module.__init__\(\) takes no arguments; got 1"):
        nn.Module(3)
    with pytest.raises(TypeError, match="'width'; it takes none"):
        nn.Module(width=3)


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("kind", ["parameter", "buffer", "module"])
def test_hooks_of_members(kind, replaces):
    from minigrad.nn import hooks as where
    seen, other = [], {"parameter": nn.Parameter(mg.ones(1)), "buffer": mg.ones(1), "module": nn.Identity()}[kind]

    def hook(module, name, value):
        seen.append((type(module), name, value))
        return other if replaces and name == "b" else None
    handle = getattr(where, f"register_module_{kind}_registration_hook")(hook)
    try:
        m = nn.Module()
        values = [nn.Parameter(mg.ones(2)) if kind == "parameter" else mg.ones(2) if kind == "buffer" else nn.ReLU() for _ in range(3)]
        register = {"parameter": m.register_parameter, "buffer": m.register_buffer, "module": m.add_module}[kind]
        register("a", values[0])
        register("b", values[1])
        m.a = values[2]
        m.a = None
        assert m.b is (other if replaces else values[1]) and m.a is None
        assert seen == [(nn.Module, name, v) for name, v in (("a", values[0]), ("b", values[1]), ("a", values[2]), ("a", None))]
    finally:
        handle.remove()
    nn.Linear(2, 2)
    assert len(seen) == 4


def test_hook_tables_hold_the_hooks():
    """As PyTorch's do: programs look up their own in them."""
    m, hooks = nn.Linear(2, 2), [lambda mod, args: None, lambda mod, args, kwargs, out: out * 2]
    m.register_forward_pre_hook(hooks[0]), m.register_forward_hook(hooks[1], with_kwargs=True)
    assert list(m._forward_pre_hooks.values()) == hooks[:1] and list(m._forward_hooks.values()) == hooks[1:]
    x = mg.ones(1, 2)
    assert mg.equal(copy.deepcopy(m)(x), 2 * m.forward(x)) and mg.equal(m(x), 2 * m.forward(x))
    n = m.register_forward_hook(lambda mod, args, out: out).id
    m._forward_hooks[n + 2] = hooks[1]                      # as after unpickling in a new process: numbers that are still to come,
    m._hook_options.update({n + 1: (True, False), n + 2: (True, False)})        # the first of a hook that was removed
    assert [m.register_forward_hook(lambda mod, args, out: out * 5).id for _ in range(2)] == [n + 1, n + 3]
    assert mg.equal(m(x), 100 * m.forward(x))


@pytest.mark.parametrize("wrong", [3, "x", (2.0,), [1]])
@pytest.mark.parametrize("where", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_backward_hook_returns_tensors(where, wrong):
    m = nn.Linear(2, 2)
    getattr(m, where)(lambda *_: wrong)
    with pytest.raises(TypeError, match=r"\[Module\] a full backward (pre-)?hook must return tensors or None; got (int|str|float|list)"):
        m(mg.ones(1, 2, requires_grad=True)).sum().backward()


def test_pickles_keep_the_attributes_of_a_parameter():
    p = nn.Parameter(mg.ones(2))
    p.decay, p.names = 0.5, ["a"]
    twin = pickle.loads(pickle.dumps(nn.ParameterList([p])))[0]
    assert type(twin) is nn.Parameter and twin.requires_grad and twin.tolist() == [1, 1] and (twin.decay, twin.names) == (0.5, ["a"])
