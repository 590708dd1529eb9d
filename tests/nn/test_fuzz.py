"""Fuzzing the layers: see fuzzing.py."""
from __future__ import annotations

import pytest
from fuzzing import SEEDS, Draw, exact_blocks, exact_memory, examples, run, takes_inplace, text_of  # noqa: F401
from hypothesis import given

from minigrad import nn

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", [n for n in nn.__all__ if isinstance(getattr(nn, n), type)])
@examples(15)
@given(SEEDS)
def test_layer(name, seed):
    draw, made = Draw(seed), []
    kind = getattr(nn, name)
    args, named = draw.arguments(kind.__init__, skip=1)

    def build():
        made.append(kind(*args, **named))
    run(draw, f"nn.{name}({', '.join(map(text_of, args))}, {named})", build, (), {})
    if made and isinstance(made[0], nn.Module):
        inputs, named = draw.arguments(made[0].forward)
        run(draw, f"{made[0]!r}({', '.join(map(text_of, inputs))})", made[0], inputs, named,
            writes=takes_inplace(kind.__init__))
        run(draw, f"{made[0]!r}.load_state_dict", lambda: made[0].load_state_dict({k: draw.absurd() for k in made[0].state_dict()}), (), {},
            writes=True)
