"""The backend "nccl" in 1, 2 and 4 processes: the GPU is the emulator's, and NCCL a stand-in for what CuPy has of it."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cuda_on_cpu.twins import REAL, emulated
from support import started_python

HEAD = """
import os, signal, sys, time
import numpy as np
import minigrad as mg
from cuda_on_cpu import fakeblas, fakecupy, fakenccl
from minigrad import distributed as dist, nn, optim
from minigrad.devices import blas, cuda
from minigrad.nn import functional as F
cuda.cp, blas.library, blas.light = fakecupy, fakeblas, fakeblas
rank, size, method = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def begin(**options):
    dist.init_process_group("nccl", init_method=method, world_size=size, rank=rank, **options)
"""
pytestmark = [pytest.mark.slow, pytest.mark.cuda, emulated, pytest.mark.skipif(REAL, reason="one GPU for each process")]


@pytest.fixture
def processes(tmp_path):
    """Runs a program in n processes; what each of them said, and how it ended."""
    started: list[subprocess.Popen] = []
    def run(n, text, method=None, begin=True, seconds=300, **environment):
        path = str(Path(__file__).parents[1])
        method = method or f"file://{tmp_path}/meet"
        for rank in range(n):
            started.append(started_python(tmp_path, "-c", HEAD + "begin()\n" * begin + text, str(rank), str(n), method, path=path,
                                          FAKENCCL=str(tmp_path), RANK=str(rank), **environment))
        return [(p.communicate(timeout=seconds)[0], p.returncode) for p in started]
    yield run
    for p in started:
        p.kill()
        p.wait()


def all_at_the_end(ran):
    assert all(code == 0 and said.count("at the end") == 1 for said, code in ran), "\n".join(said for said, _ in ran)


COLLECTIVES = """
device = mg.device("cuda")
parts = [np.random.default_rng(i).standard_normal((3, 4)) for i in range(size)]
def mine(dtype=mg.float64):
    return mg.tensor(parts[rank], dtype=dtype).to(device)
def near(t, want, most=1e-14):
    assert t.device == device
    np.testing.assert_allclose(t.cpu().numpy(), want, rtol=most, atol=most)
for op, want in (("sum", sum(parts)), ("avg", sum(parts) / size), ("max", np.max(parts, 0)), ("min", np.min(parts, 0)), ("product", np.prod(parts, 0))):
    t = mine()
    assert dist.all_reduce(t, op) is None
    near(t, want)
