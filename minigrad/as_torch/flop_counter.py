"""`torch.utils.flop_counter`, on `minigrad.autograd.profiler`."""
from __future__ import annotations

from typing import Any

from ..autograd import profiler

__all__ = ["FlopCounterMode"]


class FlopCounterMode:
    """Counts the floating-point operations of its blocks, and prints them at the end unless `display=False`. All ops
    count; PyTorch counts products, convolutions and attention only. `mods`, `depth` and `custom_mapping` are without
    effect: nothing is told apart by module."""

    def __init__(self, mods: Any = None, depth: int = 2, display: bool = True, custom_mapping: Any = None) -> None:
        self.display = display

    def __enter__(self) -> FlopCounterMode:
        self._profile = profiler.profile(with_flops=True).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._profile.__exit__(*error)
        if self.display:
            print(self.get_table())

    @property
    def flop_counts(self) -> dict[str, dict[Any, int]]:
        """What `get_flop_counts` returns."""
        found: dict[Any, int] = {}
        for event in self._profile.key_averages():
            if event.flops:
                found[event.key] = found.get(event.key, 0) + event.flops
        return {"Global": found}

    def get_flop_counts(self) -> dict[str, dict[Any, int]]:
        """{"Global": {op: operations}}, of the last block, up to now."""
        return self.flop_counts

    def get_total_flops(self) -> int:
        """The operations of all ops, of the last block, up to now."""
        return sum(self.flop_counts["Global"].values())

    def get_table(self, depth: int | None = None) -> str:
        """The ops with their operations, line by line, and the sum."""
        lines = [*self.flop_counts["Global"].items(), ("Total", self.get_total_flops())]
        return "\n".join(f"{name:<40}{count:>16,}" for name, count in lines)
