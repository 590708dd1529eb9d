"""Views beyond their samples."""
from __future__ import annotations

import pytest

import minigrad as mg


def test_writing_into_expanded():
    with pytest.raises(RuntimeError, match="share one place"):
        mg.zeros(1).expand(3).add_(mg.ones(3))
