"""The command line."""
from __future__ import annotations

import argparse
from pathlib import Path

import minigrad as mg

from ..core.op import registry
from .ops import find_op, time_op
from .report import table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m minigrad.bench", description=(
        "Timings of minigrad, compared with torch and JAX where they are installed, and with this core's peak."))
    parser.add_argument("ops", nargs="*", metavar="OP",
                        help=f"time the samples of these ops: module:name, or {', '.join(registry)}")
    parser.add_argument("--write", type=Path, help="write the table to this file")
    options = parser.parse_args()
    try:
        chosen = [find_op(name) for name in options.ops]
    except ValueError as error:
        parser.error(str(error))
    mg.set_num_threads(1)
    if chosen:
        for one in chosen:
            try:
                print("\n".join(time_op(one)))
            except AssertionError as error:                     # it has no samples
                parser.error(str(error))
        return
    try:
        import torch
        torch.set_num_threads(1)
    except ImportError:
        torch = None        # type: ignore[assignment]
    text = "\n".join(table(torch))
    print(text)
    if options.write:
        options.write.write_text(f"# Results\n\n{text}\n")