for dtype in (mg.float16, mg.float32, mg.int64, mg.uint8):
    t = mg.full((5,), rank + 1, dtype=dtype, device=device)
    dist.all_reduce(t)
    assert t.dtype == dtype and t.tolist() == [size * (size + 1) // 2] * 5
for source in range(size):
    for dtype in (mg.float64, mg.bool, mg.float16):
        t = mine(dtype)
        dist.broadcast(t, source)
        np.testing.assert_array_equal(t.cpu().numpy(), parts[source].astype(dtype))
found = [mg.zeros(3, 4, dtype=mg.float64, device=device) for _ in range(size)]
dist.all_gather(found, mine())
for t, want in zip(found, parts, strict=True):
    near(t, want, 0)
everything = np.stack([np.stack([p * (k + 1) for k in range(size)]) for p in parts])           # [process, part]
for op, want in (("sum", everything.sum(0)[rank]), ("avg", everything.mean(0)[rank]), ("max", everything.max(0)[rank])):
    out = mg.zeros(3, 4, dtype=mg.float64, device=device)
    dist.reduce_scatter(out, list(mg.tensor(everything[rank]).to(device)), op)
    near(out, want, 1e-13)
work = dist.all_reduce(t := mine(), async_op=True)
assert work.wait()
near(t, sum(parts))
dist.barrier()
assert dist.get_backend() == "nccl" and dist.get_world_size() == size and dist.get_rank() == rank
for act, kind, text in ((lambda: dist.all_reduce(mg.ones(3)), RuntimeError, "the backend 'nccl' moves tensors of cuda:0"),
                        (lambda: dist.all_reduce(mg.ones(3, dtype=mg.int16, device=device)), TypeError, "bfloat16; got int16; convert it first")):
    try:
        act()
        assert False
    except kind as error:
        assert text in str(error), error
print("at the end", rank)
"""


@pytest.mark.parametrize("n", [1, 2, 4])
def test_collectives(processes, n):
    all_at_the_end(processes(n, COLLECTIVES))


CAPTURED = """
device = mg.device("cuda")
@mg.capture
def step(x):
    y = x * 2
    dist.all_reduce(y, "avg")
    return y + 1
with fakecupy.asynchronous():                               # what is on the wrong stream comes too early
    for k in range(4):
        got = step(mg.full((3,), float(rank + k), device=device)).cpu()
        assert got.tolist() == [2 * ((size - 1) / 2 + k) + 1] * 3, got
program, = [p for programs in step.programs.values() for p in programs]
assert [type(s).__name__ for s in program.segments] == ["_Segment"]          # one graph: no Python in between
assert [l.kernel.name for l in program.segments[0].launches].count("nccl_all_reduce") == 1
@mg.capture
def only_rank_0_reads(x):
    y = x * 2
    dist.all_reduce(y)
    return y if rank == 0 else x
for k in range(3):
    assert only_rank_0_reads(mg.ones(3, device=device)).cpu().tolist() == [2.0 * size if rank == 0 else 1.0] * 3
print("at the end", rank)
"""


@pytest.mark.parametrize("n", [1, 2])
def test_an_all_reduce_is_inside_the_graph_of_a_captured_step(processes, n):
    all_at_the_end(processes(n, CAPTURED))


TRAINING = """
device = mg.device("cuda")
mg.manual_seed(0)
X, Y = mg.randn(16, 6), mg.randint(0, 3, (16,))
mine = slice(rank * 16 // size, (rank + 1) * 16 // size)
def model():
    mg.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
one, net = model().to(device), nn.SyncBatchNorm.convert_sync_batchnorm(model()).to(device)
with mg.no_grad():
    net[0].bias.add_(rank)                                  # those of process 0 hold
net = nn.parallel.DistributedDataParallel(net, device_ids=[0], bucket_cap_mb=1e-4)
assert (net._reducer is None) == (size == 1) and (size == 1 or len(net._reducer.buckets) > 1)
first, second = optim.SGD(one.parameters(), lr=0.1, momentum=0.9), optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
@mg.capture
def step(x, y):
    second.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    second.step()
    return loss
for k in range(5):
    first.zero_grad()
    F.cross_entropy(one((X + k).to(device)), Y.to(device)).backward()
    first.step()
    loss = step((X + k)[mine].to(device), Y[mine].to(device)).item()
for (name, p), q in zip(net.module.state_dict().items(), one.state_dict().values(), strict=True):
    assert float((p.double() - q.double()).abs().max()) < 1e-5, (name, p, q)
kinds = [type(s).__name__ for s in step.last.segments]
assert size == 1 or kinds.count("_Segment") == 1 + kinds.count("function"), kinds
names = [l.kernel.name for s in step.last.segments if not callable(s) for l in s.launches]
if size > 1:
    assert names.count("nccl_all_reduce") == len(net._reducer.buckets) and names.count("nccl_all_gather") == 1 and names.count("nccl_groupStart") == 1
    assert names.index("nccl_all_reduce") < max(i for i, n in enumerate(names) if n.startswith("gemm")), names      # during backward
print("at the end", rank)
"""


@pytest.mark.parametrize("n", [1, 2, 4])
def test_training_on_n_gpus_is_training_on_the_joined_batch(processes, n):
    """DistributedDataParallel and SyncBatchNorm in a captured step, buckets reduced while backward goes on."""
    all_at_the_end(processes(n, TRAINING))


def test_calls_that_do_not_fit_raise_in_all_processes(processes):
    ran = processes(3, """
try:
    dist.all_reduce(mg.ones(3 + (rank == 1), device="cuda"))
except RuntimeError as error:
    print("raised", error, flush=True)
dist.group._group.control.texts("", "raised")               # the first that ends would end those that have not printed it
os._exit(0)
""")
    assert all("raised" in said and "ranks 0, 2: all_reduce float32[3] sum; rank 1: all_reduce float32[4] sum" in said for said, _ in ran), ran


@pytest.mark.parametrize("dies, how", [(0, "raise ValueError('too bad')"), (1, "os.kill(os.getpid(), signal.SIGKILL)")])
def test_a_process_that_dies_ends_the_others(processes, dies, how):
    ran = processes(3, f"""
if rank == {dies}:
    time.sleep(0.5)
    {how}
while True:                                                 # as a GPU that waits for the others
    time.sleep(0.1)
""", seconds=100)
    assert all(code for _, code in ran)
    for rank, (said, _) in enumerate(ran):
        assert rank == dies or f"rank {dies} (process " in said and "died; all processes end" in said, ran


def test_without_a_gpu_or_nccl(processes):
    """All processes say whose it is."""
    for missing, said_of in (("fakecupy.cuda.is_available = lambda: False", "there is a driver but no GPU is visible"),
                             ("del fakecupy.cuda.nccl", "CuPy finds no NCCL library; pip install nvidia-nccl-cu13")):
        ran = processes(2, f"""
if rank == 1:
    {missing}
try:
    begin()
except RuntimeError as error:
    print("raised", error)
""", begin=False)[-2:]
        assert all(code == 0 and f"the backend 'nccl' needs NCCL and a GPU in each process; got, from rank 1: {said_of}" in said for said, code in ran), ran


def test_by_tcp_as_the_environment_says(processes):
    port = 20000 + os.getpid() % 20000
    all_at_the_end(processes(2, """
dist.init_process_group("nccl")
t = mg.full((2,), rank + 1.0, device="cuda")
dist.all_reduce(t)
assert t.tolist() == [3.0, 3.0]
dist.destroy_process_group()
assert not dist.is_initialized()
print("at the end", rank)
""", "None", begin=False, MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2"))


def test_a_process_that_does_not_come(processes):
    ran = processes(1, """
from datetime import timedelta
size = 2
try:
    begin(timeout=timedelta(seconds=1))
except RuntimeError as error:
    print("raised", error)
""", begin=False)
    assert "raised [distributed] rank 0 waited 1 s for ranks 1; pass a longer `timeout`" in ran[0][0], ran


def test_wrong_arguments():
    from minigrad import distributed as dist
    for options, text in ((dict(init_method="tcp://x:1"), "world_size=-1, rank=-1"), (dict(init_method="http://x", world_size=2, rank=0), "got 'http://x'"),
                          (dict(init_method="file:///x", world_size=2, rank=2), "a rank below it")):
        with pytest.raises(ValueError, match=text):
            dist.init_process_group("nccl", **options)


def test_by_mpi(mpi):
    ran = mpi(2, """
import sys
dist.destroy_process_group()
sys.path.insert(0, sys.argv[1])
from cuda_on_cpu import fakeblas, fakecupy
from minigrad.devices import blas, cuda
cuda.cp, blas.library, blas.light = fakecupy, fakeblas, fakeblas
dist.init_process_group("nccl")
t = mg.full((2,), rank + 1.0, device="cuda")
dist.all_reduce(t)
assert t.tolist() == [3.0, 3.0]
print("at the end", rank)
""", str(Path(__file__).parents[1]))
    assert ran.returncode == 0 and ran.stdout.count("at the end") == 2, ran.stdout + ran.stderr
