"""What normalization does: eight claims from the literature, measured on real data, each with a verdict.

    python examples/norm_study.py                       # all of it: about 15 minutes on two cores
    python examples/norm_study.py --quick               # under a minute, to see that it works
    python examples/norm_study.py --claim batch-size    # one claim; the report keeps what is there of the others

Prints a table, and writes report.md, report.html and a plot for each claim to --out. Ctrl-C ends with a report of
what is there; the same command goes on from there.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from minigrad import study
from minigrad.study.norms import CLAIMS


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--claim", action="append", default=[], choices=[claim.name for claim in CLAIMS],
                         help="run this claim only; may be given several times (default: all)")
    options.add_argument("--quick", action="store_true", help="few settings, steps and seeds; verdicts mean little")
    options.add_argument("--seeds", type=int, help="runs of each setting (default: 8, with --quick 2)")
    options.add_argument("--processes", type=int, default=2, help="run side by side (default: 2)")
    options.add_argument("--fresh", action="store_true", help="make anew what is in --out already")
    options.add_argument("--out", type=Path, default=Path("runs/norm_study"),
                         help="folder of the report and of all results (default: runs/norm_study)")
    given = options.parse_args()
    report = study.normalization(given.claim, quick=given.quick, seeds=given.seeds, processes=given.processes,
                                 out=given.out, fresh=given.fresh)
    print(report)
    print(f"report: {given.out / 'report.html'} and {given.out / 'report.md'}")


if __name__ == "__main__":
    main()
