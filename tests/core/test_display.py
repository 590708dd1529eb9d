"""What a notebook shows of a tensor."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg


def test_notebook_form():
    html = mg.tensor([[1.5, np.nan], [2.0, -np.inf]], requires_grad=True)._repr_html_()
    assert "tensor [2, 2], float32, cpu, requires_grad=True" in html and html.count("<tr>") == 2
    assert "<td>1.5</td><td>nan</td>" in html and "<td>-inf</td>" in html
    html = mg.arange(60).reshape(30, 2)._repr_html_()
    assert html.count("<tr>") == 11 and "⋮" in html and "<td>59</td>" in html
    assert mg.ones(3, 40)._repr_html_().count("…") == 3
    assert "shown: [0, :, :]" in mg.ones(2, 3, 4)._repr_html_() and "<td>3</td>" in mg.tensor(3.0)._repr_html_()
    assert "<tr>" not in mg.ones(0, 3)._repr_html_() and "&lt;MulBackward0&gt;" in (mg.ones(2, requires_grad=True) * 2)._repr_html_()
    with pytest.raises(RuntimeError, match="reads a value while recording"):
        mg.capture(lambda x: x._repr_html_())(mg.ones(2))
