"""A small engine for the launcher's tests: it loads for a while, serves, counts, and ends.

Behaviour comes from environment variables that start with TEST_.
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

setting = {k: v for k, v in os.environ.items() if k.startswith("TEST_")}
running = 0
sick = 0.0  # health answers still to be bad
asked = 0  # health answers given
lock = threading.Lock()
released = threading.Event()
loaded_at = time.monotonic() + float(setting.get("TEST_LOAD", 0))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global running, sick, asked, loaded_at  # noqa: PLW0603 - a test program
        if self.path == "/health":
            asked += 1
            well = sick <= 0 and time.monotonic() >= loaded_at
            sick -= 1
            self.answer(200 if well else 503, b"")
        elif self.path == "/loaded":
            loaded_at = time.monotonic()
            self.answer(200, b"")
        elif self.path == "/asked":
            self.answer(200, str(asked).encode())
        elif self.path == "/metrics":
            self.answer(200, f'# TYPE run gauge\nrun{{model="m"}} {running}.0\n'.encode())
        elif self.path == "/env":
            self.answer(200, json.dumps({**os.environ, **setting}).encode())
        elif self.path == "/parent":
            self.answer(200, parent().encode())
        elif self.path == "/orphan":
            subprocess.run(["sh", "-c", "sleep 0.1 & echo $! > /dev/null"], check=True)
            self.answer(200, b"")
        elif self.path == "/busy":
            with lock:
                running += 1
            released.wait()
            with lock:
                running -= 1
            self.answer(200, b"done")
        elif self.path == "/release":
            released.set()
            self.answer(200, b"")
        elif self.path.startswith("/sick="):
            sick = float(self.path.partition("=")[2])
            self.answer(200, b"")
        elif self.path == "/crash":
            os._exit(7)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def parent():
    """Return what the engine can read of the launcher's environment."""
    try:
        with open(f"/proc/{os.getppid()}/environ") as file:
            return file.read()
    except OSError as error:
        return type(error).__name__


def stop(*_):
    print("engine stops", flush=True)
    os._exit(int(setting.get("TEST_STOP_CODE", 0)))


signal.signal(signal.SIGTERM, signal.SIG_IGN if "TEST_STUBBORN" in setting else stop)
signal.signal(signal.SIGUSR1, lambda *_: print("engine got SIGUSR1", flush=True))
print("engine starts", flush=True)
if "TEST_EXIT" in setting:
    sys.exit(int(setting["TEST_EXIT"]))
time.sleep(float(setting.get("TEST_START", 0)))
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["GLOWPLUG_PORT"])), Handler)
server.daemon_threads = True
time.sleep(float(setting.get("TEST_HANG", 0)))  # accepts by the kernel, answers nothing
setting["TEST_AWAKE"] = str(time.time())
server.serve_forever()
