"""`torch.save` and `torch.load`: plain values, whole modules, PyTorch's own files."""
from __future__ import annotations

import argparse
import io
import pickle
import zipfile

import numpy as np
import pytest
from support import run_python

import minigrad as mg
from minigrad import nn
from minigrad.as_torch.saving import load, save


def test_plain_values_come_back(tmp_path):
    model = nn.Linear(3, 2)
    state = {"model": model.state_dict(), "epoch": 3, "args": ("a", 1.5, None), 7: [mg.arange(3)], "device": mg.device("cpu")}
    save(state, tmp_path / "x.pt")
    for found in (load(tmp_path / "x.pt"), load(str(tmp_path / "x.pt"), map_location=lambda storage, place: storage),
                  load(tmp_path / "x.pt", map_location={"cuda:0": "cpu"}), load(tmp_path / "x.pt", "cpu", weights_only=False)):
        assert found["epoch"] == 3 and found["args"] == ("a", 1.5, None) and found["device"] == "cpu"
        assert found[7][0].tolist() == [0, 1, 2] and mg.equal(found["model"]["weight"], model.weight)
    file = io.BytesIO()
    save(state, file)
    assert load(io.BytesIO(file.getvalue()))["epoch"] == 3


def test_a_whole_module_stays_in_memory_and_its_state_is_written(tmp_path):
    path = tmp_path / "model.pt"
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.warns(UserWarning, match="written was of Sequential the state dict .the whole.; the whole object stays in memory"):
        save(model, path)
    weight = model[0].weight.detach().clone()
    with mg.no_grad():
        model[0].weight.zero_()
    found = load(path)
    assert isinstance(found, nn.Sequential) and found is not model and mg.equal(found[0].weight, weight)
    other = run_python("-W", "always", "-c", f"from minigrad.as_torch.saving import load; print(load({str(path)!r}).keys())")
    assert "dict_keys(['0.weight', '0.bias'])" in other.stdout and "the process that wrote it had more" in other.stderr


def test_a_whole_module_comes_back_from_memory():
    """How libraries clone a module: `save` into a buffer, and `load` from it."""
    net, file = nn.Linear(2, 3), io.BytesIO()
    with pytest.warns(UserWarning, match="state dict .*stays in memory"):
        save(net, file)
    file.seek(0)
    other = load(file)
    assert type(other) is nn.Linear and other is not net and (other.weight == net.weight).all() and file.read() == b""
    with pytest.warns(UserWarning, match="had more"):
        assert {*load(io.BytesIO(file.getvalue()))} == {"weight", "bias"}
    with pytest.raises(ValueError, match="safetensors"):
        load(file)                                          # it was read to its end
    file.seek(0)
    file.truncate()
    save({"a": mg.ones(1)}, file)                           # what the buffer holds now
    file.seek(0)
    assert load(file)["a"].item() == 1


def test_objects_beside_tensors(tmp_path):
    path = tmp_path / "run.pt"
    args = argparse.Namespace(lr=0.1)
    with pytest.warns(UserWarning, match=r"of Namespace nothing \(args\), of Linear the state dict \(nets.0\)"):
        save({"args": args, "nets": [nn.Linear(2, 2)], "x": np.arange(2)}, path)
    assert load(path)["args"].lr == 0.1 and isinstance(load(path)["nets"][0], nn.Linear)
    save({"args": 1}, path)                                 # another file of that name
    assert load(path) == {"args": 1}


def test_a_file_that_another_process_replaced_is_read(tmp_path):
    path, other = tmp_path / "a.pt", tmp_path / "b.pt"
    with pytest.warns(UserWarning, match="stays in memory"):
        save(nn.Linear(2, 2), path)
    mg.save({"x": 1}, other)
    other.replace(path)
    assert load(path) == {"x": 1}


def test_pytorchs_files_are_refused_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "new.pt", "w") as file:
        file.writestr("archive/data.pkl", b"")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": 1}))
    for name in ("new.pt", "old.pt"):
        with pytest.raises(ValueError, match=rf"\[load\] .*{name}' was written by PyTorch.*safetensors.torch.save_file"):
            load(tmp_path / name)
        with open(tmp_path / name, "rb") as file, pytest.raises(ValueError, match="was written by PyTorch"):
            load(file)
    (tmp_path / "text.pt").write_text("what is this")
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load(tmp_path / "text.pt")


def test_files_whose_header_has_any_length(tmp_path):
    path = tmp_path / "x.pt"
    for n in range(0, 400, 8):                          # the first byte of the file is that of a pickle for one of these
        save({"a" * (n + 1): mg.ones(1)}, path)
        other = tmp_path / f"{n}.pt"
        other.write_bytes(path.read_bytes())            # another file: `load` keeps a copy of what this process wrote
        assert len(next(iter(load(other)))) == n + 1
        with open(other, "rb") as file:
            assert len(next(iter(load(file)))) == n + 1


def test_weights_of_pytorch_converted_as_the_message_says(torch, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    theirs = torch.nn.Linear(3, 2)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    save_file(torch.load(tmp_path / "theirs.pt"), tmp_path / "theirs.safetensors")
    ours = nn.Linear(3, 2)
    ours.load_state_dict(load(tmp_path / "theirs.safetensors"))
    x = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(ours(mg.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-6)
