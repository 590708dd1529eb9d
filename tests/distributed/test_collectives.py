"""Collectives in 1, 2 and 4 processes; what happens where calls do not fit, and where a process ends."""
from __future__ import annotations

import time

import pytest

import minigrad as mg
from minigrad import distributed as dist

pytestmark = pytest.mark.slow

COLLECTIVES = """
parts = [np.random.default_rng(i).standard_normal((3, 4)) for i in range(size)]
def mine(dtype=mg.float64, make=lambda a: a):
    return mg.tensor(make(parts[rank]), dtype=dtype)
for op, want in (("sum", sum(parts)), ("avg", sum(parts) / size), ("max", np.max(parts, 0)), ("min", np.min(parts, 0)), ("product", np.prod(parts, 0))):
    t = mine()
    assert dist.all_reduce(t, op) is None
    np.testing.assert_allclose(t.numpy(), want, rtol=1e-14, atol=1e-14)
for dtype in (mg.float16, mg.float32, mg.int64, mg.uint8):
    t = mg.full((5,), rank + 1, dtype=dtype)
    dist.all_reduce(t)
    assert t.dtype == dtype and t.tolist() == [size * (size + 1) // 2] * 5
t = mine().t()                                              # not contiguous: seen through every alias
base = t.t()
dist.all_reduce(t)
np.testing.assert_allclose(base.numpy(), sum(parts), rtol=1e-14)
leaf = mine().requires_grad_()
dist.all_reduce(leaf)
assert leaf.is_leaf and leaf.grad is None
for source in range(size):
    for dtype in (mg.float64, mg.bool, mg.float16):
        t = mine(dtype)
        dist.broadcast(t, source)
        np.testing.assert_array_equal(t.numpy(), parts[source].astype(dtype))
found = [mg.zeros(3, 4, dtype=mg.float64) for _ in range(size)]
dist.all_gather(found, mine())
for t, want in zip(found, parts):
    np.testing.assert_array_equal(t.numpy(), want)
flat = mg.zeros(size * 3, 4, dtype=mg.float64)
dist.all_gather_into_tensor(flat, mine())
np.testing.assert_array_equal(flat.numpy(), np.concatenate(parts))
everything = np.stack([np.stack([p * (k + 1) for k in range(size)]) for p in parts])           # [process, part]
for op, want in (("sum", everything.sum(0)[rank]), ("avg", everything.mean(0)[rank]), ("max", everything.max(0)[rank])):
    out = mg.zeros(3, 4, dtype=mg.float64)
    dist.reduce_scatter(out, list(mg.tensor(everything[rank])), op)
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-13)
work = dist.all_reduce(t := mine(), async_op=True)
assert not work.is_completed() and work.wait() and work.is_completed() and work.wait()
np.testing.assert_allclose(t.numpy(), sum(parts), rtol=1e-14)
assert dist.barrier() is None and dist.barrier(device_ids=[0], async_op=True).wait()
@mg.capture
def captured(x):
    y = x * 2
    dist.all_reduce(y, "avg")
    return y + 1
for k in range(4):
    np.testing.assert_allclose(captured(mine() + k).numpy(), 2 * (sum(parts) / size + k) + 1, rtol=1e-13)
assert dist.get_backend() == "mpi" and dist.is_initialized()
"""


@pytest.mark.parametrize("n", [1, 2, 4])
def test_collectives(passes, n):
    passes(n, COLLECTIVES)


OBJECTS = """
found = [None] * size
assert dist.all_gather_object(found, {"rank": rank, "text": "x" * 1000 * rank, "values": mg.arange(rank + 1.0)}) is None
assert [f["rank"] for f in found] == [*range(size)] and [len(f["text"]) for f in found] == [1000 * r for r in range(size)]
assert all(f["values"].tolist() == list(range(r + 1)) for r, f in enumerate(found))
for source in range(size):
    some = [("of", rank), None if rank else {1, 2}] if rank == source else [lambda: None, None]        # is not pickled
    dist.broadcast_object_list(some, source)
    assert some == [("of", source), None if source else {1, 2}], some
try:
    dist.all_gather_object([None] * (size + 1), 1)
    raise AssertionError("too many places have passed")
except ValueError as error:
    assert f"each of {size} processes; got {size + 1}" in str(error), error
try:
    dist.broadcast_object_list([0] * (1 + rank))
    assert rank == 0
except ValueError as error:
    assert rank and f"process 0, 1; got {1 + rank}" in str(error), error
"""


@pytest.mark.parametrize("n", [1, 3])
def test_objects(passes, n):
    passes(n, OBJECTS)


def test_the_same_bits_every_time(passes):
    text = "t = mg.randn(10007, generator=(g := mg.Generator()).manual_seed(rank) and g)\ndist.all_reduce(t)\nprint('bits', t.numpy().tobytes().hex()[:4000])"
    first, second = ({line for line in passes(4, text).splitlines() if line.startswith("bits")} for _ in range(2))
    assert first == second and len(first) == 1


