"""`inference_mode`, and what tells that one is inside."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .modes import mode, no_grad, set_recording

if TYPE_CHECKING:
    from typing_extensions import Self


def _switch(state: tuple[bool, bool]) -> tuple[bool, bool]:
    """Switches recording and `mode.inference`, and returns what they were; an interrupt leaves the latter off."""
    before = mode.grad, mode.inference
    mode.inference = before[1] and state[1]
    set_recording(state[0])
    mode.inference = state[1]
    return before


class inference_mode(no_grad):
    """`no_grad` by another name: tensors made inside may be used outside too. `inference_mode(False)` records."""

    enabled, switch = (False, True), staticmethod(_switch)

    def __new__(cls, mode: bool | Callable | None = None) -> Self:
        if not isinstance(mode, bool):
            return super().__new__(cls, mode)
        self = super().__new__(cls)
        self.enabled = not mode, mode
        return self
