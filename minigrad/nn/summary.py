"""``summary``: a model's layers, their output shapes and parameters, as a table."""
from __future__ import annotations

from typing import Any

from minigrad.engine import no_grad
from minigrad.ops.creation import zeros
from minigrad.tensor import Tensor

from .module import Module


def _shapes(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, tuple | list):
        return ", ".join(_shapes(v) for v in value)
    return type(value).__name__


def summary(model: Module, input_shape: tuple[int, ...], dtype: Any = None, device: Any = None) -> str:
    """The table of one forward pass of zeros of ``input_shape`` (the batch dimension included), as text.

    A line for each module in the order of the calls: path, type, output shape, own parameters. The pass runs in evaluation mode and
    unrecorded; the modes are put back.

        print(nn.summary(model, (1, 64)))
    """
    rows: list[list[str]] = []
    paths: dict[Module, str] = {}
    handles, modes = [], [(module, module.training) for module in model.modules()]
    for path, module in model.named_modules():
        paths[module] = path

    def before(module: Module, args: tuple) -> None:
        path = paths[module]
        depth = path.count(".") + 1 if path else 0
        own = sum(p.numel() for p in module.parameters(recurse=False))
        rows.append(["  " * depth + (path.rpartition(".")[2] or "model"), type(module).__name__, "", f"{own:,}" if own else ""])
        calls.append(rows[-1])

    def after(module: Module, args: tuple, output: Any) -> None:
        calls.pop()[2] = _shapes(output)

    calls: list[list[str]] = []
    try:
        for module in paths:
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        model.eval()
        with no_grad():
            model(zeros(input_shape, dtype=dtype, device=device))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    rows.insert(0, ["module", "type", "output", "parameters"])
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in rows]
    every = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, lines[1], f"{every:,} parameters, {trained:,} of them trained"])
