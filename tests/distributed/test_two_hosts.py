"""2 x 2 processes over TCP: two network namespaces, joined by a virtual cable, stand for two hosts."""
from __future__ import annotations

import os
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow
HOSTS = ("10.231.77.1", "10.231.77.2")

PROGRAM = """
spaces = [mg.zeros(1, dtype=mg.int64) for _ in range(size)]
dist.all_gather(spaces, mg.tensor([os.stat("/proc/self/ns/net").st_ino]))
spaces = [t.item() for t in spaces]
assert size == 4 and spaces[0] == spaces[1] != spaces[2] == spaces[3], spaces
mg.manual_seed(0)
x, y = mg.randn(16, 5, dtype=mg.float64), mg.randn(16, 1, dtype=mg.float64)
layers = [nn.Linear(5, 8, dtype=mg.float64), nn.BatchNorm1d(8, dtype=mg.float64), nn.Linear(8, 1, dtype=mg.float64)]
one = nn.Sequential(*layers)
copy = nn.Sequential(*[type(m)(*((m.in_features, m.out_features) if isinstance(m, nn.Linear) else (8,)), dtype=mg.float64) for m in layers])
copy.load_state_dict(one.state_dict())
net = nn.parallel.DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(copy))
mine = slice(4 * rank, 4 * rank + 4)
F.mse_loss(one(x), y).backward()
F.mse_loss(net(x[mine]), y[mine]).backward()
for p, q in zip(net.parameters(), one.parameters(), strict=True):
    assert float((p.grad - q.grad).abs().max()) < 1e-12
large = mg.full((1_000_003,), rank + 1.0)
dist.all_reduce(large)
assert bool((large == 10).all())
print("over TCP", rank, flush=True)
"""


def ip(*arguments: str) -> None:
    ran = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if ran.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {ran.stderr.strip()}")


@pytest.fixture
def spaces():
    """The names of two namespaces with the addresses `HOSTS`, and of the first one's end of the cable."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` (iproute2) to make network namespaces with")
    names, ends = [[f"mg{end}{os.getpid()}" for end in pair] for pair in ("ab", "xy")]
    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
            for name, end, host in zip(names, ends, HOSTS, strict=True):
                ip("-n", name, "addr", "add", f"{host}/24", "dev", end)
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", end, "up")
        except OSError as error:
            pytest.skip(f"this machine does not allow network namespaces: {error}")
        yield names, ends[0]
    finally:
        for name in made:
            ip("netns", "del", name)


def test_two_processes_on_each_of_two_hosts(mpi, spaces, tmp_path):
    (here, there), cable = spaces
    command = mpi.command(4, PROGRAM)
    if "HYDRA" not in subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout:
        pytest.skip("the launcher is not MPICH's, whose options this test knows")
    login = tmp_path / "login"                                  # in the place of ssh: [options] host command ...
    login.write_text(f"""#!/bin/sh
while case $1 in -*) true;; *) false;; esac; do shift; done
space={there}; [ $1 = {HOSTS[0]} ] && space={here}
shift
exec ip netns exec $space sh -c "$*"
""")
    login.chmod(0o755)
    options = ["-launcher", "ssh", "-launcher-exec", str(login), "-hosts", ",".join([f"{host}:2" for host in HOSTS]), "-iface", cable]
    ran = subprocess.run(["ip", "netns", "exec", here, command[0], *options, *command[1:]], capture_output=True, text=True, timeout=120,
                         env={**mpi.environment, "UCX_TLS": "tcp,self"}, cwd=tmp_path)     # no shared memory, which two hosts have not
    if "Destination is unreachable" in ran.stdout + ran.stderr:
        pytest.skip("this MPI's UCX finds no way over TCP between the namespaces")
    assert ran.returncode == 0 and ran.stdout.count("over TCP") == 4, ran.stdout + ran.stderr
