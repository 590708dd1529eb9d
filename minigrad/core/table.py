"""Tables of studies and summaries: as text of the terminal's width, and as HTML for notebooks."""
from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from shutil import get_terminal_size

from .shape import fail

_NARROW = 100       # with fewer columns than that, spare ones are left out
_LEAST = 8          # columns that a shortened cell keeps


def duration(ns: float) -> str:
    """Nanoseconds as text: "850 ns", "12.3 us", "4.56 ms", "1.20 s"."""
    for unit, one in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= one:
            return f"{ns / one:.3g} {unit}" if ns / one < 999.5 else f"{ns / one:.0f} {unit}"
    return f"{ns:.0f} ns"


def size(nbytes: float) -> str:
    """Bytes as text: "512 B", "16 KiB", "2.5 MiB"."""
    for unit, one in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= one:
            return f"{f'{nbytes / one:.1f}'.removesuffix('.0')} {unit}"
    return f"{nbytes:.0f} B"


def columns() -> int:
    """The columns of the terminal, at least 80; 120 where there is no terminal."""
    return max(get_terminal_size((120, 24)).columns, 80)


def at_least_one(by: str, name: str, value: int | None) -> None:
    """ValueError for a number below 1; None is another default."""
    if value is not None and value < 1:
        fail(by, f"{name} must be at least 1", value, "leave it out for the default", ValueError)


def shortened(text: str, width: int, middle: bool = False) -> str:
    """The text, or its begin (with `middle`, its begin and end) and three dots, in `width` columns."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2 if middle else width - 3
    return f"{text[:head]}...{text[len(text) - (width - 3 - head):]}"


def aligned(rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None, right: Collection[int] = (),
            gap: int = 2) -> list[str]:
    """Rows of cells as lines with columns; a row of one cell, where others have more, is a line by itself.

    `widths`: of the columns, by default those of their longest cells. `right`: the numbers of columns whose cells stand
    on the right.
    """
    count = max(map(len, rows), default=0)
    if widths is None:
        widths = [max(map(len, cells)) for cells in zip(*[r for r in rows if len(r) == count], strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=False))]
        lines.append(row[0] if len(row) == 1 < count else (" " * gap).join(cells).rstrip())
    return lines


class Table:
    """Rows of text under a head.

    title    a line above
    numbers  the names of the columns that stand on the right of their column
    cut      the names of those that may be shortened, the first one first
    spare    the names of those that are left out where there is too little room
    notes    lines below
    marked   the rows that stand out: with an exclamation mark in text, bold in HTML
    """

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "",
                 numbers: Collection[str] = (), cut: Sequence[str] = (), notes: Sequence[str] = (),
                 marked: Collection[int] = (), spare: Collection[str] = ()) -> None:
        self.head, self.rows, self.title, self.notes = list(head), [list(r) for r in rows], title, list(notes)
        self.numbers, self.cut, self.marked, self.spare = numbers, cut, marked, spare

    def without(self, names: Collection[str]) -> Table:
        """The table without some columns."""
        keep = [i for i, name in enumerate(self.head) if name not in names]
        return Table([self.head[i] for i in keep], [[row[i] for i in keep] for row in self.rows], title=self.title,
                     numbers=self.numbers, cut=self.cut, notes=self.notes, marked=self.marked)

    def text(self, width: int | None = None) -> str:
        """The table with lines of at most `width` columns (default: those of the terminal, at least 80), or longer
        where cells that may not be shortened need it. ValueError for a width below 1."""
        at_least_one("table", "width", width)
        width = columns() if width is None else width
        widths = [max(map(len, cells)) for cells in zip(self.head, *self.rows, strict=True)]
        room = width - (2 if self.marked else 0) - sum(widths)
        if room < len(widths) - 1 and self.spare and width < _NARROW:
            return self.without(self.spare).text(width)
        gap = 2 if room >= 2 * (len(widths) - 1) else 1
        least = {self.head.index(name): max(_LEAST, len(name)) for name in self.cut if name in self.head}
        for _ in range(gap * (len(widths) - 1) - room):
            i = max(least, key=lambda i: widths[i] - least[i], default=-1)
            if i >= 0 and widths[i] > least[i]:
                widths[i] -= 1
        cells = [[shortened(c, w, middle=True) for c, w in zip(row, widths, strict=True)]
                 for row in [self.head, *self.rows]]
        right = {i for i, name in enumerate(self.head) if name in self.numbers}
        lines = aligned(cells, widths, right, gap)
        if self.marked:
            lines = [("! " if i in self.marked else "  ") + line for i, line in enumerate(lines, -1)]
        rule = "-" * max(map(len, lines))
        below = [line for note in self.notes for line in _folded(note, width)]
        return "\n".join([*_folded(self.title, width), lines[0], rule, *lines[1:], *below])

    def html(self) -> str:
        """The table for a notebook; colours are those of its theme."""
        style = ' style="text-align:{};white-space:nowrap;padding:0 0.7em"'

        def line(cells: Sequence[str], tag: str, bold: bool = False) -> str:
            shown = [escape(cell).replace("  ", "&emsp;") for cell in cells]
            made = [f"<{tag}{style.format('right' if name in self.numbers else 'left')}>{cell}</{tag}>"
                    for name, cell in zip(self.head, shown, strict=True)]
            return f'<tr{" style=" + chr(34) + "font-weight:bold" + chr(34) if bold else ""}>{"".join(made)}</tr>'
        rows = [line(row, "td", i in self.marked) for i, row in enumerate(self.rows)]
        title = f"<div>{escape(self.title)}</div>" if self.title else ""
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.notes)
        return (f'<div style="max-height:40em;overflow:auto">{title}<table><thead>{line(self.head, "th")}</thead>'
                f'<tbody>{"".join(rows)}</tbody></table>{notes}</div>')


def _folded(text: str, width: int) -> list[str]:
    """A line of words, in lines of at most `width` columns."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


class Shown:
    """What has a table: `str(x)`, `print(x)`, the prompt and a notebook show it."""

    def as_table(self) -> Table:
        """The table."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.as_table().text()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.as_table().html()
