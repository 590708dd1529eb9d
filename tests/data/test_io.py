"""Files: what save and load carry, whole training runs, damaged files."""
from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from io import BytesIO, FileIO
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import io, nn, optim
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


def test_parameters_come_back_as_such(tmp_path):
    """And so does what requires a gradient; files that tell of neither are read as before."""
    p, fixed, w = nn.Parameter(mg.ones(2)), nn.Parameter(mg.ones(3).half(), requires_grad=False), mg.ones(2, requires_grad=True)
    tree = {"p": p, "more": [fixed, (w, w * 2, p)], "plain": mg.ones(2), "array": np.ones(2)}
    save(tree, tmp_path / "x")
    found = load(tmp_path / "x")
    assert same(tree, found) and found["more"][1][2] is found["p"]
    for a, b in ((p, found["p"]), (fixed, found["more"][0]), (w, found["more"][1][0]), (w * 2, found["more"][1][1]), (tree["plain"], found["plain"])):
        assert type(a) is type(b) and a.requires_grad == b.requires_grad and b.is_leaf
    found["p"].sum().backward()
    assert found["p"].grad.tolist() == [1, 1]
    save(p, tmp_path / "p")
    assert type(load(tmp_path / "p")) is nn.Parameter
    state = nn.Linear(2, 3).state_dict()
    save(state, tmp_path / "s")
    assert not any(t.requires_grad or isinstance(t, nn.Parameter) for t in load(tmp_path / "s").values())
    data = (tmp_path / "x").read_bytes()
    assert type(load(BytesIO(data.replace(b"learned", b"unknown")))["p"]) is mg.Tensor           # of an older version


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
    t = mg.ones(2)
    buffer = BytesIO()
    save({"a.b": t, "a": {"b": mg.zeros(2)}, "tie": [t, t]}, buffer)
    buffer.seek(0)
    found = load(buffer)
    assert found["a.b"].tolist() == [1.0, 1.0] and found["a"]["b"].tolist() == [0.0, 0.0] and found["tie"][0] is found["a.b"]
    assert same(OrderedDict(x=1), load_of(OrderedDict(x=1))) is True


def test_a_file_object_is_read_from_where_it_stands(tmp_path):
    """Into the tensors, if it can do that: there is no second copy of the file in memory."""
    save({"w": mg.arange(10), "e": mg.zeros(0), "n": 3}, tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "y").write_bytes(b"head" + whole)
    with gzip.open(tmp_path / "z", "wb") as packed:
        packed.write(b"head" + whole)

    class Short(FileIO):
        """Reads three bytes at a time into memory, and nothing as a whole."""

        def readinto(self, memory):
            return super().readinto(memoryview(memory)[:3])

        def read(self, size):
            return super().read(size)

    class Stream:
        """Can only be read."""

        def __init__(self, text):
            self.read = BytesIO(text).read
    for file in (open(tmp_path / "y", "rb"), open(tmp_path / "y", "rb", buffering=0), Short(tmp_path / "y"), gzip.open(tmp_path / "z"), BytesIO(b"head" + whole)):
        with file:
            assert file.read(4) == b"head"
            loaded = load(file)
            assert loaded["w"].tolist() == list(range(10)) and loaded["n"] == 3 and file.tell() == 4 + len(whole) and not file.closed
    assert load(Stream(whole))["n"] == 3
    with pytest.raises(ValueError, match="it ends after"):
        load(BytesIO(whole[:-1]))


def load_of(tree):
    buffer = BytesIO()
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
        with pytest.raises(ValueError, match=r"^\[load\] "):
            load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(TypeError, match=r"^\[save\] cannot write a set .*at a.0"):
        save({"a": [{1}]}, path)
    with pytest.raises(TypeError, match=r"^\[save\] a key must be"):
        save({(1, 2): 3}, path)
    with mock.patch("os.replace", side_effect=OSError("disk full")), pytest.raises(OSError, match="disk full"):
        save({"w": 1}, path)
    assert path.read_bytes() == data and sorted(os.listdir(tmp_path)) == ["bad", "x.safetensors"]


def file_of(entries, values, metadata=None):
    """A safetensors file by hand: {name: (dtype, shape, begin, end)}, and the bytes of the values."""
    header = {name: {"dtype": d, "shape": s, "data_offsets": [b, e]} for name, (d, s, b, e) in entries.items()}
    text = json.dumps(header if metadata is None else {"__metadata__": metadata, **header}).encode()
    return len(text).to_bytes(8, "little") + text + values


