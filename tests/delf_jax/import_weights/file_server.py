"""A real HTTP server on this machine that breaks off, forgets ranges or changes its files as a test wants."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves files from memory.

    Attributes:
        address: where it listens.
        files: {path without the slash: content}; may be changed while it runs.
        cuts: bytes after which the next answers break off, one entry an answer.
        statuses: statuses that the next answers have instead of a file.
        knows_ranges: whether Range headers are honoured.
        requests: (path, value of the Range header) of every request so far.
        bytes_sent: body bytes sent so far.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.address = ""
        self.files = files
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.knows_ranges = True
        self.requests: list[tuple[str, str | None]] = []
        self.bytes_sent = 0


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Runs a server in a thread until the block ends."""
    state = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append((self.path[1:], self.headers["Range"]))
            if state.statuses:
                return self.send_error(state.statuses.pop(0))
            content = state.files.get(self.path[1:])
            if content is None:
                return self.send_error(404)
            mark, start = f'"{hash(content)}"', 0
            asked = self.headers["Range"] if state.knows_ranges else None
            if asked and self.headers["If-Range"] in (None, mark):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("ETag", mark)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            body = body[: state.cuts.pop(0)] if state.cuts else body
            state.bytes_sent += len(body)
            self.wfile.write(body)
            self.close_connection = True
            return None

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
