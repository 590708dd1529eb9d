"""The report: a table for the terminal, Markdown and one HTML page."""
from __future__ import annotations

import io
import os
import platform
import re
import textwrap
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...devices.native import simd_level
from .claim import RULE, Cell, Claim, NotMeasured, Result, Runs, Verdict

COMMAND = "python examples/norm_study.py"


class Chapter(NamedTuple):
    """One claim with its statements and verdicts."""

    number: int
    claim: Claim
    runs: Runs
    judged: list[tuple[str, Verdict | None]]

    @property
    def tally(self) -> str:
        """How many statements hold."""
        done = [v.holds for _, v in self.judged if v is not None]
        missing = len(self.judged) - len(done)
        return f"{sum(done)} of {len(done)} hold" + f", {missing} not measured" * bool(missing) if done else word(None)

    @property
    def leading(self) -> tuple[str, str, str]:
        """The first statement, its numbers in short, and its verdict."""
        text, verdict = self.judged[0]
        return text.rstrip("."), verdict.evidence.split("; ")[0] if verdict else "", word(verdict)

    @property
    def command(self) -> str:
        """Runs this claim anew."""
        return f"{COMMAND} --claim {self.claim.name} --fresh"


def word(verdict: Verdict | None) -> str:
    """The verdict on one statement."""
    return "not measured" if verdict is None else "holds" if verdict.holds else "does not hold here"


