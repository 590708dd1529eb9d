"""A server of files on this machine, and archives."""
from __future__ import annotations

import http.server
import io
import tarfile
import threading

import pytest


class Server:
    """Serves `files` from 127.0.0.1; `cut` ends each answer after so many bytes, `ranges` is whether it can go on.

    `headers` are added to each answer, or replace what stands in it; `conditions` is whether If-Range is understood."""

    def __init__(self):
        self.files, self.cut, self.ranges, self.asked, owner = {}, None, True, [], self
        self.headers, self.conditions = {}, True

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = owner.files.get(self.path)
                wanted = self.headers.get("Range")
                owner.asked.append(wanted)
                if content is None:
                    return self.send_error(404)
                other = owner.conditions and self.headers.get("If-Range") not in (None, *owner.headers.values())
                start = int(wanted[6:-1]) if wanted and owner.ranges and not other else 0
                if start and start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                answer = {"Content-Length": str(len(content) - start)}
                if start:
                    answer["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                answer.update(owner.headers)
                self.send_response(int(answer.pop(":status", 206 if start else 200)))
                for name, value in answer.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[start:][:owner.cut])

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None                # a client that hangs up
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    s = Server()
    yield s
    s.close()


@pytest.fixture
def archive():
    """Writes a tar archive of `members`: bytes are files, strings the targets of links."""
    def write(path, members, mode="w:gz"):
        with tarfile.open(path, mode) as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                if isinstance(content, bytes):
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                else:
                    info.type, info.linkname = tarfile.SYMTYPE, content
                    tar.addfile(info)
    return write
