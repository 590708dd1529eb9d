"""DistributedDataParallel, SyncBatchNorm and DistributedSampler: n processes against one on the joined batch."""
from __future__ import annotations

import pytest

import minigrad as mg
from minigrad import data, nn

SHARE = """
def model(dtype=mg.float64, sync=True, norm=True):
    mg.manual_seed(1)
    layers = [nn.Conv2d(1, 6, 3, dtype=dtype), *[nn.BatchNorm2d(6, dtype=dtype)] * norm, nn.ReLU(), nn.Flatten(), nn.Linear(96, 10, dtype=dtype)]
    net = nn.Sequential(*layers)
    return nn.SyncBatchNorm.convert_sync_batchnorm(net) if sync else net
mg.manual_seed(0)
X, Y = mg.randn(24, 1, 6, 6, dtype=mg.float64), mg.randint(0, 10, (24,))
mine = slice(rank * 24 // size, (rank + 1) * 24 // size)
def near(a, b, most=1e-12):
    a, b = [list(t.values()) if isinstance(t, dict) else list(t) for t in (a, b)]
    assert len(a) == len(b)
    for s, t in zip(a, b):
        assert (s is None) == (t is None)
        assert s is None or float((s.double() - t.double()).abs().max()) <= most * max(1.0, float(t.double().abs().max())), (s, t)
"""
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("n", [1, 2, 4])
def test_gradients_are_those_of_the_joined_batch(passes, n):
    """In float64 to 1e-12, in float32 to rounding, with buckets of one parameter and of all; captured steps too."""
    passes(n, SHARE + """
for dtype, most in ((mg.float64, 1e-12), (mg.float32, 2e-6)):
    for megabytes in (1e-6, None):
        one, net = model(dtype, False), nn.parallel.DistributedDataParallel(model(dtype), bucket_cap_mb=megabytes)
        x = X.to(dtype)
        loss = F.cross_entropy(one(x), Y)
        loss.backward()
        F.cross_entropy(net(x[mine]), Y[mine]).backward()
        near([p.grad for p in net.parameters()], [p.grad for p in one.parameters()], most)
        near(net.module.state_dict(), one.state_dict(), most)
one, net = model(sync=False), nn.parallel.DistributedDataParallel(model())
first, second = (optim.Adam(m.parameters(), lr=0.01) for m in (one, net))
@mg.capture
def step(x, y):
    second.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    second.step()
    return loss
for k in range(6):
    order = mg.randperm(24, generator=mg.Generator().manual_seed(k))
    first.zero_grad()
    F.cross_entropy(one(X[order]), Y[order]).backward()
    first.step()
    step(X[order][mine], Y[order][mine])
near(net.module.state_dict(), one.state_dict(), 1e-9)
assert sum(map(len, step.programs.values())) == 1
""")


def test_gradients_are_added_up_without_sync(passes):
    passes(2, SHARE + """
one, net = model(sync=False, norm=False), nn.parallel.DistributedDataParallel(model(sync=False, norm=False))
for k in range(2):                                      # the second time .grad is there
    F.cross_entropy(one(X), Y, reduction="sum").backward()
    x, y = X[mine], Y[mine]
    with net.no_sync():
        (F.cross_entropy(net(x[:5]), y[:5], reduction="sum") * size).backward()
    (F.cross_entropy(net(x[5:]), y[5:], reduction="sum") * size).backward()
    near([p.grad for p in net.parameters()], [p.grad for p in one.parameters()])
""")


def test_parameters_begin_as_those_of_process_0(passes):
    passes(3, """
mg.manual_seed(rank)
net = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
texts = [mg.zeros(12) for _ in range(size)]
dist.all_gather(texts, net.module[0].weight.detach().reshape(-1))
assert all(mg.equal(t, texts[0]) for t in texts) and list(net.state_dict())[0] == "module.0.weight"
for k in range(3):                                      # buffers: those of process 0 at the begin of each forward pass
    net(mg.randn(5, 3)).sum().backward()
net.module[1].running_mean.fill_(rank)
net(mg.zeros(5, 3))
assert float(net.module[1].running_mean.abs().max()) < 0.9
""")