@pytest.mark.parametrize(("entries", "values", "metadata"), [
    ({"a": ("F32", [2], 0, 4)}, b"1234", None),                                             # the shape needs more
    ({"a": ("F32", [1], 0, 4)}, b"123", None), ({"a": ("F32", [1], 0, 4)}, b"12345", None),
    ({"a": ("F32", [1], 4, 8)}, b"12345678", None),                                         # a hole
    ({"a": ("F32", [1], 0, 4), "b": ("U8", [4], 0, 4)}, b"1234", None),                     # two in one place
    ({"a": ("F32", [-1, -1], 0, 4)}, b"1234", None), ({"a": ("F32", [1.0], 0, 4)}, b"1234", None),
    ({"a": ("F32", [1 << 60], 0, 1 << 62)}, b"1234", None), ({"a": ("F32", ["x"], 0, 4)}, b"1234", None),
    ({"a": ("F32", [0, 1 << 63], 0, 0)}, b"", None), ({"a": ("F32", [1] * 99, 0, 4)}, b"1234", None),
    ({}, b"", [1]), ({}, b"", {"minigrad": "{}"}), ({}, b"", {"minigrad": "[" * 99_999})])
def test_headers_that_lie(tmp_path, entries, values, metadata):
    (tmp_path / "bad").write_bytes(file_of(entries, values, metadata))
    with pytest.raises(ValueError, match=r"^\[load\] "):
        load(tmp_path / "bad")


