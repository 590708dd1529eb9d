"""Runs public PyTorch programs on PyTorch and, unchanged, on minigrad, and compares their losses and parameters step by step.

    python tests/programs/run.py FOLDER [--only PART] [--json RESULTS.json] [--again]

FOLDER holds a checkout of each repository of `programs.txt` under the name OWNER+NAME; what is missing is listed as such. PyTorch's
results are kept in FOLDER/.results; `--again` runs it anew. `same.py` tells what is compared, and that a program is not changed.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import makers

HERE = Path(__file__).resolve().parent
SECONDS = 240
RELATIVE, ABSOLUTE = 1e-4, 1e-5


class Program(NamedTuple):
    repository: str
    path: str
    arguments: str
    needs: tuple[str, ...]

    @property
    def folder(self) -> str:
        return self.repository.replace("/", "+")

    @property
    def name(self) -> str:
        return re.sub(r"\W+", "-", f"{self.folder} {self.path} {self.arguments}")[:150].strip("-")

    @property
    def limit(self) -> int:
        return next((int(need[6:]) for need in self.needs if need.startswith("limit=")), 12)


def programs(text: str | None = None) -> list[Program]:
    """The rows of `programs.txt`."""
    lines = (HERE / "programs.txt").read_text().splitlines() if text is None else text.splitlines()
    rows = [[part.strip() for part in line.split("|")] for line in lines if line.strip() and not line.startswith("#")]
    return [Program(repository, path, arguments, tuple(needs.split())) for repository, path, arguments, needs in rows]


def run(program: Program, backend: str, source: Path, **options: str) -> dict[str, Any]:
    """What a program computes on "torch" or "minigrad", in a copy of its repository."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "repository"
        shutil.copytree(source / program.folder, root, ignore=shutil.ignore_patterns("*.ipynb", ".git"))
        here = root if "root" in program.needs else (root / program.path).parent
        for need in program.needs:
            if hasattr(makers, need):
                getattr(makers, need)(here, root)
        out = Path(folder) / "result.json"
        places = [Path(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        places += [root, (root / program.path).parent, (root / program.path).parent.parent.parent] if {"path", "path2"} & {*program.needs} else []
        places += [HERE / "old_stand_ins"] if "tensorflow" in program.needs else []
        environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MINIGRAD_NUM_THREADS": "1",
                       "PYTHONPATH": os.pathsep.join(map(str, places)), "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled",
                       "DDE_BACKEND": "pytorch"}
        environment.update(options)
        if "cpu" in program.needs:
            environment["RESULT_CPU"] = "1"
        if "old_gym" in program.needs:
            environment["OLD_GYM"] = "1"
        file = root / program.path
        command = [sys.executable, str(HERE / "same.py"), backend, str(out), str(program.limit), str(file), *program.arguments.split()]
        try:
            done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
                                  errors="replace")
        except subprocess.TimeoutExpired:
            return {"losses": [], "sizes": [], "end": f"longer than {SECONDS} s", "output": "", "errors": ""}
        result = json.loads(out.read_text()) if out.exists() else {"losses": [], "sizes": [], "end": f"exit status {done.returncode}"}
        return {**result, "output": done.stdout[-20000:], "errors": done.stderr[-6000:].replace(str(root), "")}


def ok(result: dict[str, Any]) -> bool:
    """Did the program run to its end, or to the limit?"""
    return result["end"] in ("finished", "enough")


def differs(a: list[float], b: list[float]) -> int | None:
    """The first place where two lists differ by more than the tolerance, None if they do not."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if not (x == y or x != x and y != y or abs(x - y) <= ABSOLUTE + RELATIVE * max(abs(x), abs(y))):
            return i
    return None if len(a) == len(b) else min(len(a), len(b))


def numbers(output: str) -> list[float]:
    """The numbers that a program printed; times and dates are in few programs without losses."""
    return [float(n) for n in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?!\w)", output)]


def verdict(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """"equal"; "equal losses", where parameters differ (Adam makes a step of a gradient that is rounding alone, such as a bias before
    batch norm); "printed": equal numbers of a program without losses; else what is wrong."""
    if not ok(theirs):
        return f"PyTorch: {theirs['end']}"
    if not ok(ours):
        return f"fails: {ours['end']}"
    if not theirs["losses"] and not theirs["sizes"]:
        return "printed" if differs(numbers(theirs["output"]), numbers(ours["output"])) is None else "prints other numbers"
    for what in ("losses", "sizes"):
        at = differs(theirs[what], ours[what])
        if at is not None:
            if what == "sizes" and theirs["losses"]:
                return "equal losses"
            pair = [f"{r[what][at]:.7g}" if at < len(r[what]) else "nothing" for r in (theirs, ours)]
            return f"{what} differ at {at} of {len(theirs[what])}: {pair[0]}, {pair[1]}"
    return "equal"


def judged(program: Program, source: Path, again: bool) -> tuple[str, dict[str, Any]]:
    """The verdict on a program, and its result on minigrad."""
    kept = source / ".results" / f"{program.name}.json"
    theirs = json.loads(kept.read_text()) if kept.exists() and not again else {"end": "not run"}
    if not ok(theirs):
        theirs = run(program, "torch", source)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(theirs))
    if not ok(theirs):
        return verdict(theirs, theirs), theirs
    ours = run(program, "minigrad", source)
    said = verdict(theirs, ours)
    if "differ at" in said or said.startswith("prints"):
        said = amplified(program, source, said, theirs, ours)
    return said, ours


def amplified(program: Program, source: Path, said: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """The verdict on a program whose numbers drift apart in float32, where rounding may be amplified: whether they are equal in float64,
    or PyTorch's own drift apart as far when its random numbers (the weights) move by 1e-7."""
    pair = [run(program, backend, source, RESULT_DTYPE="float64") for backend in ("torch", "minigrad")]
    if ok(pair[0]) and verdict(*pair) in ("equal", "equal losses", "printed"):
        return "equal in float64"
    at = differs(theirs["losses"], ours["losses"])
    nudged = run(program, "torch", source, RESULT_NUDGE="1e-7")
    if at is not None and len(nudged["losses"]) == len(theirs["losses"]) == len(ours["losses"]):
        apart = [abs(other["losses"][at] - theirs["losses"][at]) for other in (ours, nudged)]
        if apart[0] <= 10 * apart[1]:
            return "drifts as PyTorch does"
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="programs whose repository and path hold this")
    parser.add_argument("--json", type=Path, help="a file for the results, which later calls add to")
    parser.add_argument("--again", action="store_true", help="run PyTorch anew")
    given = parser.parse_args()
    found = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    chosen = [p for p in programs() if given.only in f"{p.repository}/{p.path} {p.arguments}"]
    for program in chosen:
        if not (given.folder / program.folder / program.path).exists():
            said: str = "not at hand"
        else:
            said, ours = judged(program, given.folder, given.again)
            if said.startswith("fails"):
                said += "".join(f"\n      {line}" for line in ours["errors"].strip().splitlines()[-3:])
        found[program.name] = said
        print(f"{program.repository}/{program.path} {program.arguments}\n   {said}", flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))
    kinds = Counter(re.split(r"[:\n]| at ", said)[0] for said in (found[p.name] for p in chosen))
    print("\n".join(f"{count:4} {kind}" for kind, count in kinds.most_common()))


if __name__ == "__main__":
    main()
