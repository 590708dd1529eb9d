"""examples/as_torch.md: its code runs, and prints what it says."""
from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support import ROOT

PAGE = (ROOT / "examples/as_torch.md").read_text()
BLOCKS = dict(enumerate(re.findall(r"```(python(?: torch)?)\n(.*?)```(?:\n\n```output\n(.*?)```)?", PAGE, re.S)))


def ran(text, folder):
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_program(tmp_path):
    kind, text, shown = BLOCKS[0]
    assert kind == "python" and ran(text, tmp_path) == shown != ""


@pytest.mark.slow
def test_weights_are_converted(torch, tmp_path):
    pytest.importorskip("safetensors.torch")
    theirs = torch.nn.Linear(3, 2)
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    assert BLOCKS[1][0] == "python torch" and BLOCKS[2][0] == "python"
    ran(BLOCKS[1][1], tmp_path)
    shown = ran(BLOCKS[2][1] + "\nprint(model.weight.tolist())", tmp_path)
    assert eval(shown) == theirs.weight.tolist()


def test_the_table_names_what_is_refused():
    from minigrad.as_torch.names import REFUSED, REFUSED_NAMES
    assert [name for name in (*REFUSED, *REFUSED_NAMES.values()) if name not in PAGE] == []
