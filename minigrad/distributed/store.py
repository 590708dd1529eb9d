"""Processes that find each other without MPI, and tell each other short texts: for the backend "nccl".

    init_process_group("nccl", init_method="tcp://HOST:PORT", world_size=n, rank=i)     HOST is that of process 0
    init_process_group("nccl", init_method="file:///PATH", world_size=n, rank=i)        a path that all see, no file yet
    init_process_group("nccl", init_method="env://")         MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK say it

Each process has two connections to process 0: one for texts, and one by which a thread learns that a process has died.
"""
from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from .agreement import compare

_PAUSE = 0.1                # seconds between two looks: for a connection, at the clock
_GREETING = 16              # bytes that a connection begins with: "talk RANK" or "watch RANK", and spaces


def method_of(init_method: str, size: int, rank: int) -> tuple[str, int, int]:
    """Where process 0 is found (tcp:// or file://), the number of processes and this one's. ValueError if one is
    missing."""
    if init_method == "env://":
        told = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")}
        missing = [name for name, value in told.items() if value is None]
        if missing:
            raise ValueError(f"[init_process_group] init_method='env://' needs the environment variables "
                             f"{', '.join(told)}; got no {', '.join(missing)}; set them, as a launcher does")
        init_method = f"tcp://{told['MASTER_ADDR']}:{told['MASTER_PORT']}"
        try:
            size, rank = int(told["WORLD_SIZE"] or ""), int(told["RANK"] or "")
        except ValueError:
            raise ValueError(f"[init_process_group] WORLD_SIZE and RANK are whole numbers; got {told['WORLD_SIZE']!r} "
                             f"and {told['RANK']!r}; set them, as a launcher does") from None
    try:
        parts = urlsplit(init_method)
        place = {"tcp": parts.port, "file": parts.path}.get(parts.scheme)
    except ValueError:                          # what is no port
        place = None
    if not place or not 0 <= rank < size:
        raise ValueError("[init_process_group] init_method is 'tcp://HOST:PORT', 'file:///PATH' or 'env://', with "
                         f"world_size and a rank below it; got {init_method!r}, world_size={size}, rank={rank}; pass "
                         "what is missing")
    return init_method, size, rank


