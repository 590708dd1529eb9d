"""Runs what is planned and not yet done, two at a time, and keeps each result in a file as soon as it is there."""
from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread, current_thread, main_thread

from ...devices.native import set_num_threads
from .claim import Cell, Claim, Result, key


class Kept:
    """Results in a file, one line a run. A run that is in it is not made again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[str, Result] = {}
        if path.exists():
            *lines, rest = path.read_text().split("\n")
            for text in lines:
                entry = json.loads(text)
                self.results[key(entry["cell"])] = entry["result"]
            if rest:                            # the process was killed while it wrote this line
                self._write()

    def add(self, cell: Cell, result: Result) -> None:
        """Keeps one result, in the file too."""
        self.results[key(cell)] = result
        with self.path.open("a") as file:
            file.write(_line(cell, result))

    def forget(self, cells: Sequence[Cell]) -> None:
        """Drops the results of these runs, so that they are made anew."""
        for cell in cells:
            self.results.pop(key(cell), None)
        self._write()

    def _write(self) -> None:
        self.path.write_text("".join(_line(json.loads(text), result) for text, result in self.results.items()))


def _line(cell: Cell, result: Result) -> str:
    return json.dumps({"cell": cell, "result": result}, separators=(",", ":")) + "\n"


@contextmanager
def _deaf() -> Iterator[None]:
    """This block does not hear Ctrl-C, and processes that are started in it never do: it is for the one that started
    them."""
    if current_thread() is not main_thread():               # only the main thread may set signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _worker() -> None:
    """Begins a process of the pool: one thread for its arithmetic, and another that ends it with the process that
    started it. A worker that waits for work would never hear of that."""
    set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def measured(claim: Claim, cell: Cell) -> Result:
    """One run, and the seconds of processor time it took."""
    start = time.process_time()
    result = claim.measure(**{name: value for name, value in cell.items() if name != "claim"})
    return {**result, "seconds": round(time.process_time() - start, 3)}


def _in_turn(claim: Claim, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Result]]:
    for cell in cells:
        yield cell, measured(claim, cell)


def _side_by_side(claim: Claim, cells: Sequence[Cell], pool: ProcessPoolExecutor) -> Iterator[tuple[Cell, Result]]:
    with _deaf():
        futures = {pool.submit(measured, claim, cell): cell for cell in cells}
    for future in as_completed(futures):
        yield futures[future], future.result()


def run(claims: Sequence[Claim], plan: dict[str, list[Cell]], kept: Kept, processes: int) -> None:
    """Makes the runs of these claims, each claim with a progress bar. Ctrl-C ends it.

    Claims that measure time come first, one run at a time; the others share `processes` processes (0: this one).
    """
    from tqdm import tqdm
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, spawn, _worker) if processes else None
    others = multiprocessing.active_children()
    try:
        for claim in sorted(claims, key=lambda c: not c.alone):
            missing = [c for c in plan[claim.name] if key(c) not in kept.results]
            if pool is None or claim.alone:
                results = _in_turn(claim, missing)
            else:
                results = _side_by_side(claim, missing, pool)
            total = len(plan[claim.name])
            with tqdm(results, claim.name.ljust(16), total, initial=total - len(missing), unit="run") as bar:
                for cell, result in bar:
                    kept.add(cell, result)
    except KeyboardInterrupt:
        with _deaf():                           # a second Ctrl-C would leave the pool half closed, and wait for ever
            for worker in set(multiprocessing.active_children()).difference(others):
                worker.terminate()              # nobody waits for its run any more
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        print("stopped; the report has what is there, and the same command goes on from here")
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
