"""Starting and ending the practice server's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from voicehelper.practice.launcher import PACKAGE_PARENT, LaunchFailed, launch

from .conftest import Client, until

psutil = pytest.importorskip("psutil", reason="psutil (a test extra) is not installed")

PARENT = """
import sys
from voicehelper.practice.launcher import launch
server = launch(extra=("--tokens-per-second", "5"))
print(server.pid, server.realtime_url, server.key, flush=True)
try:
    sys.stdin.read()
except KeyboardInterrupt:
    print("interrupted", server.alive(), flush=True)
    sys.stdin.read()
"""


def start_parent() -> tuple[subprocess.Popen, psutil.Process, SimpleNamespace]:
    """A process that launched a server, the server's process, and its address."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    pid, realtime_url, key = parent.stdout.readline().decode().split()
    return parent, psutil.Process(int(pid)), SimpleNamespace(realtime_url=realtime_url, key=key)


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return True


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def test_the_server_tells_its_addresses_and_the_key_opens_it(server):
    port = server.speech_host.rpartition(":")[2]
    assert server.realtime_url == f"ws://127.0.0.1:{port}/openai/v1/realtime"
    assert server.alive()
    assert server.key.startswith("vh.")


def test_the_key_is_neither_in_the_arguments_nor_in_the_repr_nor_in_the_output(server):
    assert server.key not in " ".join(psutil.Process(server.pid).cmdline())
    assert server.key not in repr(server)
    assert server.key not in server.tail()
    assert server.key not in str(vars(server)["_tail"])


def test_close_leaves_no_process_and_no_thread_and_may_be_called_twice():
    server = launch()
    process = psutil.Process(server.pid)
    server.close()
    server.close()
    assert gone(process)
    assert not server.alive()
    assert server._process.returncode == 0
    assert not server._reader.is_alive()
    assert server._process.stdout.closed


def test_two_servers_have_two_keys(server):
    other = launch(seed=3)
    try:
        assert other.key != server.key
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("voicehelper-practice-output") >= 2
    finally:
        other.close()


def test_a_server_that_cannot_start_raises_with_its_own_words():
    with pytest.raises(LaunchFailed, match="--port"):
        launch(extra=("--port", "99999999"))


def test_a_server_that_stays_silent_is_ended_and_reported(tmp_path):
    hanging = tmp_path / "sitecustomize.py"
    hanging.write_text("import sys, threading\nif 'voicehelper.practice' in ' '.join(sys.orig_argv): threading.Event().wait(60)\n")
    # our folder goes in front of this one; sitecustomize is found wherever it lies on the path
    with pytest.raises(LaunchFailed, match="said nothing within 0.5 s"):
        launch(timeout=0.5, env={"PYTHONPATH": str(tmp_path)})


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kill_9_of_the_parent_ends_the_server_within_two_seconds():
    parent, server, _ = start_parent()
    started = family(server)
    parent.kill()
    parent.wait(5)
    until(lambda: all(map(gone, started)), 2)
    parent.stdin.close()
    parent.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kill_9_of_the_parent_ends_a_server_that_is_still_answering_someone_else():
    parent, server, address = start_parent()
    client = Client(address)
    client.text_only()
    client.say("Tell me a long story")
    client.send("response.create")
    client.until("response.output_text.delta")
    parent.kill()
    parent.wait(5)
    until(lambda: gone(server), 2)
    client.socket.close(timeout=1)
    parent.stdin.close()
    parent.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_server_leaves_no_process_and_no_thread():
    children, threads = psutil.Process().children(recursive=True), set(threading.enumerate())
    server = launch()
    started = family(psutil.Process(server.pid))
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.alive() and not server._reader.is_alive())
    server.close()
    assert all(map(gone, started))
    assert set(psutil.Process().children(recursive=True)) <= set(children), "not even a zombie"
    assert set(threading.enumerate()) <= threads
    assert server._process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupt_of_the_parents_group_does_not_reach_the_server():
    parent, server, _ = start_parent()
    try:
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.readline().split() == [b"interrupted", b"True"]
        assert not gone(server)
    finally:
        parent.kill()
        parent.wait(5)
        parent.stdin.close()
        parent.stdout.close()
    until(lambda: gone(server), 2)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_quietly_with_code_0(number):
    server = launch()
    os.kill(server.pid, number)
    assert server._process.wait(5) == 0
    server.close()
    assert "Traceback" not in server.tail()


def test_a_learners_own_random_py_does_not_disturb_the_server(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    server = launch()
    assert server.alive()
    server.close()


def test_the_launcher_imports_only_the_standard_library():
    code = "import sys, voicehelper.practice.launcher\nprint([m for m in ('tornado', 'ctypes', 'voicehelper.events') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=20, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_practice_process_loads_neither_the_agent_nor_the_speech_sdk():
    code = "import sys; import voicehelper.practice.server; print([m for m in sys.modules if 'agent' in m or m.startswith('azure')])"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=20, check=True)
    assert shown.stdout.strip() == "[]"