class Store:
    """Process `rank` of `size`; `peers` has the host and number of each process."""

    def __init__(self, init_method: str, size: int, rank: int, seconds: float) -> None:
        self.rank, self.size, self.seconds = rank, size, seconds
        self.limit = time.monotonic() + seconds
        own = f"{socket.gethostname()} {os.getpid()}"
        self.talks, watches = self._listen(init_method) if rank == 0 else self._call(init_method)
        self.peers = [tuple(text.rsplit(" ", 1)) for text in self.texts(own, "init_process_group")]
        self.watches = watches
        self.watcher = Thread(target=self._watch, daemon=True)
        self.watcher.start()

    # ---- connections: of process 0 to each other one, of each other one to process 0, by rank ----

    def _left(self, what: str) -> float:
        left = self.limit - time.monotonic()
        if left <= 0:
            raise RuntimeError(f"[distributed] rank {self.rank} waited {self.seconds:.0f} s for {what}; pass a longer "
                               "`timeout` to init_process_group, or see where they are")
        return left

    def _listen(self, init_method: str) -> tuple[dict[int, Connection], dict[int, Connection]]:
        parts = urlsplit(init_method)
        with ExitStack() as opened:             # closes what has not become a Connection
            server = opened.enter_context(socket.create_server(("", parts.port or 0)))
            server.settimeout(_PAUSE)           # for one that has gone again; what it accepts has no timeout
            if parts.scheme == "file":
                temporary = Path(f"{parts.path}.{os.getpid()}")
                temporary.write_text(f"{socket.gethostname()} {server.getsockname()[1]}")
                temporary.replace(parts.path)
            found: dict[str, dict[int, socket.socket]] = {"talk": {}, "watch": {}}
            silent: list[Any] = []
            while sum(map(len, found.values())) < 2 * (self.size - 1):
                here = {0, *found["watch"]}
                left = self._left(f"ranks {', '.join([str(r) for r in range(self.size) if r not in here])}")
                for ready in wait([server, *silent], left):
                    if ready in silent:
                        silent.remove(ready)
                        self._meet(ready, found)                                                # type: ignore
                        continue
                    try:
                        silent.append(opened.enter_context(server.accept()[0]))
                    except OSError:
                        pass
            if parts.scheme == "file":
                Path(parts.path).unlink(missing_ok=True)
            talks, watches = [{r: Connection(s.detach()) for r, s in calls.items()} for calls in found.values()]
            return talks, watches

    def _meet(self, caller: socket.socket, found: dict[str, dict[int, socket.socket]]) -> None:
        """Puts a connection in its place. One that does not begin with a greeting is closed: any program may call."""
        try:
            kind, number = caller.recv(_GREETING).decode().split()
            place, rank = found[kind], int(number)
        except (OSError, ValueError, KeyError):
            caller.close()
            return
        if not 0 < rank < self.size or rank in place:
            raise RuntimeError(f"[init_process_group] each process has its own rank, below world_size={self.size}; got "
                               f"rank {rank} {'twice' if rank in place else 'from a process'} (the last from "
                               f"{caller.getpeername()[0]}); see what the launcher sets")
        place[rank] = caller

    def _call(self, init_method: str) -> tuple[dict[int, Connection], dict[int, Connection]]:
        made, last = [], ""
        for kind in ("talk", "watch"):
            while True:
                left = self._left(f"rank 0 at {init_method}{last}")
                try:
                    caller = socket.create_connection(_address(init_method), left)
                    caller.settimeout(None)     # with a timeout it does not block, as Connection needs it
                    caller.sendall(f"{kind} {self.rank}".ljust(_GREETING).encode())
                    break
                except (socket.gaierror, PermissionError) as error:
                    raise RuntimeError(f"[init_process_group] rank {self.rank} must reach rank 0 at {init_method}; got "
                                       f"{error}; see the name of the host, and what this user may read") from None
                except OSError as error:        # it is not there yet
                    last = f" ({error})"
                    time.sleep(_PAUSE)
            made.append(Connection(caller.detach()))
        return {0: made[0]}, {0: made[1]}

    # ---- texts ----

    def texts(self, text: str, call: str) -> list[str]:
        """What each process says; all must call it."""
        self.limit = time.monotonic() + self.seconds
        if self.rank:
            self._say(0, text, call)
            return list(json.loads(self._answers(self.talks, call)[0]))
        said = {0: text, **self._answers(self.talks, call)}
        answer = json.dumps([said[r] for r in range(self.size)])
        for rank in self.talks:
            self._say(rank, answer, call)
        return list(json.loads(answer))

    def _say(self, rank: int, text: str, call: str) -> None:
        try:
            self.talks[rank].send_bytes(text.encode())
        except OSError:
            raise _ended(rank, call) from None

    def _answers(self, talks: dict[int, Connection], call: str) -> dict[int, str]:
        """A text from each of these."""
        found: dict[int, str] = {}
        missing: dict[Any, int]
        talk: Any
        while missing := {talk: r for r, talk in talks.items() if r not in found}:
            self._left(f"ranks {', '.join(map(str, missing.values()))} in {call}")
            for talk in wait(missing, _PAUSE):
                rank = missing[talk]
                try:
                    found[rank] = talk.recv_bytes().decode()
                except (EOFError, OSError):
                    raise _ended(rank, call) from None
        return found

    def agree(self, call: str) -> None:
        """Returns when all processes are about to make the same call. RuntimeError in all of them if they are not."""
        if self.size > 1:
            compare(self.texts(call, call))

    # ---- the end ----

    def _watch(self) -> None:
        """In a thread: ends this process when another one has ended before it said so."""
        watches: dict[Any, int] = {watch: r for r, watch in self.watches.items()}
        while watches:
            for watch in wait(watches):
                rank = watches.pop(watch)
                try:
                    text = watch.recv_bytes().decode()                                          # type: ignore
                except (EOFError, OSError):
                    text = f"rank {rank} (process {self.peers[rank][1]})"
                if text:
                    self._end(text, watches)

    def _end(self, dead: str, others: Iterable[Connection]) -> None:
        for watch in others:
            try:
                watch.send_bytes(dead.encode())
            except OSError:
                pass
        print(f"[distributed] {dead} died; all processes end", file=sys.stderr, flush=True)
        os._exit(1)

    def abort(self) -> None:
        """Ends all processes: the others see that this one has."""
        sys.stderr.flush()
        os._exit(1)

    def close(self) -> None:
        """Ends the connections."""
        for watch in self.watches.values() if self.rank else ():
            watch.send_bytes(b"")
        if not self.rank:
            self.watcher.join(self.seconds)     # until all have said that they end
            for watch in self.watches.values():
                watch.send_bytes(b"")
        self.watcher.join(self.seconds)
        for made in (*self.talks.values(), *self.watches.values()):
            made.close()


def _ended(rank: int, call: str) -> RuntimeError:
    return RuntimeError(f"[distributed] all processes must take part in {call}; got the end of rank {rank}; see its "
                        "own error")


def _address(init_method: str) -> tuple[str, int]:
    parts = urlsplit(init_method)
    if parts.scheme == "tcp":
        return parts.hostname or "localhost", parts.port or 0
    host, port = Path(parts.path).read_text().split()
    return ("localhost" if host == socket.gethostname() else host), int(port)
