"""What a claim is: runs to measure, statements about them, and the rule that decides each statement by its numbers."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Cell = dict[str, Any]           # all settings of one run, with its claim and its seed: what JSON can hold
Result = dict[str, Any]         # what the run measured: what JSON can hold

RULE = ("Runs with the same seed share data, split and initial values, so they are compared seed by seed: 'a is more "
        "than b' holds if the mean of the differences a - b is more than twice its standard error. Where nothing "
        "differs, such a comparison still holds about once in 20 times (8 seeds); a small difference may be missed; "
        "best learning rates are chosen on the same seeds. Statements about exact equality must hold in every run. "
        "What the data does not decide counts as 'does not hold here'; where the difference is as clear the other way "
        "round, the numbers end with 'the reverse holds'.")


class NotMeasured(Exception):
    """A run that a statement or a plot needs is not there: the study was stopped before it."""


class Verdict(NamedTuple):
    """What the numbers say about a statement."""

    evidence: str
    holds: bool


def spread(values: Sequence[float] | np.ndarray) -> float:
    """The standard deviation of the values over the seeds; 0 for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean; infinite for a single value, which can decide nothing."""
    return spread(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")


def shown(values: np.ndarray, form: str = ".1f", unit: str = "") -> str:
    """Mean ± standard deviation."""
    return f"{np.mean(values):{form}} ± {spread(values):{form}}{unit}"


def more(a: np.ndarray, b: np.ndarray, names: tuple[str, str], form: str = ".1f", unit: str = "",
         noun: str = "seeds") -> Verdict:
    """Whether a is more than b, seed by seed: the mean difference must be more than twice its standard error."""
    difference = a - b
    mean, error = float(np.mean(difference)), 2 * standard_error(difference)
    return Verdict(f"{names[0]} {shown(a, form, unit)}, {names[1]} {shown(b, form, unit)}; difference "
                   f"{mean:+{form}}{unit}, twice its standard error {error:{form}}, {len(a)} {noun}"
                   + "; the reverse holds" * (mean < -error), mean > error)


def all_of(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Whether each of several comparisons holds."""
    return Verdict("; ".join(f"{name}: {verdict.evidence}" for name, verdict in verdicts.items()),
                   all(verdict.holds for verdict in verdicts.values()))


def every(flags: Sequence[bool], what: str) -> Verdict:
    """Whether something is so in every run."""
    return Verdict(f"{what} in {sum(flags)} of {len(flags)} runs", all(flags))


def key(cell: Cell) -> str:
    """The text by which the result of a run is kept and found again."""
    return json.dumps(cell, sort_keys=True)


class Runs:
    """The runs of one claim and, of those that are done, the results."""

    def __init__(self, cells: Sequence[Cell], results: Mapping[str, Result]) -> None:
        self.cells, self.results = cells, results

    def done(self) -> list[Result]:
        """The results that are there."""
        return [self.results[key(c)] for c in self.cells if key(c) in self.results]

    def where(self, **settings: Any) -> list[Result]:
        """The results of the runs with these settings, in the order of their seeds. NotMeasured if one is missing."""
        chosen = [c for c in self.cells if all(c.get(name) == value for name, value in settings.items())]
        if not chosen or any(key(c) not in self.results for c in chosen):
            raise NotMeasured(str(settings))
        return [self.results[key(c)] for c in sorted(chosen, key=lambda c: c["seed"])]

    def of(self, name: str, **settings: Any) -> np.ndarray:
        """What the runs with these settings measured as `name`: one value (or one list) for each seed."""
        return np.array([result[name] for result in self.where(**settings)], float)

    def best(self, name: str, setting: str, **settings: Any) -> np.ndarray:
        """`of(name)` at that value of `setting` for which its mean is smallest."""
        found = [self.of(name, **settings, **{setting: value}) for value in self.levels(setting, **settings)]
        return min(found, key=lambda values: float(np.mean(values)))

    def levels(self, setting: str, **settings: Any) -> list[Any]:
        """The values that `setting` takes in the runs with these settings, in their order."""
        return list(dict.fromkeys(c[setting] for c in self.cells
                                  if setting in c and all(c.get(n) == v for n, v in settings.items())))


@dataclass(frozen=True)
class Statement:
    """A sentence that the runs can bear out or not, and how they decide it."""

    text: str
    decide: Callable[[Any, Runs], Verdict]


def statement(text: str) -> Callable[[Callable[[Any, Runs], Verdict]], Any]:
    """Makes a method of a claim one of its statements."""
    return lambda decide: Statement(text, decide)


class Claim:
    """One claim of the study. A subclass says what is run, what a run measures, what is stated and what is drawn."""

    name = ""                   # on the command line
    title = ""
    source = ""                 # the papers
    setup = ""                  # what was run, in a few sentences
    caption = ""                # of the picture
    alone = False               # runs one at a time, with nothing beside it: what measures time

    def cells(self, quick: bool) -> Iterator[Cell]:
        """The settings of all runs but for the seed; `quick` is a small part of them, to see that it works."""
        raise NotImplementedError

    def measure(self, seed: int, **settings: Any) -> Result:
        """One run."""
        raise NotImplementedError

    def draw(self, runs: Runs) -> Any:
        """The picture, a matplotlib figure."""
        raise NotImplementedError

    @property
    def statements(self) -> list[Statement]:
        """The statements, in the order of the class's text."""
        return [s for s in vars(type(self)).values() if isinstance(s, Statement)]

    def planned(self, seeds: int, quick: bool) -> list[Cell]:
        """All runs: the settings for each seed."""
        return [{"claim": self.name, **settings, "seed": seed} for seed in range(seeds)
                for settings in self.cells(quick)]

    def judged(self, runs: Runs) -> list[tuple[str, Verdict | None]]:
        """Each statement with its verdict, None where runs are missing."""
        found: list[tuple[str, Verdict | None]] = []
        for stated in self.statements:
            try:
                found.append((stated.text, stated.decide(self, runs)))
            except NotMeasured:
                found.append((stated.text, None))
        return found
