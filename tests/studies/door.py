"""A door before an MLflow server, which can be shut, refuse, or be slow to open."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_KEPT = ("Content-Type", "Accept")


class Door:
    """Forwards every request to a server at a port of this machine, unless told otherwise.

    Attributes:
        uri: address of the door.
        state: "open"; "shut": hangs up; "forbidden": answers 403, as MLflow does to names it does not know.
        delay_s: before each answer.
        logged: set once metrics have come by.
        hung_up: set once somebody has found it shut.
    """

    def __init__(self, port: int) -> None:
        self.state, self.delay_s = "open", 0.0
        self.logged, self.hung_up = threading.Event(), threading.Event()
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                if self.path.endswith("/log-batch"):
                    door.logged.set()
                if door.state == "shut":
                    door.hung_up.set()
                    self.close_connection = True
                    return
                time.sleep(door.delay_s)
                status, kind, answer = 403, "text/plain", b"Invalid Host header"
                if door.state == "open":
                    headers = {name: self.headers[name] for name in _KEPT if name in self.headers}
                    inner = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    try:
                        inner.request(self.command, self.path, body, headers)
                        reply = inner.getresponse()
                        status, answer = reply.status, reply.read()
                        kind = reply.getheader("Content-Type", "text/plain")
                    except OSError:  # the server is gone
                        self.close_connection = True
                        return
                    finally:
                        inner.close()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
