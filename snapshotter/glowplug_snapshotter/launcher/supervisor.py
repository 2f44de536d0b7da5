"""The launcher itself: one loop in the main thread takes events and moves from phase to phase.

Threads only report: the restore's story, the probe's findings, signals, ended children, requests
to drain. All decisions are made here, one event at a time.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from . import processes
from .config import Config, engine_environment
from .drain import Answer, Drain, listen
from .log import say, write_termination_message
from .probe import Probe
from .restoring import restore_in_child, restore_in_sidecar
from .state import RESTORING, STARTING, State

FORWARDED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH)
STOPPING = (signal.SIGTERM, signal.SIGINT)
KILL_AFTER = 10.0  # s from SIGTERM to SIGKILL for an engine or restore that is given up
LINGER = 0.2  # s for pollers to fetch the last state
FAILED = 1


class Supervisor:
    """One engine's life."""

    def __init__(self, config: Config, environ: dict[str, str]) -> None:
        self._config = config
        self._environ = environ
        self._state = State()
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._engine: int | None = None
        self._restorer: int | None = None
        self._probe: Probe | None = None
        self._deadline: float | None = None  # monotonic, for the start's next step
        self._bytes = 0
        self._exit: int | None = None  # set: the loop ends
        self._failing: int | None = None  # set: exit with it once the children are gone
        self._terminating = False  # the engine was told to end
        self._stop = threading.Event()
        self._stopping = False  # SIGTERM came: the engine ends after the drain
        self._drain = Drain()

    def run(self) -> int:
        """Restore, start, serve until the engine ends; return the container's exit code."""
        processes.become_init()
        processes.listen({*FORWARDED, *STOPPING, signal.SIGCHLD}, self._report("signal"))
        self._begin()
        from . import server  # slow to import: the restore is on its way meanwhile

        try:
            server.serve(self._state, self._config.launcher_port)
            listen(self._config.launcher_port, self._report("drain"))
        except OSError as error:
            self._fail(f"Port {self._config.launcher_port} cannot be used: {error}.")
        while self._exit is None:
            self._handle(*self._next())
        self._finish()
        return self._exit

    def _next(self) -> tuple[str, Any]:
        if self._deadline is None:
            return self._events.get()
        try:
            return self._events.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except queue.Empty:
            return "deadline", None

    def _handle(self, event: str, value: Any) -> None:
        handlers: dict[str, Callable[[Any], None]] = {
            "signal": self._on_signal,
            "restore": self._on_restore,
            "accepting": self._on_accepting,
            "healthy": self._on_healthy,
            "hung": self._on_hung,
            "drain": self._on_drain,
            "drained": self._on_drained,
            "deadline": self._on_deadline,
        }
        handlers[event](value)

    # The start: restore, engine, load

    def _begin(self) -> None:
        restore = self._config.restore
        if restore.mode == "none":
            self._start_engine()
            return
        self._state.begin("restore", RESTORING)
        self._expect()
        if restore.mode == "sidecar":
            restore_in_sidecar(restore.socket, self._stop, self._report("restore"))
            return
        try:
            self._restorer = restore_in_child(
                restore, self._config.model_dir, self._environ, self._report("restore")
            )
        except OSError as error:
            self._fail(f"The restore cannot be started: {error}.")

    def _on_restore(self, event: dict[str, Any]) -> None:
        if self._failing is not None or self._terminating or self._engine is not None:
            return
        if event["event"] == "progress":
            if event["done"] > self._bytes:
                self._bytes = event["done"]
                self._expect()
            self._state.progress(event["done"])
        elif event["event"] == "error":
            write_termination_message(event)
            self._fail(f"{event['reason']}: {event['message']}")
        elif event["event"] == "result":
            self._state.restored(event)
            for stage in event.get("stages", ()):
                self._state.hide_before_launch(stage)
            say("restored", bytes=event.get("bytes"), seconds=event.get("seconds"))
            self._start_engine()

    def _start_engine(self) -> None:
        if self._terminating:
            return
        self._state.begin("start", STARTING)
        command = self._config.command
        try:
            self._engine = processes.spawn(command, engine_environment(self._environ))
        except OSError as error:
            self._fail(f"The engine's command {command[0]!r} cannot be started: {error}.")
            return
        self._expect()
        self._probe = Probe(
            self._config.port,
            self._config.health_path,
            self._config.hang_timeout,
            on_accepting=lambda: self._events.put(("accepting", None)),
            on_healthy=lambda: self._events.put(("healthy", None)),
            on_hung=self._report("hung"),
        )
        self._probe.start()

    def _on_accepting(self, _: None) -> None:
        if self._failing is None:
            self._state.begin("load", STARTING)

    def _on_healthy(self, _: None) -> None:
        if self._failing is not None:
            return
        self._deadline = None
        self._state.ready()
        say("ready", seconds=round(self._state.now() - self._state.launched_at, 3))
        if self._config.restore.unlink_after_load and self._config.restore.mode != "none":
            threading.Thread(target=self._unlink, name="unlink", daemon=True).start()

    def _on_hung(self, met: str) -> None:
        """A drain has its own limit, and some engines are unhealthy while they end."""
        if self._failing is None and not self._terminating and not self._drain.begun:
            self._fail(
                f"The engine hangs: it was healthy, and has not been for "
                f"{self._config.hang_timeout:g} s on port {self._config.port} "
                f"({self._config.health_path}: {met}); it is started anew."
            )

    def _unlink(self) -> None:
        from . import weights

        say("weights unlinked", bytes=weights.unlink_weights(self._config.model_dir))

    def _on_deadline(self, _: None) -> None:
        if self._failing is not None:
            for pid in (self._engine, self._restorer):
                if pid is not None:
                    processes.send(pid, signal.SIGKILL)
            self._deadline = None
            return
        seconds = f"{self._config.start_timeout:g} s"
        if self._engine is None:
            self._fail(f"The restore moved no byte for {seconds}: is its store reachable?")
        else:
            self._fail(
                f"The engine was not healthy on port {self._config.port} "
                f"({self._config.health_path}) within {seconds}: its log says what it did."
            )

    # The end: drain, signals, exits

    def _on_drain(self, answer: Answer) -> None:
        self._begin_drain()
        self._drain.join(answer)

    def _begin_drain(self) -> None:
        if self._drain.begun:
            return
        self._drain.begun = True
        self._state.drain()
        say("draining")
        if not self._state.has_served:
            self._on_drained(True)
            return
        threading.Thread(target=self._wait_until_idle, name="idle", daemon=True).start()

    def _wait_until_idle(self) -> None:
        from . import inflight

        config = self._config
        idle = inflight.wait_until_idle(
            lambda: inflight.in_flight(config.port, config.metrics_path, config.inflight_metrics),
            config.drain_timeout,
            self._stop,
        )
        self._events.put(("drained", idle))

    def _on_drained(self, idle: bool) -> None:
        say("drained", idle=idle)
        self._drain.end(idle)
        if self._stopping:
            self._terminate()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            for pid, code in processes.reap():
                self._on_exit(pid, code)
        elif number in STOPPING:
            self._on_stop()
        elif self._engine is not None:
            processes.send(self._engine, number)

    def _on_stop(self) -> None:
        """Drain first where nobody did; a SIGTERM in the middle of a drain ends it."""
        serving = self._state.is_ready
        self._stopping = True
        if serving:
            self._begin_drain()
        else:
            self._state.drain()
            self._terminate()

    def _terminate(self) -> None:
        self._terminating = True
        self._stop.set()
        self._deadline = None
        children = [pid for pid in (self._engine, self._restorer) if pid is not None]
        for pid in children:
            processes.send(pid, signal.SIGTERM)
        if not children:
            self._exit = 128 + signal.SIGTERM

    def _on_exit(self, pid: int, code: int) -> None:
        if pid == self._restorer:
            self._restorer = None
            if self._terminating and self._engine is None:
                self._exit = code
        elif pid == self._engine:
            self._engine = None
            self._on_engine_exit(code)
        if self._failing is not None and self._engine is None and self._restorer is None:
            self._exit = self._failing

    def _on_engine_exit(self, code: int) -> None:
        if self._probe is not None:
            self._probe.stop()
        if self._failing is not None:
            return
        if self._terminating:
            self._state.stopped(code)
        else:
            when = "while it was serving" if self._state.has_served else "before it was ready"
            self._report_failure(f"The engine exited with code {code} {when}: see its log.", code)
        self._exit = code

    def _fail(self, sentence: str) -> None:
        """Record the failure and end: the kubelet restarts the container with its backoff."""
        self._report_failure(sentence, None)
        self._failing = FAILED
        self._stop.set()
        if self._probe is not None:
            self._probe.stop()
        children = [pid for pid in (self._engine, self._restorer) if pid is not None]
        for pid in children:
            processes.send(pid, signal.SIGTERM)
        self._deadline = time.monotonic() + KILL_AFTER
        if not children:
            self._exit = FAILED

    def _report_failure(self, sentence: str, code: int | None) -> None:
        self._state.fail(sentence, code)
        say("failed", error=sentence, exitCode=code)

    def _finish(self) -> None:
        self._drain.end(idle=True)  # without an engine nothing is in flight
        time.sleep(LINGER)

    def _expect(self) -> None:
        self._deadline = time.monotonic() + self._config.start_timeout

    def _report(self, event: str) -> Callable[[Any], None]:
        return lambda value: self._events.put((event, value))
