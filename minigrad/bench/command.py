"""The command line."""
from __future__ import annotations

import argparse
from pathlib import Path

import minigrad as mg

from ..core.op import registry
from .ops import OP_BLOCKS, find_op, time_op
from .report import table
from .timing import BLOCKS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m minigrad.bench", description=(
        "Timings of minigrad, compared with torch and JAX where they are installed, and with this core's peak."))
    parser.add_argument("ops", nargs="*", metavar="OP",
                        help=f"time the samples of these ops: module:name, or {', '.join(registry)}")
    parser.add_argument("--write", type=Path, help="write the table to this file")
    parser.add_argument("--rows", metavar="WORD", default="", help="only the rows with this word in their name")
    parser.add_argument("--blocks", type=int, help=f"of calls that a row (default {BLOCKS}) or a sample of an op "
                        f"({OP_BLOCKS}) is measured in; with 1, a quick look")
    parser.add_argument("--device", default="cpu", help="where the ops are timed: cpu or cuda")
    options = parser.parse_args()
    try:
        chosen = [find_op(name) for name in options.ops]
        mg.device(options.device)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    if options.write and not options.write.absolute().parent.is_dir():
        parser.error(f"argument --write: there is no folder {options.write.absolute().parent}; make it first")
    if options.blocks is not None and options.blocks < 1:
        parser.error(f"--blocks must be at least 1; got {options.blocks}")
    if chosen and (options.rows or options.write):
        parser.error("--rows and --write are for the table of workloads, which ops have no part in; leave one out")
    if not chosen and options.device != "cpu":
        parser.error("--device is for ops: the table of workloads is one core's; name an op")
    mg.set_num_threads(1)
    if chosen:
        for one in chosen:
            try:
                print("\n".join(time_op(one, options.blocks or OP_BLOCKS, options.device)))
            except AssertionError as error:                     # it has no samples
                parser.error(str(error))
        return
    try:
        import torch
        torch.set_num_threads(1)
    except ImportError:
        torch = None        # type: ignore[assignment]
    try:
        text = "\n".join(table(torch, options.rows, options.blocks or BLOCKS))
    except ValueError as error:                                 # no such row
        parser.error(str(error))
    print(text)
    if options.write:
        options.write.write_text(f"# Results\n\n{text}\n")
