"""Start the practice server as a process of its own, and end it.

One sentence: `launch()` returns a `PracticeServer` with the addresses and the key of a fresh server that ends with its parent.
What it does not do: speak to the server, restart it, or import anything of it (standard library only, so the caller stays free of eSpeak).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

KEPT_LINES = 50
PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class LaunchFailed(RuntimeError):
    """The practice server did not come up; the message ends with the last lines it wrote."""


class PracticeServer:
    """A running practice server. `.close()` ends it; so does the end of this process."""

    def __init__(self, process: subprocess.Popen, key: str):
        self.realtime_url = self.speech_host = ""
        self.key, self.pid = key, process.pid
        self._process = process
        self._closing = threading.Lock()  # two threads may close at once
        self._ready = threading.Event()  # set by the reader thread: the address line came, or the output ended
        self._tail: deque[str] = deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read, name="voicehelper-practice-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Read all output, for a full pipe would stop the server; ends at its end."""
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            if not self._ready.is_set():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    address = json.loads(line)
                    self.realtime_url, self.speech_host = address["realtime_url"], address["speech_host"]
                    self._ready.set()
                    continue
            self._tail.append(line.replace(self.key, "****"))
        self._ready.set()

    def wait_ready(self, timeout: float) -> bool:
        """Whether the server told its addresses within `timeout` seconds."""
        self._ready.wait(timeout)
        return bool(self.realtime_url)

    def tail(self) -> str:
        """The last lines the server wrote."""
        return "\n".join(self._tail.copy())

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self, timeout: float = 2.0) -> None:
        """End the server: close its stdin, wait up to `timeout` seconds, then kill it. Any number of times, from any thread."""
        with self._closing:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._reader.join(1.0)
            if not self._reader.is_alive():  # closing a file another thread reads from would wait for that thread
                self._process.stdout.close()

    def __repr__(self) -> str:
        return f"<PracticeServer {self.speech_host or 'starting'}, process {self.pid}, {'running' if self.alive() else 'ended'}>"


def child_environment(env: Mapping[str, str] | None, key: str) -> dict[str, str]:
    """This process's environment and `env` over it, with what lets the child find the package, installed or not.

    The key goes here and not into the arguments, which every user of the computer can list.
    """
    environment = {**os.environ, **(env or {}), "VOICEHELPER_PRACTICE_KEY": key}
    path = [str(PACKAGE_PARENT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    environment["PYTHONSAFEPATH"] = "1"  # a learner's own random.py in the notebook folder must not be imported
    return environment


def launch(*, seed: int = 0, env: Mapping[str, str] | None = None, timeout: float = 15.0, extra: Sequence[str] = ()) -> PracticeServer:
    """Start a practice server and wait for its addresses.

    Args:
        seed: the same seed gives the same answers.
        env: environment variables on top of this process's own.
        timeout: seconds to wait for its first line.
        extra: further command-line arguments, for example `("--tokens-per-second", "500")`.

    Raises:
        LaunchFailed: it died or stayed silent; nothing is left running.
    """
    key = f"vh.{secrets.token_hex(12)}"
    command = [sys.executable, "-m", "voicehelper.practice", "--watch-stdin", "--seed", str(seed), *extra]
    # A session of its own: Jupyter's Interrupt signals the kernel's whole process group, and a plain child would die of it.
    apart: dict = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        # Its stdin stays open here: the end of it, even by kill -9 of this process, ends the server.
        process = subprocess.Popen(command, env=child_environment(env, key), **pipes, **apart)
    except OSError as fault:
        raise LaunchFailed(f"The practice server could not be started: {fault}") from fault
    server = PracticeServer(process, key)
    with contextlib.ExitStack() as unless_ready:
        unless_ready.callback(server.close, 0.5)  # also when an Interrupt ends the waiting
        if server.wait_ready(timeout):
            unless_ready.pop_all()
            return server
        what = f"said nothing within {timeout:g} s" if server.alive() else "ended before it was ready"
    raise LaunchFailed(f"The practice server {what}. Its last lines:\n{server.tail() or '(none)'}")
