"""Norms of gradients and updates, dead units, and the plot; what is said of a whole model."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim, study
from minigrad.core.hooks import node_hooks
from minigrad.core.tape import observers
from minigrad.nn import functional as F
from minigrad.utils.checkpoint import checkpoint


def make():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, mg.randn(5, 6), mg.tensor([0, 1, 2, 0, 1])


# ---- gradient_flow ----

def test_norms_of_gradients():
    model, x, y = make()
    empty = study.gradient_flow(model)
    assert "no parameter has a gradient" in str(empty)
    F.cross_entropy(model(x), y).backward()
    flow = study.gradient_flow(model)
    assert [r.name for r in flow.layers] == [n for n, _ in model.named_parameters()]
    for row, p in zip(flow.layers, model.parameters(), strict=True):
        assert row.weight == pytest.approx(np.linalg.norm(p.detach().numpy())) and row.gradient == pytest.approx(np.linalg.norm(p.grad.numpy()))
        assert row.update is None and row.ratio(row.gradient) == pytest.approx(row.gradient / row.weight)
    for width in (80, 120):
        assert max(map(len, flow.as_table().text(width).splitlines())) <= width


@pytest.mark.parametrize("captured", [False, True])
def test_update_to_weight_ratio(captured):
    model, x, y = make()
    optimizer = optim.SGD(model.parameters(), lr=0.5)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    if captured:
        step = mg.capture(step)
        step()
        step()
    with study.gradient_flow(model) as flow:
        step()
    for row in flow.layers:                                         # one step of SGD: lr * gradient
        assert row.update == pytest.approx(0.5 * row.gradient, rel=1e-4)
    assert [(a.name, a.op, a.units) for a in flow.activations] == ([] if captured else [("1", "relu", 8)])
    assert not node_hooks.tables and not observers


@pytest.mark.parametrize("layer, op, alive", [(nn.ReLU, "relu", [1, 1, 1, 0]), (nn.ReLU6, "hardtanh", [1, 1, 0, 0]), (nn.Hardtanh, "hardtanh", [1, 1, 0, 1])])
def test_dead_units_are_counted_over_the_whole_block(layer, op, alive):
    model = nn.Sequential(nn.Linear(2, 4, bias=False), layer())
    with mg.no_grad():
        model[0].weight.copy_(mg.tensor([[1.0, 0.0], [-1.0, 0.0], [100.0, 0.0], [0.0, 0.0]]))
    with study.gradient_flow(model) as flow:
        for value in (0.5, 0.1, -0.5):                              # of the units: 0.5, -0.5, 50, 0; 0.1, -0.1, 10, 0; -0.5, 0.5, -50, 0
            model(mg.full((3, 2), value)).sum().backward()
    found, = flow.activations
    assert (found.name, found.op, found.units, found.dead) == ("1", op, 4, 4 - sum(alive))
    assert f"{found.dead} of 4 dead" in str(flow)


def test_a_unit_that_no_gradient_reaches_is_not_dead():
    x = mg.randn(5, 4, requires_grad=True)
    with study.gradient_flow(nn.ReLU()) as flow:
        (F.relu(F.relu(x + 5) - 100) * mg.tensor([1.0, 0.0, 0.0, 0.0])).sum().backward()
    assert [a.dead for a in flow.activations] == [1]            # one line, two calls: the second one's unit 0


def test_a_unit_of_an_image_is_its_channel():
    x = mg.randn(2, 3, 4, 4)
    bias = mg.tensor([0.0, -100.0, 100.0], requires_grad=True)
    with study.gradient_flow(nn.ReLU()) as flow:
        F.relu(x + bias.reshape(1, 3, 1, 1)).sum().backward()
    assert [(a.units, a.dead) for a in flow.activations] == [(3, 1)] and flow.activations[0].name.startswith("test_flow.py:")


def test_parameters_without_gradient_are_named():
    model, x, y = make()
    model.unused = nn.Linear(2, 2)
    model[2](model[1](model[0](x))).sum().backward()
    with pytest.warns(UserWarning, match=r"\[gradient_flow\] these parameters got no gradient: unused.weight, unused.bias;"):
        flow = study.gradient_flow(model)
    assert [line.split()[:2] for line in str(flow).splitlines() if line.startswith("!")] == [["!", "unused.weight"], ["!", "unused.bias"]]


@pytest.mark.parametrize("drop", [True, False])
def test_a_gradient_that_is_dropped_in_the_block_counts(drop):
    model, x, y = make()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    with study.gradient_flow(model) as flow:
        for _ in range(2):                                          # what the last step had counts
            for part in (0, 1):                                     # the second backward adds to the first
                F.cross_entropy(model(x[part:]), y[part:]).backward()
            expected = {n: np.linalg.norm(p.grad.numpy()) for n, p in model.named_parameters()}
            optimizer.step()
            optimizer.zero_grad(set_to_none=drop)
    assert {r.name: r.gradient for r in flow.layers} == pytest.approx(expected, rel=1e-5) and "!" not in str(flow)


def test_an_optimiser_in_backward():
    model, x, y = make()
    optimizers = {p: optim.SGD([p], lr=0.5) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    with study.gradient_flow(model) as flow:
        F.cross_entropy(model(x), y).backward()
    assert "!" not in str(flow) and "no gradient" not in str(flow)
    assert [r.update for r in flow.layers] == pytest.approx([0.5 * r.gradient for r in flow.layers], rel=1e-4)
    optimizers.clear()                                              # the cycle: parameter, hook, optimiser


def test_a_gradient_from_several_nodes_counts_once_each():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(mg.ones(2, 2))

        def forward(self, x):
            return checkpoint(lambda x: (x @ self.weight).sin(), x, use_reentrant=False) @ self.weight + self.weight * self.weight
    model = Twice()
    with study.gradient_flow(model) as flow:
        for _ in range(3):
            model(mg.ones(2, 2)).sum().backward()
        expected = np.linalg.norm(model.weight.grad.numpy())
        model.zero_grad()
    assert flow.layers[0].gradient == pytest.approx(expected, rel=1e-5)


def test_what_is_not_finite(tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    model, x, y = make()
    with study.gradient_flow(model) as flow, mg.no_grad():
        model[0].weight[0, 0] = float("inf")
        model[2].bias.zero_()
    flow.layers[1].gradient, flow.layers[2].gradient, flow.layers[3].gradient = 0.0, float("nan"), 1.0
    norms, updates = flow.plot(tmp_path / "flow.png").axes
    assert [t.get_text() for t in norms.texts] == ["weight inf, no gradient", "gradient 0", "gradient nan", "weight 0"]
    assert [t.get_text() for t in updates.texts] == ["update nan", "update 0", "update 0", "update inf"]
    assert [line.split()[1] for line in str(flow).splitlines() if line.startswith("!")] == ["0.weight", "0.bias", "2.weight"]
    with study.gradient_flow(model) as flow:                        # inf - inf
        pass
    assert np.isnan(flow.layers[0].update) and not recwarn.list


def test_one_block_warns_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    unused = nn.Module()
    unused.net, unused.extra = model, nn.Linear(2, 2)

    def step():
        unused.net(mg.randn(5, 3)).sum().backward()
    step()
    with pytest.warns(UserWarning, match="extra.weight, extra.bias") as told, study.gradient_flow(unused):
        step()
    assert len(told) == 1


def test_a_model_is_needed():
    for given in (make()[0].parameters(), mg.ones(2), 3):
        with pytest.raises(TypeError, match=r"\[gradient_flow\] model must be a module \(nn.Module\); got "):
            study.gradient_flow(given)


def test_an_error_inside_leaves_it_off():
    model, _, _ = make()
    with pytest.raises(ZeroDivisionError), study.gradient_flow(model):
        raise ZeroDivisionError
    assert not node_hooks.tables and not observers


def test_the_plot(tmp_path):
    pytest.importorskip("matplotlib")
    model, x, y = make()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    with study.gradient_flow(model) as flow:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    figure = flow.plot(tmp_path / "flow.png")
    assert [ax.get_title("left") for ax in figure.axes] == ["Norms", "Update / weight", "Dead units", ""]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [n for n, _ in model.named_parameters()]
    assert figure.axes[2].get_xticks()[-1] == 1
    assert (tmp_path / "flow.png").read_bytes()[:4] == b"\x89PNG"
    assert len(study.gradient_flow(model).plot().axes) == 1


# ---- explain ----

def test_explain_and_launches_take_functions():
    with pytest.raises(TypeError, match=r"\[explain\] it takes a model, an op or a function, then its arguments; got Tensor; for example"):
        study.explain(mg.ones(2))
    with pytest.raises(TypeError, match=r"\[launches\] it takes a function, then its arguments; got int; for example"):
        study.launches(3)


def test_explain_of_a_model(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 3))
    found = study.explain(model, mg.randn(2, 1, 4, 4))
    lines = str(found).splitlines()
    assert [line.split()[:3] for line in lines[2:6]] == [["0", "Conv2d", "convolution"], ["1", "ReLU", "relu"], ["3", "LayerNorm", "layer_norm"],
                                                         ["4", "Linear", "linear"]]
    assert "conv_forward_f32" in lines[2] and lines[6].split() == ["2", "Flatten", "no", "launch"]
    assert lines[-2] == "all 4 calls run their kernels, without a copy" and "<table" in found._repr_html_()
    assert max(map(len, found.as_table().text(80).splitlines())) <= 80


def test_explain_never_cuts_a_reason(monkeypatch):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(6))
    found = study.explain(model, mg.randn(2, 1, 8, 8).transpose(2, 3))
    reasons = {row[4] for row in found.as_table().rows}
    assert any(len(reason) > 20 for reason in reasons)
    for width in ("40", "80", "120"):
        monkeypatch.setenv("COLUMNS", width)
        assert all(reason in str(found) for reason in reasons)
    monkeypatch.setenv("COLUMNS", "220")
    assert "..." not in str(found) and repr(found) == str(found)


def marked(found):
    return [line for line in found.as_table().text(240).splitlines()[:-1] if line.startswith("!")]


def test_explain_shows_what_is_slow():
    norm = nn.Sequential(nn.LayerNorm(8))
    assert not marked(study.explain(norm, mg.randn(40, 8)))
    line, = marked(study.explain(norm, mg.randn(8, 40).T))
    assert "a copy, then fused kernel on cpu" in line and "copy_i32, layer_norm_forward_f32" in line
    with mg.set_fused("off"):
        line, = marked(study.explain(norm, mg.randn(40, 8)))
    assert "definition: fused kernels are switched off" in line
    line, = marked(study.explain(nn.Sequential(nn.LayerNorm(8, dtype=mg.float64)), mg.randn(40, 8)))
    assert "one dtype" in line

    class Shift(nn.Module):
        def forward(self, x):
            return x << 1
    line, = marked(study.explain(Shift(), mg.arange(100).to(mg.int32)))
    assert "NumPy left_shift runs: no kernel" in line
    assert "a copy" in marked(study.explain(nn.Flatten(0), mg.randn(20, 30).T))[0]
