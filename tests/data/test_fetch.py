"""Downloads and archives. Everything is written here or served from this machine."""
from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest

from minigrad.data.fetch import download, unpack

RNG = np.random.default_rng(0)
CONTENT = RNG.integers(0, 256, 700_000, np.uint8).tobytes()
MD5, SHA = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


# ---- download ----

def test_download(server, tmp_path):
    server.files["/a"] = CONTENT
    place = download(server.url + "/a", tmp_path / "new" / "a.bin", md5=MD5, sha256=SHA)
    assert place.read_bytes() == CONTENT and [p.name for p in place.parent.iterdir()] == ["a.bin"]
    asked = len(server.asked)
    assert download(server.url + "/a", place, md5=MD5) == place and len(server.asked) == asked       # it is there
    place.write_bytes(b"mine")
    with pytest.raises(ValueError, match=rf"a\.bin is there, but its checksum is wrong: expected md5 {MD5}, found .*4 bytes"):
        download(server.url + "/a", place, md5=MD5)
    assert place.read_bytes() == b"mine"


def test_an_interrupted_download_goes_on(server, tmp_path):
    server.files["/a"], server.cut = CONTENT, 300_000
    place = tmp_path / "a.bin"
    with pytest.raises(ConnectionError, match="ended after 300,000 of 700,000 bytes.*call again"):
        download(server.url + "/a", place, sha256=SHA)
    assert not place.exists() and (tmp_path / "a.bin.part").stat().st_size == 300_000
    with pytest.raises(ConnectionError, match="ended after 600,000 of 700,000"):
        download(server.url + "/a", place, sha256=SHA)
    assert download(server.url + "/a", place, sha256=SHA).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"] and not (tmp_path / "a.bin.part").exists()


def test_a_server_that_cannot_go_on_starts_again(server, tmp_path):
    server.files["/a"], server.ranges = CONTENT, False
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    assert download(server.url + "/a", tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_what_was_left_is_another_file(server, tmp_path, left):
    server.files["/a"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(left)
    assert download(server.url + "/a", tmp_path / "a.bin", md5=MD5).read_bytes() == CONTENT


def test_what_was_left_is_complete(server, tmp_path):
    server.files["/a"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert download(server.url + "/a", tmp_path / "a.bin", md5=MD5).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_wrong_file_is_thrown_away(server, tmp_path):
    server.files["/a"] = b"<html>moved</html>"
    with pytest.raises(ValueError, match=rf"is not the file: expected sha256 {SHA}, found .*18 bytes.*thrown away"):
        download(server.url + "/a", tmp_path / "a.bin", sha256=SHA)
    assert not list(tmp_path.iterdir())


def begun(server, place, **headers):
    """A download that stopped after 300,000 bytes."""
    server.files["/a"], server.cut, server.headers = CONTENT, 300_000, headers
    with pytest.raises(ConnectionError, match="ended after 300,000 of 700,000"):
        download(server.url + "/a", place)
    server.cut = None
    assert place.with_name("a.bin.part").stat().st_size == 300_000


OLD = "Mon, 06 May 2024 10:00:00 GMT"


@pytest.mark.parametrize("headers", [{"ETag": '"one"'}, {"Last-Modified": OLD}, {"ETag": 'W/"one"', "Last-Modified": OLD}])
def test_a_download_without_a_checksum_goes_on_with_the_same_version(server, tmp_path, headers):
    place = tmp_path / "a.bin"
    begun(server, place, **headers)
    assert download(server.url + "/a", place).read_bytes() == CONTENT and server.asked == [None, "bytes=300000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize(("before", "after"), [
    ({"ETag": '"one"'}, {"ETag": '"two"'}), ({"Last-Modified": OLD}, {"Last-Modified": OLD.replace("06", "07")}),
    ({"ETag": 'W/"one"'}, {"ETag": 'W/"one"'}), ({}, {}), ({"ETag": '"one"'}, {"ETag": '"two"', "Content-Length": "700000"})])
def test_a_file_that_changed_on_the_server(server, tmp_path, before, after, conditions):
    place = tmp_path / "a.bin"
    begun(server, place, **before)
    server.files["/a"], server.headers, server.conditions = CONTENT[::-1], after, conditions
    assert download(server.url + "/a", place).read_bytes() == CONTENT[::-1]


def test_just_modified_is_no_version(server, tmp_path):
    from email.utils import formatdate
    place, now = tmp_path / "a.bin", {"Last-Modified": formatdate(usegmt=True)}
    begun(server, place, **now)
    server.files["/a"] = CONTENT[::-1]
    assert download(server.url + "/a", place).read_bytes() == CONTENT[::-1]


def test_parts_of_unknown_origin_are_not_trusted(server, tmp_path):
    server.files["/a"], server.headers = CONTENT, {"ETag": '"one"'}
    place, part = tmp_path / "a.bin", tmp_path / "a.bin.part"
    part.write_bytes(b"foreign")
    assert download(server.url + "/a", place).read_bytes() == CONTENT
    place.unlink()
    begun(server, place, ETag='"one"')
    server.files["/b"] = CONTENT[::-1]                              # the part is of another address
    assert download(server.url + "/b", place).read_bytes() == CONTENT[::-1]
    place.unlink()
    (tmp_path / "precious").write_bytes(b"mine")
    part.symlink_to("precious")                                     # a link is not written through
    assert download(server.url + "/a", place).read_bytes() == CONTENT
    assert (tmp_path / "precious").read_bytes() == b"mine" and sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "precious"]
    (tmp_path / "a.bin.etag").write_text("[garbage")
    place.unlink()
    part.write_bytes(b"foreign")
    assert download(server.url + "/a", place).read_bytes() == CONTENT


@pytest.mark.parametrize(("headers", "text"), [
    ({":status": "206", "Content-Range": "bytes 5-9/700000"}, "range that was not asked for: bytes 5-9/700000"), ({":status": "206"}, "not asked for: unknown"),
    ({"Content-Length": "abc"}, "Content-Length: abc"), ({"Content-Length": "-5"}, "Content-Length: -5")])
def test_answers_that_make_no_sense(server, tmp_path, headers, text):
    server.files["/a"], server.headers = CONTENT, headers
    with pytest.raises(ConnectionError, match=text):
        download(server.url + "/a", tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_another_range_than_was_asked_for(server, tmp_path):
    place = tmp_path / "a.bin"
    begun(server, place, ETag='"one"')
    server.headers = {"ETag": '"one"', "Content-Range": "bytes 299999-699998/700000"}
    with pytest.raises(ConnectionError, match="ended after|not asked"):          # this server never sends the whole
        server.headers[":status"] = "206"
        download(server.url + "/a", place)
    server.headers = {"ETag": '"one"'}
    assert download(server.url + "/a", place).read_bytes() == CONTENT


@pytest.mark.parametrize("sum", [None, MD5])
def test_several_downloads_of_one_path(server, tmp_path, sum):
    server.files["/a"] = CONTENT
    for round in range(5):
        place = tmp_path / f"{round}.bin"
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, place=place: download(server.url + "/a", place, md5=sum), range(4)))
        assert found == [place] * 4 and place.read_bytes() == CONTENT
    assert len(server.asked) == 5 and len(list(tmp_path.iterdir())) == 5


