"""`download` fetches a file, `unpack` takes files out of an archive. A file appears under its name only when complete.

A download is written to `NAME.part` in the same folder. An interrupted download is continued by an HTTP range
request. When it is complete and its checksum is right, it gets its own name.
"""
from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_CHUNK = 1 << 18
_TIMEOUT = 60       # seconds without a byte


class _Bar:
    """tqdm's progress bar, if tqdm is installed and the output is a terminal; else no bar."""

    def __init__(self, show: bool, name: str, total: int | None, start: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            show = False
        self.bar: Any = None
        if show:
            self.bar = tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=None)

    def __enter__(self) -> _Bar:
        return self

    def update(self, n: int) -> None:
        if self.bar is not None:
            self.bar.update(n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def download(url: str | Sequence[str], path: str | os.PathLike[str], *, md5: str | None = None,
             sha256: str | None = None, progress: bool = True) -> Path:
    """Fetches a file to `path`, and returns the path. The folder is made if it is missing.

    url          the address, or several: mirrors, which are tried in order until one answers
    md5, sha256  the checksums the file must have, in hex
    progress     shows a progress bar in a terminal, if tqdm is installed

    A file that exists is not fetched again. If its checksum is wrong, ValueError is raised and the file stays as it is.
    An interrupted download is continued by the next call. A download with a wrong checksum is deleted and raises
    ValueError. If no mirror answers, ConnectionError lists the answer of each.
    """
    from http.client import HTTPException  # network and archive modules are slow to import: only when needed

    place = Path(path)
    if place.exists():
        found = _digest(place, md5, sha256)
        if found is not None:
            raise ValueError(f"[download] {place} is there, but its checksum is wrong: expected {found[0]}, "
                             f"found {found[1]}; move it away and download again")
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    said = []
    for mirror in [url] if isinstance(url, str) else url:
        try:
            part, resumed = _fetch(mirror, place, progress)
            found = _digest(part, md5, sha256)
            if found is not None and resumed:       # the part was of another version of the file: start again
                part.unlink()
                part, _ = _fetch(mirror, place, progress)
                found = _digest(part, md5, sha256)
        except (OSError, HTTPException) as error:           # URLError and timeouts are OSErrors
            said.append(f"{mirror}: {error}")
            continue
        if found is not None:
            part.unlink()
            raise ValueError(f"[download] what {mirror} sent is not the file: expected {found[0]}, found {found[1]}; "
                             "it was thrown away")
        os.replace(part, place)
        return place
    raise ConnectionError(f"[download] could not fetch {place.name} to {place.parent}; " + "; ".join(said) +
                          "; what has come so far is kept: call again to go on")


def _fetch(url: str, place: Path, progress: bool) -> tuple[Path, bool]:
    """The whole file as NAME.part, and whether an earlier call fetched a part of it."""
    import urllib.error
    import urllib.request

    part = place.with_name(place.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "minigrad", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer: Any = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:             # the server has no bytes after `start`
            if (error.headers.get("Content-Range") or "").rpartition("/")[2] == str(start):
                return part, True                   # the part is complete
            part.unlink()
            return _fetch(url, place, progress)
        raise
    with answer:
        sent = answer.headers.get("Content-Range") or ""
        resumed = start > 0 and answer.status == 206 and sent.startswith(f"bytes {start}-")
        if not resumed:
            start = 0                               # the server sends the whole file
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        have = start
        with open(part, "ab" if resumed else "wb") as file, _Bar(progress, place.name, total, start) as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have != total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")
    return part, resumed


def _digest(path: Path, md5: str | None, sha256: str | None) -> tuple[str, str] | None:
    """(expected, found) if a checksum is wrong, else None."""
    for name, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None:
            digest = hashlib.new(name, usedforsecurity=False)
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            if digest.hexdigest() != expected.lower():
                return f"{name} {expected}", f"{digest.hexdigest()} ({path.stat().st_size:,} bytes)"
    return None


def unpack(archive: str | os.PathLike[str], members: Mapping[str, str | os.PathLike[str]]) -> None:
    """Writes members of a tar archive to files: `members` is {name in the archive: path}.

    Only `members` says where files are written, never a path or a link in the archive. Each file appears complete or
    not at all. ValueError if the archive is damaged, lacks a member, or if a member is not a regular file.
    """
    import tarfile

    wanted = dict(members)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name not in wanted:
                    continue
                source = tar.extractfile(member) if member.isreg() else None
                if source is None:
                    raise ValueError(f"[unpack] {member.name} in {archive} must be a regular file")
                _write_whole(Path(wanted.pop(member.name)), source, member.size, archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:   # from the file system, not from the archive
            raise
        _broken(archive, error)
    if wanted:
        raise ValueError(f"[unpack] {archive} lacks {', '.join(wanted)}")


def _broken(archive: Any, error: Any) -> NoReturn:
    raise ValueError(f"[unpack] {archive} is truncated or not a tar archive: {str(error).partition(':')[0]}; "
                     "download it again") from error


def _write_whole(place: Path, source: Any, size: int, archive: Any) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(place.name + ".part")
    have = 0
    try:
        with open(part, "wb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
        if have != size:
            _broken(archive, EOFError(f"{place.name} ends after {have:,} of {size:,} bytes"))
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)
