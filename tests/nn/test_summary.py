"""The table that nn.summary writes."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import nn


def test_summary():
    m = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout()))
    m[0].requires_grad_(False)
    text = nn.summary(m, (2, 3))
    assert [line.split() for line in text.splitlines() if "---" not in line] == [
        ["module", "type", "input", "output", "parameters"], "model Sequential (2, 3) (2, 4)".split(), "0 Linear (2, 3) (2, 4) 16".split(),
        "1 Sequential (2, 4) (2, 4)".split(), "0 BatchNorm1d (2, 4) (2, 4) 8".split(), "1 Dropout (2, 4) (2, 4)".split(),
        "24 parameters, 8 of them trained; 9 numbers in buffers; 136 B".split()]
    assert m.training and m[1][0].num_batches_tracked.item() == 0 and not m[0]._forward_hooks
    assert nn.summary(m, input_data=mg.ones(2, 3)) == text == nn.summary(m, mg.ones(2, 3))


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
    assert text.endswith("46 parameters, 46 of them trained; 184 B")
    assert nn.summary(net, input_data=(mg.ones(2, 3), mg.ones(2, 5))).count("\n") == text.count("\n")
    assert "(2, 3), (2, 5)" in nn.summary(net, [(2, 3), (2, 5)], dtype=[mg.float32, mg.float32])
    for wrong in ({}, {"input_shape": (1, 2), "input_data": mg.ones(2)}, {"input_shape": [(2, 3), (2, 5)], "dtype": [mg.float32]}):
        with pytest.raises(ValueError, match="summary"):
            nn.summary(net, **wrong)
    with pytest.raises(TypeError, match=r"\[summary\] model must be a module \(nn.Module\); got int"):
        nn.summary(3, (2,))
    with pytest.raises(RuntimeError):
        nn.summary(net, [(2, 4), (2, 5)])
    assert not net.a._forward_hooks and net.training


def test_notebook_form():
    table = nn.summary(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), (2, 3))
    html = table._repr_html_()
    assert isinstance(table, str) and repr(table) == str(table) and table.rows[0] == ["module", "type", "input", "output", "parameters"]
    assert html.count("<tr>") == 4 and html.count("<th ") == 5 and "&emsp;0" in html and "16 parameters, 16 of them trained" in html
