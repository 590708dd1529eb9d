"""Fuzzing the loader: see fuzzing.py."""
from __future__ import annotations

import pytest
from fuzzing import SEEDS, Draw, exact_blocks, exact_memory, examples, run, text_of  # noqa: F401
from hypothesis import given

import minigrad as mg

pytestmark = pytest.mark.filterwarnings("ignore")


@examples(60)
@given(SEEDS)
def test_loader(seed):
    draw = Draw(seed)
    parts = [draw.tensor().detach() for _ in range(draw.rng.randrange(3))]
    args, named = draw.arguments(mg.data.DataLoader.__init__, skip=2)
    if "num_workers" in named or len(args) > 5:
        args = args[:5]

    def load():
        data = draw.absurd() if draw.chance(10) else mg.data.TensorDataset(*parts)
        for k, _ in enumerate(mg.data.DataLoader(data, *args, **named)):
            if k > 20:
                break
    run(draw, f"DataLoader({text_of(parts)}, {', '.join(map(text_of, args))}, {named})", load, (), {})