def test_dtypes_of_other_programs(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(file_of({"flag": ("BOOL", [4], 0, 4)}, bytes([7, 0, 255, 2])))
    flag = load(path)["flag"]
    assert flag.tolist() == [True, False, True, True] and flag.long().tolist() == [1, 0, 1, 1] and (flag == True).tolist() == flag.tolist()  # noqa: E712
    for code, size in (("C64", 8), ("F8_E4M3", 1)):
        path.write_bytes(file_of({"w": (code, [1], 0, size)}, bytes(size)))
        with pytest.raises(ValueError, match=f"holds 'w' in the dtype {code}"):
            load(path)
    path.write_bytes(file_of({"w": ("BF16", [2], 0, 4)}, bytes([0xC0, 0x3F, 0x20, 0x40])))
    with mock.patch.dict("sys.modules", {"ml_dtypes": None}), pytest.raises(ValueError, match="BF16.*ml_dtypes"):
        load(path)


def test_bfloat16(tmp_path):
    pytest.importorskip("ml_dtypes")
    (tmp_path / "x").write_bytes(file_of({"w": ("BF16", [2], 0, 4)}, bytes([0xC0, 0x3F, 0x20, 0x40])))
    found = load(tmp_path / "x")["w"]
    assert found.dtype == mg.bfloat16 and found.tolist() == [1.5, 2.5]
    tree = {"w": found, "array": found.numpy(), "none": found[:0], "number": found[0], "f": mg.ones(3, dtype=np.float64), "t": mg.ones(2, 3).bfloat16().t()}
    save(tree, tmp_path / "y")
    assert same(tree, load(tmp_path / "y"))
    numpy = pytest.importorskip("safetensors.torch")
    assert numpy.load_file(tmp_path / "y")["w"].tolist() == [1.5, 2.5]


# ---- what `save` does to files ----

def test_what_a_file_is_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, mode in (("secret", 0o600), ("shared", 0o664), ("fixed", 0o444)):
        save({"v": 1}, name)
        assert os.stat(name).st_mode & 0o777 == 0o666 & ~umask()
        os.chmod(name, mode)
        save({"v": 2}, name)
        assert os.stat(name).st_mode & 0o777 == mode and load(name) == {"v": 2}
    os.makedirs("deep")
    os.symlink("../secret", "deep/link")
    os.symlink("deep/link", "link to a link")
    os.symlink("deep/new", "dangling")
    for i, (link, target) in enumerate((("deep/link", "secret"), ("link to a link", "secret"), ("dangling", "deep/new"))):
        save({"v": i}, link)
        assert os.path.islink(link) and load(target) == load(link) == {"v": i}
    assert os.stat("secret").st_mode & 0o777 == 0o600
    os.symlink("loop", "loop")
    with pytest.raises(OSError, match="loop"):
        save(1, "loop")
    assert os.path.islink("loop")
    long = "n" * 250
    save([3], long)
    assert load(long) == [3] and sorted(os.listdir()) == sorted(["secret", "shared", "fixed", "deep", "link to a link", "dangling", "loop", long])


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_pipes_and_devices_are_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(load(pipe)))
    reader.start()
    save({"w": mg.arange(100_000)}, pipe)
    reader.join(10)
    assert got[0]["w"].tolist() == list(range(100_000)) and stat.S_ISFIFO(os.stat(pipe).st_mode)
    os.symlink("/dev/null", tmp_path / "null")
    save({"w": mg.ones(3)}, tmp_path / "null")
    save({"w": mg.ones(3)}, "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and os.path.islink(tmp_path / "null")
    assert sorted(os.listdir(tmp_path)) == ["null", "pipe"]


def test_an_error_leaves_the_old_file(tmp_path):
    save({"v": 1}, tmp_path / "x")

    class Broken:
        dtype, shape = np.dtype("float32"), (3,)

        def __array__(self, *_, **__):
            raise MemoryError

    with pytest.raises(MemoryError), io.replacing(tmp_path / "x") as file:
        io._write(file, {"a": np.zeros(1000), "b": Broken()}, {})
    assert load(tmp_path / "x") == {"v": 1} and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("missing", ["O_TMPFILE", "/proc"])
def test_without_files_without_a_name(tmp_path, monkeypatch, missing):
    """As on other systems: the new file has a name of its own until it is complete."""
    if missing == "/proc":
        plain = {name: getattr(os, name) for name in ("stat", "link")}
        for name in plain:
            monkeypatch.setattr(os, name, lambda path, *more, name=name, **options: plain[name]("/missing" if str(path).startswith("/proc") else path, *more, **options))
    else:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    save({"v": 1}, tmp_path / "x")
    os.chmod(tmp_path / "x", 0o640)
    with pytest.raises(ZeroDivisionError), io.replacing(tmp_path / "x") as file:
        file.write(b"half")
        assert len(os.listdir(tmp_path)) == 2
        raise ZeroDivisionError
    assert load(tmp_path / "x") == {"v": 1} and os.listdir(tmp_path) == ["x"]
    save({"v": 2}, tmp_path / "x")
    assert load(tmp_path / "x") == {"v": 2} and os.stat(tmp_path / "x").st_mode & 0o777 == 0o640 and os.listdir(tmp_path) == ["x"]


SAVER = """
import sys, minigrad as mg
state = {"w": mg.zeros(500_000), "n": 0}
mg.save(state, sys.argv[1]); print("go", flush=True)
while True:
    state["n"] += 1
    mg.save(state, sys.argv[1])
"""
LITTLE = """
import resource, sys, numpy as np, minigrad as mg
state = {str(i): mg.ones(2_500_000) for i in range(8)}
mg.save({"old": 1}, sys.argv[1]); mg.load(sys.argv[1])
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]) * 2**20, resource.RLIM_INFINITY))
try:
    mg.save(state, sys.argv[1])
    print("saved")
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.slow
def test_killed_savers_leave_one_whole_file(tmp_path):
    for wait in range(8):
        with python(SAVER, tmp_path / "x") as process:
            assert process.stdout.readline().strip() == "go"
            time.sleep(0.003 * wait)
            process.kill()
        assert load(tmp_path / "x")["w"].shape == (500_000,)
    left = [name for name in os.listdir(tmp_path) if name != "x"]
    assert len(left) <= 1 and all(name.endswith(".part") for name in left)      # killed between two system calls


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="measures memory as Linux tells it")
@pytest.mark.parametrize("room", [0, 2, 8, 32])
def test_saving_needs_no_second_copy(tmp_path, room):
    """80 MB of tensors, of which none fits in the memory that is left in the first cases."""
    with python(LITTLE, tmp_path / "x", room) as process:
        said = process.stdout.read().strip()
    assert process.returncode == 0 and said in ("saved", "MemoryError") and (room < 2 or said == "saved")
    assert len(load(tmp_path / "x")) == (8 if said == "saved" else 1)


def python(program, *arguments):
    """A process outside the source folder (whose minigrad may not be built)."""
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            cwd=tempfile.gettempdir())


def test_errors_of_files_are_shown_alone(tmp_path):
    (tmp_path / "junk").write_bytes(b"junk")
    endless = []
    endless.append(endless)
    for call, kind in ((lambda: load(tmp_path / "junk"), ValueError), (lambda: save(endless, tmp_path / "x"), ValueError),
                       (lambda: save({}, tmp_path / "none" / "x"), FileNotFoundError)):
        with pytest.raises(kind) as raised:
            call()
        error = raised.value
        assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)
        assert ".part" not in str(error)