MISFITS = {
    "shape": ("t = mg.ones(3 + (rank == 1))\ndist.all_reduce(t)", r"ranks 0, 2: all_reduce float32[3] sum; rank 1: all_reduce float32[4] sum"),
    "dtype": ("dist.all_reduce(mg.ones(3, dtype=mg.float64 if rank == 2 else mg.float32))", "rank 2: all_reduce float64[3] sum"),
    "call": ("dist.broadcast(mg.ones(2), 0) if rank == 0 else dist.all_reduce(mg.ones(2))", "rank 0: broadcast float32[2] from rank 0; ranks 1, 2: all_reduce"),
    "order": ("a, b = mg.ones(2), mg.ones(3)\nfor t in ((a, b) if rank else (b, a)): dist.all_reduce(t)", "rank 0: all_reduce float32[3] sum; ranks 1, 2: all_reduce float32[2]"),
    "end": ("if rank != 1: dist.all_reduce(mg.ones(2))", "rank 1: the end: destroy_process_group, or the end of the program"),
}


# The processes of a host tell their calls in memory; these do it by messages, as several hosts do.
MESSAGES = """
dist.destroy_process_group()
del os.memfd_create
dist.init_process_group("mpi")
assert dist.group._group._lines is None
"""


@pytest.mark.parametrize("name, before", [*[(name, "assert dist.group._group._lines is not None") for name in MISFITS], ("call", MESSAGES), ("end", MESSAGES)])
def test_calls_that_do_not_fit_raise_in_all_processes(mpi, name, before, tmp_path):
    """The launcher kills the others when one has ended, so each waits until all have raised."""
    text, said = MISFITS[name]
    ran = mpi(3, f"""
{before}
try:
    {text.replace(chr(10), chr(10) + '    ')}
    dist.destroy_process_group()
except RuntimeError as error:
    print("raised", rank, error, flush=True)
    open(f"{{sys.argv[1]}}/{{rank}}", "w").close()
    while len(os.listdir(sys.argv[1])) < size:
        time.sleep(0.01)
    os._exit(0)
""", str(tmp_path), seconds=120)
    assert sum(line.startswith("raised") and said in line for line in ran.stdout.splitlines()) == 3, ran.stdout + ran.stderr


def test_calls_are_compared_whoever_is_late(passes):
    """Each time another process is the last; the calls between two barriers differ from those before."""
    passes(3, """
rng, group = np.random.default_rng(rank), dist.group._group
for k in range(300):
    if rng.random() < 0.3:
        time.sleep(2e-4)
    group.agree(f"call {k}")
    met = group.barrier()
    if k == 200 + rank:                                     # the other two wait at the next call
        time.sleep(0.05)
    group.wait(met, "barrier")
    assert k % 50 or dist.all_reduce(t := mg.ones(3)) is None and t.tolist() == [3.0] * 3
for r in range(size):
    try:
        group.agree("another" if rank == r else "one")
        raise AssertionError("calls that differ have passed")
    except RuntimeError as error:
        assert f"rank {r}: another" in str(error), error
group.agree("the same again")
""")


def test_a_collective_goes_on_while_another_process_is_at_its_next_call(passes):
    """Rank 1 waits for rank 0 in memory, rank 0 for messages of rank 1."""
    passes(2, """
t = mg.ones(4_000_000)
work = dist.all_reduce(t, async_op=True)
if rank:
    dist.barrier()
work.wait()
if not rank:
    dist.barrier()
assert t[-1].item() == 2
""", seconds=60)


def test_long_descriptions_are_shown_where_they_differ(mpi):
    ran = mpi(2, """
layers = [nn.Linear(2, 2) for _ in range(40)]
layers[30 + rank] = nn.Linear(3, 2)
try:
    nn.parallel.DistributedDataParallel(nn.Sequential(*layers))
except RuntimeError as error:
    print("raised", error, flush=True)
os._exit(0)
""", seconds=60)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("raised")]
    assert len(lines) == 2 and all("30.weight float32[2, 3]" in line and "30.weight float32[2, 2]" in line and len(line) < 1200 for line in lines), ran.stdout


@pytest.mark.parametrize("text", ["if rank == 1: sys.exit(3)\ndist.all_reduce(mg.ones(3))", """
try:
    dist.all_reduce(mg.ones(3 + rank))
except RuntimeError:
    pass
if rank:
    try:
        dist.all_reduce(mg.ones(3))                     # the others are at their end
    except RuntimeError:
        pass
"""], ids=["sys.exit", "caught"])
def test_an_end_that_does_not_fit_ends_all(mpi, text):
    begin = time.monotonic()
    ran = mpi(3, text, seconds=100)
    assert ran.returncode != 0 and time.monotonic() - begin < 90
    assert "the end: destroy_process_group, or the end of the program" in ran.stderr, ran.stderr