def test_mirrors(server, tmp_path):
    server.files["/b"] = CONTENT
    assert download([server.url + "/a", server.url + "/b"], tmp_path / "a.bin", md5=MD5).read_bytes() == CONTENT
    with pytest.raises(ConnectionError, match="/a: .*404.*; .*/c: .*404"):
        download([server.url + "/a", server.url + "/c"], tmp_path / "b.bin")


def test_without_tqdm(server, tmp_path):
    server.files["/a"] = CONTENT
    with mock.patch.dict("sys.modules", {"tqdm": None}):
        assert download(server.url + "/a", tmp_path / "a.bin").stat().st_size == len(CONTENT)


# ---- archives ----


def test_unpack_writes_only_what_was_asked_for(archive, tmp_path):
    archive(tmp_path / "a.tgz", {"../evil": b"1", "/tmp/evil": b"2", "d/good": b"good", "d/other": b"3"})
    unpack(tmp_path / "a.tgz", {"d/good": tmp_path / "out" / "g"})
    assert (tmp_path / "out" / "g").read_bytes() == b"good"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tgz", "g", "out"] and not (tmp_path.parent / "evil").exists()


def test_unpack_errors(archive, tmp_path):
    archive(tmp_path / "a.tgz", {"link": "/etc/passwd", "big": CONTENT})
    with pytest.raises(ValueError, match="link in .*a.tgz must be a regular file"):
        unpack(tmp_path / "a.tgz", {"link": tmp_path / "x"})
    with pytest.raises(ValueError, match="lacks nothing"):
        unpack(tmp_path / "a.tgz", {"nothing": tmp_path / "x"})
    (tmp_path / "b.tgz").write_bytes((tmp_path / "a.tgz").read_bytes()[:200_000])
    archive(tmp_path / "c.tar", {"big": CONTENT}, "w")
    (tmp_path / "d.tar").write_bytes((tmp_path / "c.tar").read_bytes()[:200_000])
    (tmp_path / "e.tgz").write_bytes(b"hello")
    for name in ("b.tgz", "d.tar", "e.tgz"):
        with pytest.raises(ValueError, match=f"{name} is truncated or not a tar archive.*download it again"):
            unpack(tmp_path / name, {"big": tmp_path / "x"})
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob("*.part"))
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "none.tgz", {"big": tmp_path / "x"})
