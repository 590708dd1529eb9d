"""One text run here and on PyTorch, whose results are frozen in tests/golden/autograd.json.

    MINIGRAD_WRITE_GOLDEN=1 pytest tests/autograd -n 0          writes the file anew, with PyTorch
"""
from __future__ import annotations

import json
import os

import numpy as np
import pytest
from support import ROOT

import minigrad as mg

FILE = ROOT / "tests" / "golden" / "autograd.json"
GOLDEN = json.loads(FILE.read_text()) if FILE.exists() else {}
WRITE = os.environ.get("MINIGRAD_WRITE_GOLDEN")


def flat(value):
    return [x for v in value for x in flat(v)] if isinstance(value, tuple | list) else [value]


def run_on(lib, test, arrays):
    found = flat(test(lib, *[lib.tensor(a, requires_grad=True) for a in arrays]))
    return [np.asarray(t.detach().numpy()) if hasattr(t, "detach") else t for t in found]


def agree(theirs, mine):
    assert len(theirs) == len(mine)
    for a, b in zip(theirs, mine, strict=True):
        if isinstance(a, np.ndarray):
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)
        else:
            assert a == b


def frozen(values):
    return [{v.dtype.name: v.tolist(), "shape": list(v.shape)} if isinstance(v, np.ndarray) else v for v in values]


def thawed(values):
    return [np.array(v[name := next(iter(v))], name).reshape(v["shape"]) if isinstance(v, dict) else v for v in values]


@pytest.fixture
def on_both(request):
    """`on_both(test, *arrays)`: what `test(lib, *tensors)` returns agrees with PyTorch's frozen results, and with PyTorch where it is
    installed."""
    try:
        import torch
    except ImportError:
        torch = None

    def compare(test, *arrays):
        mine = run_on(mg, test, arrays)
        if torch is not None:
            theirs = run_on(torch, test, arrays)
            agree(theirs, mine)
            if WRITE:
                GOLDEN[request.node.name] = frozen(theirs)
                rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in sorted(GOLDEN.items()))
                FILE.write_text("{\n" + rows + "\n}\n")
        agree(thawed(GOLDEN[request.node.name]), mine)
        return mine
    return compare
