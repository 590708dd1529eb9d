"""What is kept for backward, and in which order backward runs."""
from __future__ import annotations

import pytest

import minigrad as mg
import minigrad.utils.checkpoint
from minigrad import nn, study
from minigrad.nn import functional as F


def make():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = mg.randn(5, 6), mg.tensor([0, 1, 2, 0, 1])
    return model, lambda: F.cross_entropy(model(x), y)


def test_an_input_is_what_something_besides_the_graph_holds():
    frozen, layer = nn.Linear(6, 8).requires_grad_(False), nn.Linear(8, 3)
    x, w = mg.randn(5, 6), mg.randn(40, requires_grad=True)
    found = study.saved(lambda: layer(frozen(x)).sum())         # the result of `frozen` has no graph, and nobody else has it
    assert (found.activations, found.inputs) == (5 * 8 * 4, 0)
    found = study.saved((w * mg.randn(40)).sum())               # not in an assert: pytest keeps the parts of one
    assert (found.activations, found.inputs) == (160, 0)
    order = study.backward_order((w * mg.randn(40)).sum())
    assert order.before == 160
    kept, view = mg.randn(40), mg.randn(80)[:40]
    assert (study.saved((w * kept).sum()).activations, study.saved((w * kept).sum()).inputs) == (0, 160)
    assert study.saved((w * kept.detach()).sum()).inputs == 160                                 # the same memory in another tensor
    assert study.saved((w * view).sum()).inputs == 320
    mask = study.saved(F.dropout(w, 0.5).sum())
    assert mask.activations == 40 and mask.inputs == 0


def test_saved_counts_each_memory_once():
    x, w = mg.randn(4, 6), mg.randn(6, requires_grad=True)
    y = x * w                       # keeps x (an input); w needs no gradient of x
    z = y * y                       # keeps y, twice
    u = z.exp()                     # keeps its result
    v = u * z                       # keeps u again, and z
    found = study.saved(v.sum())
    assert (found.activations, found.inputs, found.parameters) == (3 * 96, 96, 0) and found.total == 4 * 96
    assert {r.op: r.nbytes["activation"] for r in found.rows} == {"mul": 192, "exp": 96, "sum": 0}
    v.sum().backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        study.saved(v.sum())


def test_saved_tells_parameters_apart_and_knows_lines():
    model, loss = make()
    found = study.saved(loss)
    rows = {(r.op, r.module): r for r in found.rows}
    assert rows["linear", "model.0"].nbytes == {"activation": 0, "input": 5 * 6 * 4, "parameter": (6 * 8 + 8) * 4}
    assert rows["linear", "model.3"].nbytes["parameter"] == (8 * 3 + 3) * 4
    assert all(r.line.startswith("test_order.py:") for r in found.rows)
    assert found.parameters == sum(p.nbytes for p in model.parameters())
    shown = str(found)
    assert max(map(len, shown.splitlines())) <= 120 and max(map(len, found.as_table().text(80).splitlines())) <= 80
    assert "saved(lambda" not in shown and "saved(lambda" in str(study.saved(loss()))
    with study.trace():
        value = loss()
    assert "model.0" in str(study.saved(value))                 # the places of a trace are still known


def test_backward_order_leaves_gradients_and_graph_as_they_were():
    model, loss = make()
    loss().backward()
    before = [p.grad.numpy().copy() for p in model.parameters()]
    value = loss()
    order = study.backward_order(value)
    assert [s.backward.op for s in order.steps] == ["cross_entropy", "linear", "relu", "layer_norm", "linear"]
    assert all((p.grad.numpy() == g).all() for p, g in zip(model.parameters(), before, strict=True))
    value.backward()                                            # the graph is still there
    assert study.backward_order(loss).steps[-1].module == "model.0"


def test_backward_order_says_what_becomes_free():
    x = mg.randn(4, 6, requires_grad=True)
    order = study.backward_order(lambda: (x.exp().sin() * 2).sum())
    names = [s.backward.op for s in order.steps]
    assert names[-2:] == ["sin", "exp"]
    sin, exp = order.steps[-2:]
    assert order.before == 96 and (sin.saved, sin.freed, sin.held) == (96, 0, 96) and (exp.saved, exp.freed, exp.held) == (96, 96, 0)
    with mg.set_fused("off"):
        model, loss = make()
        order = study.backward_order(loss)
    assert order.steps[-1].held == 0 and sum(s.freed for s in order.steps) == order.before
    for width in (80, 120):
        assert max(map(len, order.as_table().text(width).splitlines())) <= width