def test_parameters_without_gradient(passes):
    passes(2, """
import pytest
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)
    def forward(self, x, use_b):
        return self.a(x) + self.b(x) if use_b else self.a(x)
net = nn.parallel.DistributedDataParallel(Two())
net(mg.ones(2, 3), False).sum().backward()
with pytest.raises(RuntimeError, match="no gradient came for b.weight, b.bias; use all parameters"):
    net(mg.ones(2, 3), True)
net = nn.parallel.DistributedDataParallel(Two(), find_unused_parameters=True, bucket_cap_mb=1e-6)
for k, use_b in enumerate((rank == 0, False, True)):              # in one process, in none, in all
    net.zero_grad()
    net(mg.ones(2, 3), use_b).sum().backward()
    users = size if use_b is True and k else 1 if k == 0 else 0
    assert net.module.b.bias.grad.item() == 2.0 * users / size and net.module.a.bias.grad.item() == 2.0
""")


def test_sync_batch_norm_is_batch_norm_on_the_joined_batch(passes):
    """Values, gradients of order 1 and 2, running statistics, with batches of different sizes, one of them of one sample."""
    passes(4, SHARE + """
bounds = [0, 1, 8, 12, 24]
mine = slice(bounds[rank], bounds[rank + 1])
G, H = mg.randn(24, 3, 2, dtype=mg.float64), mg.randn(24, 3, 2, dtype=mg.float64)
def derivatives(norm, x, g, h):
    x = x.clone().requires_grad_()
    y = norm(x)
    first = mg.autograd.grad(y, [x, norm.weight, norm.bias], g, create_graph=True)
    second = mg.autograd.grad((first[0] * h).sum(), [x, norm.weight])
    return y.detach(), first[0].detach(), second[0], [first[1].detach(), first[2].detach(), second[1]]
x = 5 + 3 * mg.randn(24, 3, 2, dtype=mg.float64)
one, sync = nn.BatchNorm1d(3, dtype=mg.float64), nn.SyncBatchNorm(3, dtype=mg.float64)
with mg.no_grad():
    for m in (one, sync):
        m.weight.copy_(mg.tensor([0.5, 2.0, -1.0])), m.bias.copy_(mg.tensor([1.0, 0.0, 2.0]))
for momentum in (0.1, None):
    one.momentum = sync.momentum = momentum
    *whole, sums = derivatives(one, x, G, H)
    *part, shares = derivatives(sync, x[mine], G[mine], H[mine])
    near(part, [t[mine] for t in whole])
    for t in shares:
        dist.all_reduce(t)
    near(shares, sums)
    near(sync.state_dict(), one.state_dict())
sync.eval(), one.eval()
near([sync(x[mine])], [one(x)[mine]])
half = nn.SyncBatchNorm(3)(x[mine].half())
assert half.dtype == mg.float16 and float((half.double() - nn.BatchNorm1d(3)(x.float())[mine].double()).abs().max()) < 2e-3
large = 1e4 + mg.randn(24, 3, dtype=mg.float32)                         # no E[x^2] - E[x]^2
near([nn.SyncBatchNorm(3)(large[mine])], [nn.BatchNorm1d(3, dtype=mg.float64)(large.double())[mine]], 1e-3)
""")