def test_sys_exit_where_all_are_at_their_end(mpi):
    assert mpi(2, "if rank == 1: sys.exit(3)").returncode == 3


def test_a_fork_is_not_in_the_group(passes):
    said = passes(2, """
child = os.fork()
if not child:
    dist.group._leave()
    try:
        dist.all_reduce(mg.ones(3))
    except RuntimeError as error:
        print("raised", error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
t = mg.ones(3)
dist.all_reduce(t)
assert t.tolist() == [2.0] * 3
""")
    assert said.count("this process was forked from rank") == 2


def test_a_fork_that_ends_does_not_wait_for_the_others(passes):
    passes(2, """
child = os.fork()
if not child:
    sys.exit(0)
limit = time.monotonic() + 20
while not (ended := os.waitpid(child, os.WNOHANG))[0]:
    assert time.monotonic() < limit, "the child hangs"
    time.sleep(0.01)
assert ended[1] == 0
dist.all_reduce(t := mg.ones(3))
assert t.tolist() == [2.0] * 3
""")


DIED = "rank 1 (process "


@pytest.mark.parametrize("how, said", [("raise ValueError('too bad')", ["ValueError: too bad", "rank 1 ended by ValueError; all processes end"]),
                                       ("os.kill(os.getpid(), signal.SIGKILL)", [DIED]), ("os._exit(3)", [DIED])])
def test_a_process_that_ends_ends_the_others(mpi, how, said):
    begin = time.monotonic()
    ran = mpi(3, f"if rank == 1:\n    time.sleep(0.3)\n    {how}\ndist.all_reduce(mg.ones(3))\nprint('went on')", seconds=100)
    assert ran.returncode != 0 and "went on" not in ran.stdout and time.monotonic() - begin < 90
    for text in said:
        assert text in ran.stdout + ran.stderr


def test_a_process_that_does_not_come(mpi):
    ran = mpi(2, """
from datetime import timedelta
dist.destroy_process_group()
dist.init_process_group("mpi", timeout=timedelta(seconds=1))
if rank == 0:
    try:
        dist.all_reduce(mg.ones(3))
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
time.sleep(4)
os._exit(0)
""", seconds=60)
    assert "rank 0 waited 1 s in all_reduce float32[3] sum for the other processes" in ran.stdout, ran.stdout + ran.stderr


def test_ctrl_c_ends_a_wait(mpi):
    ran = mpi(2, """
import threading
if rank == 0:
    threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
    try:
        dist.all_reduce(mg.ones(3))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    os._exit(0)
time.sleep(3)
os._exit(0)
""", seconds=60)
    assert "interrupted" in ran.stdout, ran.stdout + ran.stderr


def test_bad_arguments(passes):
    passes(1, """
import pytest
cases = [(lambda: dist.init_process_group("mpi"), RuntimeError, "exists already"), (lambda: dist.all_reduce(3.0), TypeError, "must be a Tensor; got float"),
    (lambda: dist.all_reduce(mg.ones(2), "median"), ValueError, "op must be one of"), (lambda: dist.all_reduce(mg.ones(2), group=3), NotImplementedError, "leave it out"),
    (lambda: dist.all_reduce(mg.ones(2).bool()), TypeError, "sum is not defined for bool"), (lambda: dist.all_reduce(mg.ones(2).long(), "avg"), TypeError, "avg is not defined for int64"),
    (lambda: dist.broadcast(mg.ones(2), 1), ValueError, "rank from 0 to 0; got 1"), (lambda: dist.all_gather([], mg.ones(2)), ValueError, "for each of 1 processes; got 0"),
    (lambda: dist.all_gather_into_tensor(mg.ones(3), mg.ones(2)), Exception, "holds the inputs of all 1 processes"), (lambda: dist.reduce_scatter(mg.ones(3), [mg.ones(2)]), Exception, "holds the outputs")]
for act, kind, text in cases:
    with pytest.raises(kind, match=text):
        act()
dist.destroy_process_group()
for options, kind, text in ((dict(backend="gloo"), NotImplementedError, "the backend is 'mpi' or 'nccl'; got 'gloo'"), (dict(init_method="tcp://x"), NotImplementedError, "leave it out"),
                            (dict(world_size=3), ValueError, "world_size=1; got 3"), (dict(rank=1), ValueError, "rank=0; got 1")):
    with pytest.raises(kind, match=text):
        dist.init_process_group(**options)
with pytest.raises(RuntimeError, match="there is no process group"):
    dist.get_rank()
""")


def test_without_a_group():
    assert dist.is_available() and not dist.is_initialized()
    with pytest.raises(RuntimeError, match=r"^\[distributed\] there is no process group; call distributed.init_process_group"):
        dist.all_reduce(mg.ones(2))