class Report:
    """The claims with their runs. `str(report)` is a table; `save(folder)` writes the pages and plots.

    >>> report = study.normalization(quick=True)
    >>> print(report)
    """

    def __init__(self, claims: Sequence[Claim], plan: Mapping[str, list[Cell]], results: Mapping[str, Result],
                 seeds: int, quick: bool) -> None:
        self.seeds, self.quick = seeds, quick
        self.chapters = []
        for number, claim in enumerate(claims, 1):
            runs = Runs(plan[claim.name], results)
            self.chapters.append(Chapter(number, claim, runs, claim.judged(runs)))
        self.done = [result for c in self.chapters for result in c.runs.done()]
        self.planned = sum(len(cells) for cells in plan.values())

    def __str__(self) -> str:
        width = max(len(c.claim.title) for c in self.chapters) + 2
        lines = [f"  {'claim':<{width}}statements"]
        for c in self.chapters:
            lines.append(f"{c.number} {c.claim.title:<{width}}{c.tally}")
            for text, verdict in c.judged:
                lines.append(textwrap.indent(textwrap.fill(f"{word(verdict)}: {text}", 74), "    "))
                if verdict is not None:
                    lines.append(textwrap.indent(textwrap.fill(verdict.evidence, 72), "      "))
        return "\n".join(lines)

    @property
    def circumstances(self) -> str:
        """How much was run, where."""
        seconds = sum(result["seconds"] for result in self.done)
        short = " This is the short run (`--quick`): too few seeds and steps for a verdict to mean much." * self.quick
        return (f"{len(self.done)} of {self.planned} runs, {self.seeds} seeds each, at most {seconds / 60:.1f} "
                f"minutes of processor time; CPython {platform.python_version()}, NumPy {np.__version__}, "
                f"{platform.machine()}, SIMD level {simd_level()}, {os.cpu_count()} cores.{short}")

    def save(self, folder: str | Path) -> None:
        """Writes report.md, report.html and a plot for each claim."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        plots = {c.claim.name: png for c in self.chapters if (png := plot(c)) is not None}
        for name, png in plots.items():
            (folder / f"{name}.png").write_bytes(png)
        (folder / "report.md").write_text(self._markdown(plots))
        (folder / "report.html").write_text(self._html(plots))

    def table(self, where: str = "") -> str:
        """One row a claim in Markdown; plots are linked in the folder `where`."""
        rows = ["| claim | its first statement | measured here | verdict | all statements |", "| --- " * 5 + "|"]
        for c in self.chapters:
            rows.append(f"| [{c.number}. {c.claim.title}]({where}{c.claim.name}.png) | {' | '.join(c.leading)} "
                        f"| {c.tally} |")
        return "\n".join(rows) + "\n"

    def _markdown(self, plots: Mapping[str, bytes]) -> str:
        parts = ["# What normalization does: eight claims, measured\n", paragraphs(
            f"Made by `{COMMAND}`, on minigrad's own layers and real data. {self.circumstances}",
            f"**How a verdict is reached.** {RULE}",
            "Numbers are mean ± standard deviation over the seeds."), self.table()]
        for c in self.chapters:
            parts.append(f"## {c.number}. {c.claim.title}\n")
            parts.append(paragraphs(f"*{c.claim.source}.* {c.claim.setup}"))
            if c.claim.name in plots:
                parts.append(f"![{c.claim.title}]({c.claim.name}.png)\n\n{textwrap.fill(c.claim.caption, 118)}\n")
            for text, verdict in c.judged:
                evidence = "" if verdict is None else f" *{verdict.evidence}.*"
                parts.append(textwrap.fill(f"- **{word(verdict)}**: {text}{evidence}", 118, subsequent_indent="  "))
            parts.append(f"\nAgain: `{c.command}`\n")
        return "\n".join(parts)

    def _html(self, plots: Mapping[str, bytes]) -> str:
        rows, chapters = [], []
        for c in self.chapters:
            text, numbers, decided = map(escape, c.leading)
            rows.append(f"<tr><td><a href='#{c.claim.name}'>{c.number}. {escape(c.claim.title)}</a></td><td>{text}"
                        f"<p class=evidence>{numbers}</p></td><td>{badge(decided)}</td><td>{c.tally}</td></tr>")
            stated = "".join(f"<li>{badge(word(v))}<div>{escape(text)}<p class=evidence>"
                             f"{escape(v.evidence) if v else ''}</p></div></li>" for text, v in c.judged)
            picture = figure(plots[c.claim.name], c.claim) if c.claim.name in plots else ""
            chapters.append(f"<section id={c.claim.name}><h2>{c.number}. {escape(c.claim.title)}</h2>"
                            f"<p class=source>{escape(c.claim.source)}</p><p>{escape(c.claim.setup)}</p>{picture}"
                            f"<ul>{stated}</ul><p class=again>Again: <code>{escape(c.command)}</code></p></section>")
        return PAGE.format(circumstances=marked(self.circumstances), rule=escape(RULE), rows="".join(rows),
                           command=COMMAND, chapters="".join(chapters))


def paragraphs(*texts: str) -> str:
    """Markdown paragraphs of at most 118 columns."""
    return "\n\n".join(textwrap.fill(text, 118) for text in texts) + "\n"


def marked(text: str) -> str:
    """HTML of a text with `code`."""
    return re.sub("`(.*?)`", r"<code>\1</code>", escape(text))


def figure(png: bytes, claim: Claim) -> str:
    """The picture inside the page, with its caption."""
    return (f"<figure><img alt='{escape(claim.title)}' src='data:image/png;base64,{b64encode(png).decode()}'>"
            f"<figcaption>{escape(claim.caption)}</figcaption></figure>")


def badge(verdict: str) -> str:
    """A verdict in its colour."""
    kind = {"holds": "yes", "does not hold here": "no"}.get(verdict, "part")
    return f"<span class='badge {kind}'>{escape(verdict)}</span>"


def plot(chapter: Chapter) -> bytes | None:
    """The picture of a claim as a PNG file of few colours; None where runs are missing."""
    import matplotlib
    from PIL import Image
    drawn, file = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"font.size": 9, "axes.titlesize": 10, "savefig.dpi": 120}):
        try:
            chapter.claim.draw(chapter.runs).savefig(drawn)
        except NotMeasured:
            return None
    Image.open(drawn).convert("RGB").quantize(64).save(file, "png", optimize=True)
    return file.getvalue()


PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>What normalization does: eight claims, measured</title>
<style>
:root {{ --ink: #1c2430; --soft: #5a6675; --line: #d9dee5; --paper: #ffffff; --back: #f5f6f8; --link: #0072b2; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e3e8ee; --soft: #9aa7b5; --line: #39424e; --paper: #1f252d; --back: #161a20; --link: #6db9ea; }} }}
body {{ font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
  padding: 2rem 1rem 4rem; max-width: 60rem; }}
h1 {{ line-height: 1.2; }} h2 {{ margin: 0 0 .3rem; }} a {{ color: var(--link); }}
section, .table {{ background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.4rem 1.6rem;
  margin: 1.6rem 0; }}
table {{ border-collapse: collapse; width: 100%; font-size: .93rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .5rem .6rem; border-bottom: 1px solid var(--line); }}
tr:last-child td {{ border-bottom: 0; }}
figure {{ margin: 1rem 0; background: #fff; border-radius: 6px; padding: .6rem; }}
figure img {{ width: 100%; height: auto; display: block; }}
figcaption {{ color: #5a6675; font-size: .88rem; padding: .4rem .4rem 0; }}
ul {{ list-style: none; padding: 0; }} li {{ display: flex; gap: .9rem; margin: .8rem 0; align-items: flex-start; }}
.badge {{ display: inline-block; font-size: .8rem; font-weight: 600; border-radius: 5px;
  padding: .15rem .5rem; white-space: nowrap; }}
li .badge {{ flex: 0 0 8.6rem; text-align: center; }}
.yes {{ background: #d3ecdf; color: #0b5a3c; }} .no {{ background: #fbdccb; color: #8a3a00; }}
.part {{ background: #fdf0c8; color: #6b5000; }}
.evidence, .source, .again {{ color: var(--soft); font-size: .9rem; margin: .2rem 0; }}
code {{ font-size: .88em; }}
@media (max-width: 42rem) {{
  li {{ flex-direction: column; gap: .3rem; }} li .badge {{ flex: none; }} .badge {{ white-space: normal; }}
  section, .table {{ padding: 1rem .9rem; overflow-x: auto; }} th, td {{ padding: .4rem .35rem; }} }}
</style></head><body>
<h1>What normalization does: eight claims, measured</h1>
<p>Made by <code>{command}</code>, on minigrad's own layers and real data. {circumstances}</p>
<p><b>How a verdict is reached.</b> {rule} Numbers are mean ± standard deviation over the seeds.</p>
<div class=table><table>
<tr><th>claim</th><th>its first statement</th><th>verdict</th><th>all statements</th></tr>
{rows}</table></div>
{chapters}
</body></html>
"""
