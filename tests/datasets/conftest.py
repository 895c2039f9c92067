"""Settings, servers and files for the tests of data sets."""

import http.server
import threading

import pytest


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch, tmp_path):
    """No data folder, no mirror, an empty cache, and no proxy between a test and its server."""
    monkeypatch.delenv("CNNKIT_DATA_DIR", raising=False)
    monkeypatch.delenv("CNNKIT_DATA_MIRROR", raising=False)
    monkeypatch.setenv("CNNKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Server:
    """An HTTP server on the loopback that answers from `pages` and remembers what was asked for.

    `pages[path]` is the body, or a pair (body, Content-Length to claim). Anything else is a 404.
    """

    def __init__(self):
        self.pages, self.asked = {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                if self.path not in outer.pages:
                    self.send_error(404)
                    return
                page = outer.pages[self.path]
                body, length = page if isinstance(page, tuple) else (page, len(page))
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self):
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()
