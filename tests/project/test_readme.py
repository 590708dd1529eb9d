"""The README's code runs, and prints what the README says."""
from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support import ROOT

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```output\n(.*?)^```\n)?", TEXT, re.M | re.S)


@pytest.mark.parametrize("code, output", BLOCKS)
def test_block(code, output, tmp_path):
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == output


def test_the_page_on_adding_an_op_is_short():
    """Under 60 lines with its heading."""
    page = TEXT.partition("\n## Adding an op\n")[2].partition("\n## ")[0]
    assert 30 < 1 + len(page.splitlines()) < 60


def test_the_gpu_is_called_emulated_until_there_are_results():
    """The row of the table; whoever commits results says what they are of."""
    row, = re.findall(r"^\| GPU .*$", TEXT.partition("\n## Support\n")[2], re.M)
    assert ("emulated only" in row) != (ROOT / "tests" / "benchmarks" / "RESULTS_GPU.md").exists()


def test_blocks_are_found():
    assert len(BLOCKS) == 3 and all(output for _, output in BLOCKS)
