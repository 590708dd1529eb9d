"""Gradients averaged in memory that all processes of a host see, and where there is none."""
from __future__ import annotations

import numpy as np
import pytest

from minigrad.distributed.shared import Shared


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("elements", [0, 1, 7, 1000, 100_003])
def test_shares_make_the_mean_of_all_in_all(elements, size, dtype):
    """Added in the order of the ranks, to the bit; each share by whoever comes first."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(elements).astype(dtype) for _ in range(size)]
    want = arrays[0].copy()
    for a in arrays[1:]:
        want += a
    want *= np.dtype(dtype).type(1) / np.dtype(dtype).type(size)
    shares = [Shared(arrays, rank) for rank in range(size)]
    assert [s.share[0] for s in shares][1:] == [s.share[1] for s in shares][:-1] and shares[-1].share[1] == elements
    for rank in rng.permutation(size):
        shares[rank].average()
    assert all(a.tobytes() == want.tobytes() for a in arrays)


TRAINING = """
mg.manual_seed(0)
x, y = mg.randn(size * 4, 50), mg.randn(size * 4, 3)
net = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(50, 33), nn.Tanh(), nn.Linear(33, 3)), bucket_cap_mb=megabytes)
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
@mg.capture
def step(x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(net(x), y)
    loss.backward()
    optimizer.step()
    return loss
mine = slice(4 * rank, 4 * rank + 4)
for k in range(4):
    step(x[mine] + k, y[mine])
import hashlib
print("bits", hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest())
"""


@pytest.mark.slow
def test_with_and_without_shared_memory_the_bits_are_the_same(passes):
    """For two processes, whatever the buckets; without it where a system has none, where it is short, where the number of a process
    means another one in another container."""
    ways = {"shared": "megabytes = None", "small buckets": "megabytes = 1e-3", "none": "megabytes = None\nif rank: del os.memfd_create",
            "short": "megabytes = None\ndef no(*_): raise OSError('no space')\nif rank: os.posix_fallocate = no",
            "another file": "megabytes = None\nif rank: dist.group._group.peers[0] = dist.group._group.peers[1]"}
    found = {}
    for name, text in ways.items():
        shares = name in ("shared", "small buckets")
        said = passes(2, f"{text}{TRAINING}\nassert all((b.shared is not None) == {shares} for b in net._reducer.buckets)")
        found[name] = {line for line in said.splitlines() if line.startswith("bits")}
    assert len(set.union(*found.values())) == 1, {name: len(bits) for name, bits in found.items()}


@pytest.mark.slow
def test_a_captured_step_copies_no_gradient_of_a_product(passes):
    """The products of both weights write to the bucket, with shared memory and without."""
    for shared in (True, False):
        passes(2, f"""
from minigrad.core import fusion
counts, found = [], fusion.placed
def placed(*program):
    counts.append(len((at := found(*program))[1]))
    return at
fusion.placed, megabytes = placed, None
{'' if shared else 'del os.memfd_create'}
{TRAINING}
assert max(counts) == 2 and (net._reducer.buckets[0].shared is not None) == {shared}, counts
""")


@pytest.mark.slow
def test_memory_is_given_back(passes):
    passes(2, """
import gc
def mapped():
    gc.collect()
    return sum("memfd:minigrad" in line for line in open("/proc/self/maps"))
assert mapped() == 1                                        # where processes tell what they call
for _ in range(3):
    net = nn.parallel.DistributedDataParallel(nn.Linear(300, 300))
    net(mg.ones(1, 300)).sum().backward()
    assert mapped() == 3                                    # this process's and the other's, of the last net
del net
assert mapped() == 1
dist.destroy_process_group()
assert mapped() == 0
""")
