"""How processes meet without MPI, and what they say where one is wrong: threads of one process, or two processes."""
from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import started_python

import minigrad as mg
from minigrad import distributed as dist
from minigrad.distributed.store import Store, method_of

SECONDS = 30                # that a test may take


@pytest.fixture
def address():
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    return f"tcp://localhost:{port}"


@pytest.fixture
def thread():
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def called(address, greeting):
    """A connection to rank 0 by another program."""
    host, port = address[6:].split(":")
    for _ in range(50 * SECONDS):
        try:
            made = socket.create_connection((host, int(port)), SECONDS)
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    made.sendall(greeting)
    return made


TEXTS = """
import sys
from minigrad.distributed.store import Store
address, rank, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = Store(address, 2, rank, 20)
texts = store.texts(str(rank) * n, "t")
assert texts == ["0" * n, "1" * n]
store.close()
print("at the end")
"""


def begun(folder, address, rank, n):
    return started_python(folder, "-c", TEXTS, address, str(rank), str(n))


@pytest.mark.slow
def test_long_texts_among_connections_of_other_programs(address, tmp_path):
    ran = [begun(tmp_path, address, 0, 1_000_000)]
    others = [called(address, greeting) for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", b"x", b"\xff\xfe 1", b"talk one", b"tell 1", b"talk")]
    others.pop().close()
    ran.append(begun(tmp_path, address, 1, 1_000_000))
    try:
        said = [(p.communicate(timeout=2 * SECONDS)[0], p.returncode) for p in ran]
    finally:
        for p in ran:
            p.kill()
    assert said == [("at the end\n", 0)] * 2, said
    for other in others:
        other.close()


def test_a_silent_connection_does_not_hold_rank_0(address, thread):
    waits = thread(Store, address, 2, 0, 0.6)
    with called(address, b""), pytest.raises(RuntimeError, match="rank 0 waited 1 s for ranks 1; pass a longer"):
        waits.result(SECONDS)


@pytest.mark.parametrize("ranks, text", [([2], "below world_size=2; got rank 2 from a process"), ([0], "got rank 0 from a process"), ([-1], "got rank -1 from"),
                                         ([1, 1], r"got rank 1 twice \(the last from 127.0.0.1\); see what")])
def test_ranks_that_do_not_fit(address, thread, ranks, text):
    waits = thread(Store, address.replace("localhost", "127.0.0.1"), 2, 0, 5.0)
    others = [called(address.replace("localhost", "127.0.0.1"), f"talk {rank}".encode()) for rank in ranks]
    with pytest.raises(RuntimeError, match=text):
        waits.result(SECONDS)
    for other in others:                        # they need not wait
        with other:
            try:
                assert other.recv(1) == b""
            except ConnectionResetError:
                pass


def test_where_rank_0_is_not(address, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"rank 1 waited 1 s for rank 0 at tcp://localhost:\d+ \(\[Errno \d+\] Connection refused\); pass"):
        Store(address, 2, 1, 0.6)
    with pytest.raises(RuntimeError, match=r"for rank 0 at file:.*No such file"):
        Store(f"file://{tmp_path}/none", 2, 1, 0.3)
    with pytest.raises(RuntimeError, match=r"rank 1 must reach rank 0 at tcp://no.invalid:9; got \[Errno -\d+\] .*; see the name of the host"):
        Store("tcp://no.invalid:9", 2, 1, 5.0)
    def denied(*_):
        raise PermissionError(13, "Permission denied", "/meet")
    monkeypatch.setattr("minigrad.distributed.store._address", denied)
    with pytest.raises(RuntimeError, match=r"got \[Errno 13\] Permission denied: '/meet'; see"):
        Store("file:///meet", 2, 1, 5.0)


@pytest.mark.parametrize("ends", [0, 1])
def test_a_rank_that_has_ended(ends):
    from multiprocessing.connection import Connection
    ours, theirs = socket.socketpair()
    store = Store.__new__(Store)
    store.rank, store.size, store.seconds, store.talks = 1 - ends, 2, 5.0, {ends: Connection(ours.detach())}
    theirs.close()
    with pytest.raises(RuntimeError, match=rf"^\[distributed\] all processes must take part in a call; got the end of rank {ends}; see"):
        store.texts("text", "a call")


@pytest.mark.parametrize("method", ["tcp://host", "tcp://host:port", "tcp://host:99999", "tcp://host:0", "tcp://[1:5", "file://", "http://x:1", "host:12"])
def test_methods_that_name_no_place(method):
    with pytest.raises(ValueError, match=r"^\[init_process_group\] init_method is 'tcp://HOST:PORT', .*; got .*, world_size=2, rank=1; pass"):
        method_of(method, 2, 1)


def test_what_the_environment_says(monkeypatch):
    told = {"MASTER_ADDR": "host", "MASTER_PORT": "29500", "WORLD_SIZE": "4", "RANK": "3"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert method_of("env://", -1, -1) == ("tcp://host:29500", 4, 3)
    for name, value, text in (("RANK", "", "got '4' and ''; set"), ("RANK", "a", "got '4' and 'a'"), ("WORLD_SIZE", "", "got '' and '3'"),
                              ("MASTER_PORT", "", "got 'tcp://host:', world_size=4, rank=3"), ("RANK", "4", "a rank below it; got .*rank=4")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ValueError, match=rf"^\[init_process_group\] .*{text}"):
                method_of("env://", -1, -1)
    monkeypatch.delenv("RANK")
    with pytest.raises(ValueError, match="RANK; got no RANK; set them"):
        method_of("env://", -1, -1)


@pytest.mark.parametrize("backend, device", [("mpi", 0), ("mpi", "cuda"), ("mpi", "cuda:1"), ("nccl", "cpu"), ("nccl", mg.device("cpu"))])
def test_a_device_that_the_backend_does_not_know(backend, device):
    with pytest.raises(ValueError, match=rf"^\[init_process_group\] .*; got '{backend}' with device_id='{device}'; leave device_id out"):
        dist.init_process_group(backend, device_id=device)
