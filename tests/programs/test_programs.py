"""The runner of public programs, on small programs of its own; and the public ones, where they are at hand.

    MINIGRAD_PROGRAMS=FOLDER pytest tests/programs      FOLDER: see run.py
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import run as runner  # noqa: E402

PROGRAM = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(int(sys.argv[1]))
net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))
data = TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,)))
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
for epoch in range(5):
    for x, y in DataLoader(data, batch_size=8, shuffle=True, num_workers=2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        print(loss.item())
"""


def test_the_list_can_be_read():
    found = runner.programs()
    assert len(found) >= 60 and len({p.name for p in found}) == len(found)
    assert all(needs.startswith("limit=") or needs in ("root", "path", "cpu", "path2", "tensorflow", "tests", "old_gym") or hasattr(runner.makers, needs) for p in found for needs in p.needs)


@pytest.mark.slow
def test_a_program_computes_the_same(torch, tmp_path):
    folder = tmp_path / "some+one"
    folder.mkdir()
    (folder / "train.py").write_text(PROGRAM)
    (folder / "wrong.py").write_text(PROGRAM.replace("lr=0.01", "lr=0.01 if hasattr(torch, 'capture') else 0.02"))
    (folder / "stops.py").write_text("import torch\nif hasattr(torch, 'capture'): torch.no_such_name")
    (folder / "prints.py").write_text("import torch\nprint(torch.arange(3) * 2.5, torch.distributions.Categorical(torch.ones(3)).sample())")
    said = {name: runner.judged(runner.programs(f"some/one | {name}.py | 3 |")[0], tmp_path, False) for name in ("train", "wrong", "stops", "prints")}
    assert said["train"][0] == "equal" and said["prints"][0] == "printed"
    assert len(said["train"][1]["losses"]) == 12 and said["train"][1]["end"] == "enough"        # the limit
    assert said["wrong"][0].startswith("losses differ at 1 of 12") and "no_such_name" in said["stops"][0]


def test_what_differs():
    assert runner.differs([1.0, 2.0], [1.0, 2.0001]) is None and runner.differs([1.0, 2.0], [1.0, 2.001]) == 1
    assert runner.differs([1.0], [1.0, 2.0]) == 1 and runner.differs([float("nan")], [float("nan")]) is None
    assert runner.numbers("loss: 1.5e-3, [2, -3.] x7 v2") == [0.0015, 2.0, -3.0]


@pytest.mark.slow
@pytest.mark.skipif("MINIGRAD_PROGRAMS" not in os.environ, reason="MINIGRAD_PROGRAMS names no folder with the programs")
@pytest.mark.parametrize("program", runner.programs(), ids=lambda p: p.name)
def test_public_programs(torch, program):
    source = Path(os.environ["MINIGRAD_PROGRAMS"])
    if not (source / program.folder / program.path).exists():
        pytest.skip(f"{program.repository} is not at hand")
    said, _ = runner.judged(program, source, False)
    if said.startswith("PyTorch: "):
        pytest.skip(said)
    assert said in ("equal", "equal losses", "equal in float64", "drifts as PyTorch does", "printed")
