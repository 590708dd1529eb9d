"""Files: what save and load carry, whole training runs, damaged files."""
from __future__ import annotations

import os
from collections import OrderedDict
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import nn, optim
from minigrad.io import load, save


def same(a, b):
    if isinstance(a, mg.Tensor):
        return isinstance(b, mg.Tensor) and same(a.detach().numpy(), b.detach().numpy())
    if isinstance(a, (np.ndarray, np.generic)):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and same(list(a), list(b)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


arrays = st.builds(lambda shape, dtype: np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
                   st.lists(st.integers(0, 3), max_size=3),
                   st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.int64, np.bool_, np.uint8, np.uint64]))
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), arrays, arrays.map(mg.tensor))
keys = st.one_of(st.text(), st.integers(), st.none())
trees = st.recursive(leaves, lambda t: st.one_of(st.lists(t, max_size=3), st.lists(t, max_size=3).map(tuple),
                                                 st.dictionaries(keys, t, max_size=3)))


@given(tree=trees)
@settings(max_examples=150, deadline=None)
def test_trees_round_trip(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    save(tree, path)
    assert same(tree, load(path))


def test_a_training_run_round_trips(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    o = optim.Adam(model.parameters(), betas=(0.8, 0.9))
    for p in model.parameters():
        p.grad = mg.ones(*p.shape)
    o.step()
    state = {"model": model.state_dict(), "optimizer": o.state_dict(), "rng": mg.get_rng_state(), "loader": {"seed": None}, "epoch": 3}
    save(state, tmp_path / "run.safetensors")
    found = load(str(tmp_path / "run.safetensors"))
    assert same(dict(state["model"]), found["model"]) and same(state["optimizer"], found["optimizer"]) and found["epoch"] == 3
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    other.load_state_dict(found["model"])
    again = optim.Adam(other.parameters())
    again.load_state_dict(found["optimizer"])
    assert again.param_groups[0]["betas"] == (0.8, 0.9)
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_other_programs_read_and_write_it(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    model = nn.Linear(3, 2)
    save(model.state_dict(), tmp_path / "a.safetensors")
    assert set(numpy.load_file(tmp_path / "a.safetensors")) == {"weight", "bias"}
    numpy.save_file({"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32)}, tmp_path / "b.safetensors")
    model.load_state_dict(load(tmp_path / "b.safetensors"))
    assert model.weight.sum().item() == 6.0


def test_file_objects_ties_and_dotted_keys():
    import io
    t = mg.ones(2)
    buffer = io.BytesIO()
    save({"a.b": t, "a": {"b": mg.zeros(2)}, "tie": [t, t]}, buffer)
    buffer.seek(0)
    found = load(buffer)
    assert found["a.b"].tolist() == [1.0, 1.0] and found["a"]["b"].tolist() == [0.0, 0.0] and found["tie"][0] is found["a.b"]
    assert same(OrderedDict(x=1), load_of(OrderedDict(x=1))) is True


def load_of(tree):
    import io
    buffer = io.BytesIO()
    save(tree, buffer)
    buffer.seek(0)
    return load(buffer)


def test_pytorchs_options_of_load(tmp_path):
    save({"w": mg.ones(2)}, tmp_path / "w")
    for options in ({"weights_only": True}, {"weights_only": False}, {"map_location": mg.device("cpu")}):
        assert load(tmp_path / "w", **options)["w"].tolist() == [1.0, 1.0]
    for options in ({"mmap": True}, {"pickle_module": os}):
        with pytest.raises(NotImplementedError, match=next(iter(options))):
            load(tmp_path / "w", **options)


def test_bad_files(tmp_path):
    path = tmp_path / "x.safetensors"
    save({"w": mg.ones(100)}, path)
    data = path.read_bytes()
    for bad in (b"", data[:5], data[:60], data[:-1], data + b"x", b"\x80\x04" + data, b"not a file at all",
                data.replace(b"tensor", b"tinsor"), data.replace(b"version", b"virsion")):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(ValueError, match="load:"):
            load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(TypeError, match="cannot write a set .*at a.0"):
        save({"a": [{1}]}, path)
    with pytest.raises(TypeError, match="a key must be"):
        save({(1, 2): 3}, path)
    with mock.patch("os.replace", side_effect=OSError("disk full")), pytest.raises(OSError, match="disk full"):
        save({"w": 1}, path)
    assert path.read_bytes() == data and sorted(os.listdir(tmp_path)) == ["bad", "x.safetensors"]
    with mock.patch.dict("sys.modules", {"safetensors.numpy": None}), pytest.raises(ImportError, match="safetensors"):
        load(path)
