"""``download`` and ``unpack``: a file from the network, and files out of an archive, complete or not at all.

A download goes to ``NAME.part`` beside its place. What an interrupted one left there is gone on with (an HTTP range request); when it
is complete and its checksum is right, it is moved into place, so that a file under its own name is always a whole one.
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
    """tqdm's progress bar if it is installed and somebody looks at a terminal; else nothing."""

    def __init__(self, show: bool, name: str, total: int | None, start: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            show = False
        self.bar = tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=None) if show else None

    def __enter__(self) -> _Bar:
        return self

    def update(self, n: int) -> None:
        if self.bar is not None:
            self.bar.update(n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def download(url: str | Sequence[str], path: str | os.PathLike, *, md5: str | None = None, sha256: str | None = None,
             progress: bool = True) -> Path:
    """Fetches ``url`` (or the first of several mirrors that answers) to ``path``, and returns the path.

    The folder is made if need be. A file that is there already is left alone if its checksum is right (or none is given); else it
    raises ValueError and is left for its owner to look at. An interrupted download is gone on with at the next call. A download whose
    checksum is wrong raises ValueError and is thrown away. If no mirror answers, ConnectionError says what each of them said.
    """
    from http.client import HTTPException  # network and archives are imported when they are needed

    place = Path(path)
    if place.exists():
        found = _digest(place, md5, sha256)
        if found is not None:
            raise ValueError(f"[download] {place} is there, but its checksum is wrong: expected {found[0]}, found {found[1]}; "
                             "move it away and download again")
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    said = []
    for mirror in [url] if isinstance(url, str) else url:
        try:
            part, resumed = _fetch(mirror, place, progress)
            found = _digest(part, md5, sha256)
            if found is not None and resumed:               # begun elsewhere, or the file changed meanwhile: once more from the start
                part.unlink()
                part, _ = _fetch(mirror, place, progress)
                found = _digest(part, md5, sha256)
        except (OSError, HTTPException) as error:           # URLError and timeouts are OSErrors
            said.append(f"{mirror}: {error}")
            continue
        if found is not None:
            part.unlink()
            raise ValueError(f"[download] what {mirror} sent is not the file: expected {found[0]}, found {found[1]}; it was thrown away")
        os.replace(part, place)
        return place
    raise ConnectionError(f"[download] could not fetch {place.name} to {place.parent}; " + "; ".join(said) +
                          "; what has come so far is kept: call again to go on")


def _fetch(url: str, place: Path, progress: bool) -> tuple[Path, bool]:
    """The whole file as NAME.part, and whether it was begun earlier."""
    import urllib.error
    import urllib.request

    part = place.with_name(place.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "minigrad", **({"Range": f"bytes={start}-"} if start else {})})
    try:
        answer: Any = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:                     # nothing behind `start`: it is complete, or another file's
            if (error.headers.get("Content-Range") or "").rpartition("/")[2] == str(start):
                return part, True
            part.unlink()
            return _fetch(url, place, progress)
        raise
    with answer:
        resumed = start > 0 and answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-")
        if not resumed:
            start = 0                                       # the server sends everything
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


def unpack(archive: str | os.PathLike, members: Mapping[str, str | os.PathLike]) -> None:
    """Writes the named members of a tar archive to the given paths. Nothing else of the archive is looked at: no path or link in it
    decides where anything is written. Each file appears complete or not at all."""
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
        if isinstance(error, OSError) and error.filename is not None:       # of the file system, not of the archive
            raise
        _broken(archive, error)
    if wanted:
        raise ValueError(f"[unpack] {archive} lacks {', '.join(wanted)}")


def _broken(archive: Any, error: Any) -> NoReturn:
    raise ValueError(f"[unpack] {archive} is truncated or not a tar archive: {str(error).partition(':')[0]}; download it again") from error


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