def test_sync_batch_norm_in_one_process():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm1d(4, affine=False, eps=0.1)))
    model.eval()
    made = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert made is model and [type(m).__name__ for m in model.modules()][2:] == ["SyncBatchNorm", "Sequential", "SyncBatchNorm"]
    assert not made[1].training and made[2][0].eps == 0.1 and not made[2][0].affine
    norm, plain, x = nn.SyncBatchNorm(3), nn.BatchNorm1d(3), mg.randn(6, 3, 5)
    assert mg.equal(norm(x), plain(x)) and mg.equal(norm.running_var, plain.running_var)
    with pytest.raises(ValueError, match="expected at least 2D input"):
        norm(mg.randn(3))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        norm(mg.randn(1, 3))


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("n, size", [(23, 4), (24, 4), (3, 4), (7, 1)])
def test_samplers_cover_every_sample_once(n, size, drop):
    shares = []
    for rank in range(size):
        sampler = data.distributed.DistributedSampler(range(n), size, rank, drop_last=drop, seed=3)
        sampler.set_epoch(2)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler) == (n // size if drop else -(-n // size)) and list(sampler) == shares[-1]
        sampler.set_epoch(3)
        assert n < 7 or list(sampler) != shares[-1]
    seen = sorted(i for share in shares for i in share)
    assert len(set(seen)) == (n // size * size if drop else n) and set(seen) <= set(range(n))
    assert drop or n % size or seen == list(range(n))


def test_a_wrong_rank():
    with pytest.raises(ValueError, match=r"Invalid rank 2, rank should be in the interval \[0, 1\]"):
        data.distributed.DistributedSampler(range(4), 2, 2)


SAME = """
DDP, share = nn.parallel.DistributedDataParallel, mg.full((2, 3), 1.0 + rank)
mean = 1 + (size - 1) / 2
def averaged(net, *want):
    for p, value in zip([p for p in net.parameters() if p.requires_grad], want, strict=True):
        assert mg.equal(p.grad, mg.full_like(p, value)), (rank, p.grad, value)
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
    def forward(self, x, which):
        return self.a(x) if which == 0 else self.b(x) if which == 1 else x * 2
"""


@pytest.mark.parametrize("n", [1, 2])
def test_every_backward_averages(passes, n):
    """Also the second one through a graph, and that of a forward pass before the last one."""
    passes(n, SAME + """
net = DDP(nn.Linear(3, 2, bias=False))
y = net(share).sum()
y.backward(retain_graph=True)
y.backward()
averaged(net, 2 * 2 * mean)
net.zero_grad()
a, b = net(share).sum(), net(share).sum()
a.backward()
averaged(net, 2 * mean)
b.backward()
averaged(net, 2 * 2 * mean)
""")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_gradients_are_added_in_float32(passes, dtype):
    """1 + 2^-9 of two processes, and -1 of a third: in half precision the small part would be lost."""
    passes(3, f"""
w = nn.Linear(1, 1, bias=False, dtype=mg.{dtype})
net = nn.parallel.DistributedDataParallel(w)
g = mg.tensor([[256.0, 1.0, -256.0][rank]], dtype=mg.{dtype})
for _ in range(2):
    net.zero_grad()
    (net(mg.ones(1, 1, dtype=mg.{dtype})) * g).sum().backward()
    assert w.weight.grad.dtype == mg.{dtype} and w.weight.grad.item() == mg.tensor(1 / 3, dtype=mg.{dtype}).item(), w.weight.grad
""")


def test_several_forward_passes_before_one_backward_with_unused_parameters(passes):
    passes(2, SAME + """
from dataclasses import dataclass
net = DDP(Branches(), find_unused_parameters=True)
net(share, 0)                                           # no backward
net(share, 0).sum().backward()
averaged(net, 2 * mean, 0.0)
net.zero_grad()
(net(share, 0).sum() + net(share, 1).sum()).backward()
averaged(net, 2 * mean, 2 * mean)
net.zero_grad()
y = net(share, rank)                                    # other ones in each process
y.sum().backward(retain_graph=True)
y.sum().backward()
averaged(net, 2.0, 4.0)
net.zero_grad()
y = net(share, 2 * rank)                                # none in process 1
if not rank:
    y.sum().backward()
averaged(net, 1.0, 0.0)
@dataclass
class Out:
    y: mg.Tensor
class Wrapped(Branches):
    def forward(self, x):
        return Out(self.a(x))
net = DDP(Wrapped(), find_unused_parameters=True)
net(share).y.sum().backward()
averaged(net, 2 * mean, 0.0)
""")


def test_a_gradient_that_comes_twice_raises(passes):
    passes(2, SAME + """
net = DDP(Branches())
a, b = net(share, 0), net(share, 1)
a.sum().backward(retain_graph=True)
try:
    a.sum().backward()
    assert False
except RuntimeError as error:
    assert "a second gradient came for a.weight before all others had come" in str(error), error
""")


def test_a_copy_averages_too(passes):
    passes(2, SAME + """
import copy, pickle
net = DDP(nn.Linear(3, 2, bias=False))
for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
    made(share).sum().backward()
    averaged(made, 2 * mean)
assert net.module.weight.grad is None
if not rank:
    copy.deepcopy(net)                                      # in one process only
net(share).sum().backward()
averaged(net, 2 * mean)
""")


def test_sync_batch_norm_with_a_process_without_samples(passes):
    """To second order; the last process has nothing, and takes part in backward."""
    passes(3, SHARE + """
x = 5 + mg.randn(24, 3, 2, dtype=mg.float64)
mine = slice(rank * 12, rank * 12 + 12)
def grads(m, x, w):
    x = x.clone().requires_grad_()
    g, = mg.autograd.grad((m(x).square() * w).sum(), x, create_graph=True)
    h, = mg.autograd.grad((g * w).sum(), x)
    return g, h
one, sync = nn.BatchNorm1d(3, dtype=mg.float64), nn.SyncBatchNorm(3, dtype=mg.float64)
w = mg.randn(24, 3, 2, dtype=mg.float64)
part, whole = grads(sync, x[mine], w[mine]), grads(one, x, w)
if rank < 2:
    near(part, [t[mine] for t in whole])
near(sync.state_dict(), one.state_dict())
few = nn.SyncBatchNorm(3)                               # one value in all processes: no variance, but no nan either
few(mg.ones(int(rank == 0), 3))
assert bool(few.running_var.isfinite().all())
alone = nn.SyncBatchNorm(3, affine=False, track_running_stats=False).eval()
if rank == 0:                                           # in evaluation each process is on its own
    assert mg.equal(alone(mg.arange(6.0).reshape(2, 3)), nn.BatchNorm1d(3, affine=False)(mg.arange(6.0).reshape(2, 3)))
try:
    nn.SyncBatchNorm(1, track_running_stats=False)(mg.ones(2, 3))
    assert False
except RuntimeError as error:
    assert "weight must have one value per channel (dimension 1 of x)" in str(error), error
""")


def test_shared_modules_stay_shared_when_they_are_converted():
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(norm, nn.ReLU(), norm, nn.Sequential(norm))
    made = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(made[0]) is nn.SyncBatchNorm and made[0] is made[2] is made[3][0] and made[0].weight is norm.weight


def test_under_pytorchs_names(mpi, tmp_path):
    (tmp_path / "train.py").write_text("""
import torch, torch.distributed as dist, torch.nn as nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
dist.init_process_group("mpi")
torch.manual_seed(0)
data = TensorDataset(torch.arange(12.0).reshape(12, 1), torch.ones(12, 1))
net = DDP(nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
sampler = DistributedSampler(data)
for epoch in range(3):
    sampler.set_epoch(epoch)
    for x, y in DataLoader(data, 3, sampler=sampler):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
for p in net.state_dict().values():
    first = p.clone()
    dist.broadcast(first, 0, group=dist.group.WORLD)
    assert torch.equal(first, p)
dist.barrier()
print("at the end", dist.get_rank())
dist.destroy_process_group()
""")
    ran = mpi(2, "-m", "minigrad.as_torch", str(tmp_path / "train.py"), script=True)
    assert ran.returncode == 0 and ran.stdout.count("at the end") == 2, ran.stdout + ran.stderr
