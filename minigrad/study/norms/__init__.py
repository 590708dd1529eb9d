"""The normalization study: eight claims about normalization, each measured on minigrad's own layers and real data.

A claim is a file: what it says, what is run, how the numbers decide, what is drawn. `claim.py` has the rule of the
verdicts, `training.py` what the experiments share, `runner.py` runs them, `report.py` writes what came out.
"""
from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from .batch_size import BatchSize
from .claim import Claim
from .convergence import Convergence
from .cost import Cost
from .jacobian import Jacobian
from .modes import Modes
from .recurrent import Recurrent
from .regularization import Regularization
from .report import Report
from .runner import Kept, run
from .transformer import Transformer

CLAIMS: tuple[Claim, ...] = (Jacobian(), BatchSize(), Recurrent(), Transformer(), Convergence(), Regularization(),
                             Cost(), Modes())


def normalization(claims: Sequence[str] = (), *, quick: bool = False, seeds: int | None = None, processes: int = 2,
                  out: str | Path = "norm_study", fresh: bool = False) -> Report:
    """Runs the experiments of these claims (all, if none is named), and writes the report to the folder `out`.

    quick      few settings, steps and seeds: under a minute, to see that all works; its verdicts mean little
    seeds      runs of each setting: 8 by default, 2 with `quick`
    processes  run side by side; 0 runs all in this process. What measures time always runs alone
    out        the folder. Runs whose results are in its `results.jsonl` are not made again: after Ctrl-C, the same call
               goes on where it stopped
    fresh      makes the runs of these claims anew

    The report is of all claims, with what `out` holds of the others. ValueError for an unknown name or fewer than two
    seeds; ImportError without tqdm, matplotlib and scikit-learn.

    >>> print(study.normalization(["jacobian"], out="norm_study"))
    """
    names = [claim.name for claim in CLAIMS]
    unknown = [name for name in claims if name not in names]
    if unknown:
        raise ValueError(f"[study.normalization] claims are {', '.join(names)}; got {', '.join(map(repr, unknown))}")
    seeds = (2 if quick else 8) if seeds is None else seeds
    if seeds < 2:
        raise ValueError(f"[study.normalization] a spread needs at least two seeds; got {seeds}")
    lacking = [name for name in ("tqdm", "matplotlib", "sklearn") if find_spec(name) is None]
    if lacking:
        raise ImportError(f"[study.normalization] needs {', '.join(lacking)}: "
                          "pip install tqdm matplotlib scikit-learn")
    Path(out).mkdir(parents=True, exist_ok=True)
    kept = Kept(Path(out) / "results.jsonl")
    plan = {claim.name: claim.planned(seeds, quick) for claim in CLAIMS}
    chosen = [claim for claim in CLAIMS if claim.name in (claims or names)]
    if fresh:
        kept.forget([cell for claim in chosen for cell in plan[claim.name]])
    run(chosen, plan, kept, processes)
    report = Report(CLAIMS, plan, kept.results, seeds, quick)
    report.save(out)
    return report
