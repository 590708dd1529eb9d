"""Joins of very many tensors."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad.ops import join


@pytest.mark.parametrize("join_all", [mg.stack, mg.cat])
def test_equal_pieces_share_a_table(join_all, monkeypatch):
    """One table for each input made the first join of 100,000 tensors take ten times as long."""
    made = []
    table_of = join.elementwise_plan
    monkeypatch.setattr(join, "elementwise_plan", lambda *layouts: made.append(layouts) or table_of(*layouts))
    parts = [mg.full((1, 7), float(i)) for i in range(301)]
    assert join_all(parts).flatten()[::7].tolist() == list(range(301))
    assert len(made) <= 1


def test_split_size_by_name():
    assert [len(piece) for piece in mg.arange(5).split(split_size=2)] == [2, 2, 1]
    with pytest.raises(TypeError, match="split_size"):
        mg.arange(5).split()


def test_only_empty_vectors_are_joined_along_any_dim():
    assert mg.cat([mg.empty(0), mg.empty(0)], dim=1).shape == (0,)


@pytest.mark.parametrize("at", [mg.tensor(1.1), mg.ones(2, 2, dtype=mg.int64), mg.tensor([1.0, 2.0]), mg.tensor(True)])
def test_a_tensor_of_places_to_split_at_is_a_vector_of_int64(at):
    with pytest.raises(RuntimeError, match="int64 number or vector"):
        mg.arange(4).tensor_split(at)
    assert [len(t) for t in mg.arange(4).tensor_split(mg.tensor([1, 3]))] == [1, 2, 1]
