"""Fuzzing the optimisers: see fuzzing.py."""
from __future__ import annotations

import pytest
from fuzzing import SEEDS, Draw, exact_blocks, exact_memory, examples, run, text_of  # noqa: F401
from hypothesis import given

import minigrad as mg
from minigrad import nn

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", [n for n in mg.optim.__all__ if isinstance(getattr(mg.optim, n), type)])
@examples(30)
@given(SEEDS)
def test_optimizer(name, seed):
    draw, kind = Draw(seed), getattr(mg.optim, name)
    parameters = [nn.Parameter(draw.tensor(draw.one_of(("float32", "float64"))).detach().clone()) for _ in range(draw.rng.randrange(3))]
    args, named = draw.arguments(kind.__init__, skip=2)
    params = draw.absurd() if draw.chance(10) else draw.one_of((parameters, [{"params": parameters, "lr": draw.absurd()}]))

    def train():
        optimizer = kind(params, *args, **named)
        for _ in range(2):
            for p in parameters:
                p.grad = draw.one_of((None, draw.tensor(p.dtype, tuple(p.shape)).detach()))
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        if parameters:
            parameters[0].grad = draw.tensor().detach()
            optimizer.step()
    run(draw, f"{name}({text_of(params)}, {', '.join(map(text_of, args))}, {named})", train, (), {})
