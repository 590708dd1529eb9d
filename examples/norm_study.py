"""What normalization does: eight claims of the literature, measured.

    python examples/norm_study.py                    # 10 to 15 minutes
    python examples/norm_study.py --quick            # under a minute: it works
    python examples/norm_study.py --claim batch-size # one claim

Real layers on real data, eight seeds, a verdict for each statement. Prints a
table, and writes report.md, report.html and a plot for each claim to --out.
Ctrl-C ends with a report of what is there; the same command goes on from there.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from experiment import at_least, folder, option

from minigrad import study
from minigrad.study.norms import CLAIMS


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--claim", action="append", default=[], metavar="CLAIM",
                         choices=[claim.name for claim in CLAIMS], help="run this claim only; may be given several "
                         "times (default: all). One of: %(choices)s")
    options.add_argument("--quick", action="store_true", help="few settings, steps and seeds; verdicts mean little")
    options.add_argument("--seeds", type=at_least(2), help="runs of each setting (default: 8, with --quick 2)")
    options.add_argument("--processes", type=at_least(0), default=2,
                         help="run so many side by side; 0: in this process (default: 2)")
    options.add_argument("--fresh", action="store_true",
                         help="make runs anew whose results are in --out (after a change of code)")
    options.add_argument("--out", type=folder, default=Path("runs/norm_study"),
                         help="folder of the report and of all results (default: runs/norm_study)")
    given = options.parse_args()
    with option("--out"):
        given.out.mkdir(parents=True, exist_ok=True)
    report = study.normalization(given.claim, quick=given.quick, seeds=given.seeds, processes=given.processes,
                                 out=given.out, fresh=given.fresh)
    print(report)
    print(f"report: {given.out / 'report.html'} and {given.out / 'report.md'}")


if __name__ == "__main__":
    main()