def test_backward_order_names_parameters_without_gradient():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x):
            return self.used(x)
    model, x = Model(), mg.randn(5, 6)
    with pytest.warns(UserWarning, match=r"\[backward_order\] these parameters got no gradient: model.unused.weight, model.unused.bias;"):
        study.backward_order(lambda: model(x).sum())


def test_what_is_no_loss_is_refused():
    with pytest.raises(TypeError, match="backward_order"):
        study.backward_order(lambda: 3)
    with pytest.raises(RuntimeError, match="must require a gradient"):
        study.backward_order(mg.ones(3).sum())
    with pytest.raises(RuntimeError, match=r"\[backward_order\] the loss must be the result of an op; got the leaf"):
        study.backward_order(mg.ones((), requires_grad=True))


    with pytest.raises(RuntimeError, match=r"\[backward_order\] the loss must be a scalar; got float32\[3\]; reduce it first: loss.sum\(\)$"):
        study.backward_order(mg.ones(3, requires_grad=True) * 2)
    for by in (study.saved, study.backward_order):
        for wrong, got in ((None, "NoneType"), ([], "NoneType"), (3, "int"), (["x"], "str"), (nn.Linear(3, 3), "Linear")):
            with pytest.raises(TypeError, match=rf"\[{by.__name__}\] it takes a loss, several in a list, or a function .*; got {got}; for example"):
                by(wrong)


def test_several_losses():
    x = mg.ones(3, requires_grad=True)
    a, b = x.exp().sum(), x.sin().sum()
    both = study.saved([a, b])
    assert (both.activations, both.parameters) == (12, 12) == (study.saved(a).activations, study.saved(lambda: (a, b)).parameters)  # exp, and x of sin
    assert [s.backward.op for s in study.backward_order([a, b]).steps] == ["sum", "sin", "sum", "exp"] and x.grad is None


def test_backward_order_leaves_retained_gradients_alone():
    x = mg.randn(4, 3, requires_grad=True)
    h, (a, b) = x * 2, x.chunk(2)
    for t in (h, a):
        t.retain_grad()
    loss = (h.exp().sum() + (a * b).sum())
    study.backward_order(loss)
    assert h.grad is None and a.grad is None
    loss.backward()
    assert h.grad is not None and a.grad is not None


def _agree(loss):
    """What `saved` and `graph` say of a loss, which must be the same."""
    found, g = study.saved(loss), study.graph(loss)
    memory = {s.memory: (s.nbytes, g.nodes[s.source].kind if s.source is not None else "") for n in g.nodes.values() for s in n.saved}
    assert sum(nbytes for nbytes, kind in memory.values() if kind != "leaf") == found.activations + found.inputs
    assert sum(nbytes for nbytes, kind in memory.values() if kind == "leaf") == found.parameters
    return found


def test_saved_counts_what_a_function_keeps():
    class F(mg.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            out = x.exp()
            ctx.save_for_backward(x * 2, y, out)
            return out

        @staticmethod
        def backward(ctx, g):
            return g, None
    x, y = mg.ones(100, requires_grad=True), mg.ones(100)
    found = _agree(F.apply(x.sin(), y).sum())
    assert {r.op: r.nbytes for r in found.rows}["F"] == {"activation": 800, "input": 400, "parameter": 0}
    steps = {s.backward.op: s for s in study.backward_order(F.apply(x.sin(), y).sum()).steps}
    assert (steps["F"].saved, steps["F"].freed) == (800, 800)


def test_saved_counts_what_a_checkpoint_and_hooks_keep():
    x, w = mg.ones(64, 8), mg.ones(8, requires_grad=True)
    found = _agree(mg.utils.checkpoint.checkpoint(lambda t: t.exp(), x * w, use_reentrant=False).sum())
    assert {r.op: r.nbytes["activation"] for r in found.rows}["checkpoint"] == 64 * 8 * 4
    with mg.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        loss = (w.exp() * w).sum()
    assert _agree(loss).activations == 3 * 32                       # three copies
    with mg.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        loss = (w.exp() * w).sum()
    found = _agree(loss)
    assert (found.activations, found.parameters) == (32, 32)        # exp keeps its output, and so does mul as its input
    assert study.backward_order(loss).before == 32


def test_the_prompt_shows_tables():
    w = mg.ones(3, requires_grad=True)
    for found in (study.saved(lambda: (w * 2).sin().sum()), study.backward_order(lambda: (w * 2).sin().sum())):
        assert repr(found) == str(found) and "module" in repr(found)
    with study.Record() as record:
        (w * 2).sum().backward()
    assert repr(record) == f"<record of {len(record.launches)} launches and 2 steps of backward>"
