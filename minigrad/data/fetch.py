"""`download` fetches a file, `unpack` takes files out of an archive. A file appears under its name only when complete.

A download is written to `NAME.part` in the same folder, which is locked meanwhile: another download of the same path
waits for it. Beside it, `NAME.etag` tells which version of which address the part belongs to. An interrupted download
is continued by an HTTP range request, if the server still has that version; a part of unknown origin only where a
checksum will tell whether it fits. When the file is complete and its checksum is right, it gets its own name.
"""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from ..io import replacing

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
    ValueError. If no mirror answers, ConnectionError lists the answer of each. Several threads or processes may
    download the same path at once: one fetches it, the others wait.
    """
    from http.client import HTTPException  # network and archive modules are slow to import: only when needed

    place = Path(path)
    if _present(place, md5, sha256):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    said = []
    with _part(place) as part:
        if _present(place, md5, sha256):            # by another download, while this one waited
            part.drop()
            return place
        for mirror in [url] if isinstance(url, str) else url:
            try:
                resumed = _fetch(mirror, part, md5 is not None or sha256 is not None, progress)
                found = _digest(part.path, md5, sha256)
                if found is not None and resumed:       # the part was of another version of the file: start again
                    part.begin("", "")
                    _fetch(mirror, part, False, progress)
                    found = _digest(part.path, md5, sha256)
            except (OSError, HTTPException) as error:           # URLError and timeouts are OSErrors
                said.append(f"{mirror}: {error}")
                continue
            if found is not None:
                part.drop()
                raise ValueError(f"[download] what {mirror} sent is not the file: expected {found[0]}, found "
                                 f"{found[1]}; it was thrown away")
            os.replace(part.path, place)
            part.etag.unlink(missing_ok=True)
            return place
        kept = "; what has come so far is kept: call again to go on" if part.size() else ""
        if not kept:
            part.drop()
    raise ConnectionError(f"[download] could not fetch {place.name} to {place.parent}; " + "; ".join(said) + kept)


def _present(place: Path, md5: str | None, sha256: str | None) -> bool:
    """Whether the file is there. ValueError if it is, but with another checksum."""
    if not place.exists():
        return False
    found = _digest(place, md5, sha256)
    if found is not None:
        raise ValueError(f"[download] {place} is there, but its checksum is wrong: expected {found[0]}, "
                         f"found {found[1]}; move it away and download again")
    return True


class _Part:
    """NAME.part, open and locked, and NAME.etag beside it: the address and the version of what the part holds."""

    def __init__(self, place: Path, file: IO[bytes]) -> None:
        self.path, self.etag = _beside(place)
        self.place, self.file = place, file

    def size(self) -> int:
        self.file.flush()
        return os.fstat(self.file.fileno()).st_size

    def version(self, url: str) -> str:
        """The version of the file that the part is of; "" if it is not known, or not of `url`."""
        try:
            known = json.loads(self.etag.read_text())
            return str(known["version"]) if known["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def begin(self, url: str, version: str) -> None:
        """Empties the part, and notes what comes now."""
        self.etag.unlink(missing_ok=True)
        self.file.truncate(0)
        if version:
            with replacing(self.etag) as note:
                note.write(json.dumps({"url": url, "version": version}).encode())

    def drop(self) -> None:
        """Removes both files."""
        self.path.unlink(missing_ok=True)
        self.etag.unlink(missing_ok=True)


def _beside(place: Path) -> tuple[Path, Path]:
    return place.with_name(place.name + ".part"), place.with_name(place.name + ".etag")


@contextmanager
def _part(place: Path) -> Iterator[_Part]:
    """The part of `place`, locked. What stands there and is no plain file, such as a link, is removed."""
    path, _ = _beside(place)
    while True:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
        with open(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)            # ends when the file is closed, also if the process is killed
            mine = os.fstat(file.fileno())
            try:
                there = os.lstat(path)
            except FileNotFoundError:
                there = None
            if stat.S_ISREG(mine.st_mode) and there is not None and os.path.samestat(mine, there):
                yield _Part(place, file)
                return
        # else another download finished or removed it while this one waited


def _version(headers: Any) -> str:
    """What tells the version of a file: the ETag, or when it was modified; "" where that does not tell its bytes."""
    from email.utils import parsedate_to_datetime

    tag: str = headers["ETag"] or ""
    if tag and not tag.startswith("W/"):            # a weak one may stand for several versions
        return tag
    modified: str = headers["Last-Modified"] or ""
    try:                                            # in the minute before, the file may have changed twice
        settled = (parsedate_to_datetime(headers["Date"]) - parsedate_to_datetime(modified)).total_seconds() >= 60
    except (TypeError, ValueError):
        return ""
    return modified if settled else ""


def _total(headers: Any, start: int) -> int | None:
    """The size of the whole file, of which an answer sends what follows `start`; None if it does not tell."""
    whole = (headers["Content-Range"] or "").rpartition("/")[2]
    if start and whole.isdecimal():
        return int(whole)
    told = headers["Content-Length"]
    if told is None:
        return None
    if not told.strip().isdecimal():
        raise ConnectionError(f"the server sent the header Content-Length: {told[:40]}")
    return start + int(told)


def _fetch(url: str, part: _Part, checked: bool, progress: bool) -> bool:
    """Fetches the whole file to the part; returns whether what an earlier call fetched is a piece of it.

    `checked` tells that a checksum will show whether the pieces fit together.
    """
    import urllib.error
    import urllib.request

    version = part.version(url)
    start = part.size() if version or checked else 0
    headers = {"User-Agent": "minigrad", **({"Range": f"bytes={start}-"} if start else {}),
               **({"If-Range": version} if start and version else {})}
    try:
        answer: Any = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:             # the server has no bytes after `start`
            if checked and (error.headers["Content-Range"] or "").rpartition("/")[2] == str(start):
                return True                         # the part is complete
            part.begin("", "")
            return _fetch(url, part, False, progress)
        raise
    with answer:
        if answer.status == 206:
            sent = answer.headers["Content-Range"] or "unknown"
            tells = [answer.headers[name] for name in ("ETag", "Last-Modified") if answer.headers[name]]
            if not start:
                raise ConnectionError(f"the server sent a range that was not asked for: {sent}")
            if not sent.startswith(f"bytes {start}-") or (version and tells and version not in tells):
                part.begin("", "")                  # another range, or of another version
                return _fetch(url, part, False, progress)
        else:
            start = 0                               # the server sends the whole file
        total = _total(answer.headers, start)
        if not start:
            part.begin(url, _version(answer.headers))
        have = part.file.seek(0, os.SEEK_END)
        with _Bar(progress, part.place.name, total, start) as bar:
            while chunk := answer.read(_CHUNK):
                part.file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
        part.file.flush()
        os.fsync(part.file.fileno())
    if total is not None and have != total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")
    return start > 0


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
    with replacing(place) as file:
        have = 0
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            have += len(chunk)
        if have != size:
            _broken(archive, EOFError(f"{place.name} ends after {have:,} of {size:,} bytes"))
