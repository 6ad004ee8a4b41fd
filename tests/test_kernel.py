"""What a notebook's kernel does to us: Interrupt in every wait, the connect cell run again and again, shutdown and restart while it speaks.

A real ipykernel, driven as JupyterLab drives it; `connect()` starts the practice server. What is measured is what a person waits for:
from the signal to the kernel's reply, from the request to the end of the process. The figures are printed after the last test.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest
from jupyter_client.manager import KernelManager

from .notebooks.conftest import QUIET
from .practice.conftest import arm, wire_log
from .practice.test_launcher import gone
from .scripted import Silent, serving
from .support import limit, made_up, scaled, wait_for

pytestmark = [limit(240), pytest.mark.skipif(os.name == "nt", reason="POSIX signals and file descriptors")]
INTERRUPT_S = 3.0  # on a machine with other work; without, design I6 says 1
SHUTDOWN_S = 6.0  # and I11 says 2
QUIET = QUIET | {"VOICEHELPER_TIME_SCALE": "8"}  # a pace at which no wait is over before it is interrupted
SLOW = {"latency_ms": 60_000}  # of the practice server: 7.5 s without a word, at that pace
SETUP = """
import gc, json, os, psutil, socket, threading
from pathlib import Path
from voicehelper import ConversationAgent, Settings
from voicehelper import history
from voicehelper.conversation import Conversation, TurnRecord
from voicehelper.settings import Secret

JOKE, LONG = "Tell me a joke about programmers", "Explain queues in a long answer"
me, pause = psutil.Process(), threading.Event()

def inside(reached):
    "Leave a file, from a thread, when that is so; never after the next call."
    def watch():
        while inside.last is watch and not reached():
            pause.wait(0.005)
        if inside.last is watch:
            Path("inside").touch()
    inside.last = watch
    threading.Thread(target=watch, daemon=True).start()

def rest():
    "A long wait of one's own; in pieces, for a signal that comes just before a wait begins does not end it."
    while True:
        pause.wait(0.2)

def sockets(port):
    return [one for one in me.net_connections("tcp") if one.raddr and one.raddr.port == port]

def cut(port):
    "What a broken network does: all connections to the port end."
    for one in sockets(port):
        with socket.socket(fileno=os.dup(one.fd)) as copy:
            copy.shutdown(socket.SHUT_RDWR)
"""
AGENTS = "[it for it in gc.get_objects() if type(it) is ConversationAgent and hasattr(it, 'connection') and it.connection.is_open]"
OURS = "sorted(thread.name for thread in threading.enumerate() if thread.name.startswith('voicehelper-'))"
CONNECT = """
agent = ConversationAgent.connect()
port = int(agent.settings.speech_host.rpartition(":")[2])
print(json.dumps([agent.settings.speech_host, agent.settings.speech_key.reveal(), agent.practice.pid]))
"""
SLOW_START = """
import os, sys, threading
if os.path.exists({!r}) and "voicehelper.practice" in " ".join(sys.orig_argv):
    threading.Event().wait(60)
"""


class Ran(NamedTuple):
    """What became of a cell: what it printed, the name of its error, how often Interrupt was pressed, seconds from the first time to the reply."""

    out: str
    error: str
    presses: int
    seconds: float


class Kernel:
    """A kernel of its own, in folders of its own."""

    def __init__(self, folder):
        self.folder, self.inside, self.slow = folder, folder / "inside", folder / "slow"
        own = {
            "IPYTHONDIR": folder / "ipython",
            "TMPDIR": folder / "tmp",
            "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        env = {**os.environ, **QUIET, **{name: str(value) for name, value in own.items()}}
        (folder / "tmp").mkdir()
        (folder / "sitecustomize.py").write_text(SLOW_START.format(str(self.slow)))
        self.manager = KernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
        self.manager.start_kernel(env=env, cwd=str(folder), extra_arguments=["--HistoryManager.enabled=False"])
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.ready()

    def ready(self) -> None:
        self.client.wait_for_ready(60)
        self.process = self.manager.provisioner.process
        self.seen = psutil.Process(self.process.pid)
        assert not self.run(SETUP).error

    def run(self, code: str, within: float | None = None) -> Ran:
        """Run a cell; with `within`, interrupt the kernel at a random moment, within so many seconds after the cell said that it is `inside`."""
        streams, error, sent, over = {"stdout": "", "stderr": ""}, [], [], threading.Event()

        def hook(message):
            content = message["content"]
            if message["msg_type"] == "error":
                error.append(content["ename"])
            elif message["msg_type"] == "stream":
                streams[content["name"]] += content["text"]

        def send():
            wait_for(lambda: over.is_set() or self.inside.exists(), 30)
            pause = random.uniform(0, within)
            while not over.wait(pause):
                sent.append(time.monotonic())
                self.manager.interrupt_kernel()
                pause = 1.0  # then a person presses it again

        self.inside.unlink(missing_ok=True)
        interrupter = threading.Thread(target=over.wait if within is None else send, daemon=True)
        interrupter.start()
        try:
            self.client.execute_interactive(code, timeout=40, output_hook=hook)
        finally:
            end = time.monotonic()
            over.set()
            interrupter.join(10)
        assert "Traceback" not in streams["stderr"] or "KeyboardInterrupt" in streams["stderr"], streams["stderr"]  # of a thread
        return Ran(streams["stdout"], "".join(error), len(sent), end - sent[0] if sent else 0.0)

    def tell(self, expression: str):
        """The value of an expression in the kernel."""
        ran = self.run(f"print(json.dumps({expression}))")
        assert not ran.error, ran
        return json.loads(ran.out)

    def connect(self) -> SimpleNamespace:
        """Run the connect cell; where the practice server is, and its process."""
        speech_host, key, pid = json.loads(self.run(CONNECT).out)
        return SimpleNamespace(speech_host=speech_host, key=key, pid=pid)

    def servers(self) -> list[int]:
        """The practice servers among its children."""
        return [child.pid for child in self.seen.children() if not gone(child) and "voicehelper.practice" in " ".join(child.cmdline())]

    def held(self) -> tuple[int, int, int]:
        """Threads, files and processes, as the system counts them."""
        self.run("gc.collect()")
        return self.seen.num_threads(), self.seen.num_fds(), len(self.seen.children(recursive=True))

    def holds_no_more_than(self, before: tuple[int, int, int]) -> bool:
        return all(now <= then for now, then in zip(self.held(), before, strict=True))

    def close(self) -> None:
        left = self.seen.children(recursive=True) if self.manager.has_kernel else []
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        wait_for(lambda: all(map(gone, left)), 10)


@pytest.fixture(scope="module")
def figures(request):
    """Seconds by what was measured; the worst of each is printed after the last test."""
    measured: dict[str, list[float]] = {}
    yield lambda name, seconds: measured.setdefault(name, []).append(seconds)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", *(f"  {max(all_):.2f} s at most in {len(all_)}: {name}" for name, all_ in measured.items()), sep="\n")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    started = Kernel(tmp_path_factory.mktemp("kernel"))
    yield started
    started.close()


@pytest.fixture
def practice(kernel):
    """A connected agent; no fault is armed, before and after."""
    server = kernel.connect()
    arm(server)
    yield server
    kernel.slow.unlink(missing_ok=True)
    if server.pid in kernel.servers():
        arm(server)
    # what a test that failed may have left: other agents, garbage, other servers
    kernel.run(f"one = None\nfor one in {AGENTS}:\n    if one is not agent: one.close()\ndel one\ngc.collect()")
    for pid in set(kernel.servers()) - {kernel.tell("agent.practice and agent.practice.pid")}:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def interrupted(kernel, practice, figures, request):
    """Run a cell and interrupt it: it ends with KeyboardInterrupt, in time.

    Twice where many objects come and go: Python drops an exception that is raised while one is deleted, and the Speech SDK takes its time there.
    """

    def run(code: str, reached: str, within: float = 0.3, presses: int = 1) -> None:
        ran = kernel.run(f"inside(lambda n=len(agent.turns), m=len(agent.events): {reached})\n{code}", within)
        assert ran.error == "KeyboardInterrupt" and ran.presses <= presses and ran.seconds < INTERRUPT_S, ran
        figures(request.node.name, ran.seconds)

    return run


def asks_again(kernel: Kernel, practice) -> None:
    """The next question is answered and spoken, by the same server."""
    assert kernel.run("turn = agent.ask('Hello!')\nturn.wait(20)").error == ""
    status, text, reason, speech = kernel.tell("[turn.status, turn.text, turn.reason, turn.speech]")
    assert (status, reason, speech) == ("done", None, "spoken") and text.strip()
    assert kernel.servers() == [practice.pid]


# -- Interrupt

ASKED = "len(agent.turns) > n"
ANSWERING = f"{ASKED} and agent.turns[-1].text"
SPEAKING = f"{ASKED} and agent.turns[-1].utterances and agent.turns[-1].utterances[0].status == 'playing'"
AGAIN = f"{ASKED} and 'trying again' in (agent.turns[-1].reason or '')"
WAITS = {
    "ask before the first word": ([], SLOW, "agent.ask(JOKE)", ASKED),
    "ask in the middle of an answer": (["stall"], {}, "agent.ask(LONG)", ANSWERING),
    "a stream between two deltas": (["stall"], {}, "for delta in agent.stream(LONG): pass", ANSWERING),
    "the body of a loop over a stream": (["stall"], {}, "for delta in agent.stream(LONG): rest()", ANSWERING),
    "wait for the text": (["stall"], {}, "agent.start(LONG).wait()", ANSWERING),
    "wait for the voice": ([], {}, "agent.speak_response('One sentence of these. ' * 300).wait()", SPEAKING),
    "a wait of one's own while it speaks": ([], {}, "agent.speak_response('One sentence of these. ' * 300)\nrest()", SPEAKING),
    "ask while the service is busy": (["rate_limit_response:always"], {}, "agent.ask(JOKE)", AGAIN),
    "ask while the service fails": (["server_error:always"], {}, "agent.ask(JOKE)", AGAIN),
}


@pytest.mark.parametrize("wait", WAITS)
def test_an_interrupt_frees_the_cell_and_the_next_question_is_answered(kernel, practice, interrupted, wait):
    """In every wait of the agent, at a random moment of it (I6)."""
    faults, more, code, reached = WAITS[wait]
    for _ in range(scaled(10)):
        arm(practice, *faults, **more)
        interrupted(code, reached)
        arm(practice)
        silent = "agent.interrupt()\n" if "own" in wait else ""  # there it is not the agent that waited: it goes on speaking
        assert kernel.run(f"{silent}turn = agent.turns[-1]\nturn.wait_text(2)").error == ""
        status, speech, pending_s = kernel.tell("[turn.status, turn.speech, agent.player.pending_s]")
        assert status == ("done" if "speak" in code else "cancelled") and speech in ("none", "interrupted") and pending_s == 0
        asks_again(kernel, practice)


def test_an_interrupt_while_the_agent_connects_again_for_a_waiting_question(kernel, practice, interrupted):
    """The connection breaks before a word of the answer came, and the handshake is refused."""
    for _ in range(scaled(10)):
        arm(practice, "rate_limit_handshake:always", **SLOW)
        interrupted("threading.Thread(target=lambda: (pause.wait(0.2), cut(port)), daemon=True).start()\nagent.ask(JOKE)", AGAIN)
        arm(practice)
        assert kernel.tell("[agent.turns[-1].status, agent.turns[-1].text]") == ["cancelled", ""]
        asks_again(kernel, practice)


def test_an_interrupt_while_the_agent_connects_again_after_an_answer_that_broke_off(kernel, practice, interrupted):
    """The connection breaks after some words: that turn stays partial, the one after it waits for the connection."""
    for _ in range(scaled(10)):
        arm(practice, "rate_limit_handshake:always", "drop_mid_answer")
        assert kernel.run("cut_short = agent.ask(LONG)").error == ""
        assert kernel.tell("[cut_short.status, bool(cut_short.text)]") == ["partial", True]
        interrupted("agent.ask(JOKE)", AGAIN)
        arm(practice)
        assert kernel.tell("[cut_short.status, agent.turns[-1].status, agent.turns[-1].text]") == ["partial", "cancelled", ""]
        asks_again(kernel, practice)


@contextmanager
def stopped(pid: int):
    """A server that lives and answers nobody."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_interrupt_in_configure_leaves_one_session_that_both_sides_know_and_the_next_configure_works(kernel, practice, interrupted):
    """The service confirms after the Interrupt: what `session` says is what the answers are given by."""
    both = "[agent.session.instructions, agent.conversation.session['instructions']]"
    for _ in range(scaled(10)):
        with stopped(practice.pid):
            interrupted(f"agent.configure(instructions={made_up()!r})", "len(agent.events) > m")
        asks_again(kernel, practice)
        known, given = kernel.tell(both)
        assert known == given, "the answer was given by other instructions"
        before = f"Answer in one sentence. Your name is {made_up()}."
        assert kernel.run(f"agent.configure(instructions={before!r})").error == ""
        assert kernel.tell(both) == [before, before]
        with stopped(practice.pid):
            interrupted(f"agent.configure(instructions={made_up()!r})", "len(agent.events) > m")
        assert kernel.run(f"agent.configure(instructions={before!r})").error == "", "the late confirmation is not this one's"
    asks_again(kernel, practice)


ELSEWHERE = "ConversationAgent.connect(Settings('azure', 'ws://127.0.0.1:{0}/x', Secret('{1}'), 'd', Secret('{1}'), 'x'), replace=False)"


@pytest.mark.parametrize("answers", ["nothing", "the handshake only"])
def test_an_interrupt_in_connect_to_a_service_that_does_not_answer_leaves_nothing_behind(kernel, practice, interrupted, answers):
    """An agent beside it goes on; threads, files and processes are as before."""
    asks_again(kernel, practice)
    before = kernel.held()
    for _ in range(scaled(10)):
        with socket.create_server(("127.0.0.1", 0)) as deaf, serving(Silent) as mute:
            port = deaf.getsockname()[1] if answers == "nothing" else mute
            interrupted(ELSEWHERE.format(port, made_up()), f"sockets({port})")
        wait_for(lambda: kernel.holds_no_more_than(before), 10)
        asks_again(kernel, practice)


def test_an_interrupt_while_the_practice_server_starts_ends_it(kernel, practice, interrupted):
    """The one that was starting, slowly, is gone; the agent beside it goes on."""
    for _ in range(scaled(10)):
        kernel.slow.touch()
        interrupted("ConversationAgent.connect(replace=False)", "len(me.children()) > 1")
        kernel.slow.unlink()
        assert kernel.servers() == [practice.pid]
        asks_again(kernel, practice)


def test_an_interrupt_in_close_leaves_the_rest_to_the_next_close(kernel, practice, interrupted):
    """A sentence is in flight and the server answers nobody, so closing takes its time; what is closed again is gone in the end."""
    threads = kernel.tell(OURS)
    for _ in range(scaled(10)):
        assert kernel.run("other = ConversationAgent.connect(replace=False)").error == ""
        (pid,) = set(kernel.servers()) - {practice.pid}
        with stopped(pid):
            kernel.run("turn = other.speak_response('One sentence of these.')")
            interrupted("other.close()\nrest()", "'(closed)' in other.where", within=2.5, presses=2)
        assert kernel.run("other.close()").error == ""
        wait_for(lambda: kernel.tell(OURS) == threads and kernel.servers() == [practice.pid], 5)
        asks_again(kernel, practice)


def test_an_interrupt_at_any_moment_of_a_connect_cell_that_runs_again(kernel, practice, interrupted):
    """The cell runs once more and all is well: one agent is connected, one server runs, and it is the same one."""
    for _ in range(scaled(100)):
        interrupted("agent = ConversationAgent.connect()\nrest()", "True", within=0.08, presses=2)
        assert kernel.connect().pid == practice.pid
        assert kernel.tell(f"len({AGENTS})") == 1
        assert kernel.tell("agent.ask('Hello!').status") == "done"
    asks_again(kernel, practice)


def test_an_interrupt_while_a_conversation_is_saved_leaves_a_file_that_holds_all_of_it(kernel, practice, interrupted):
    """2,000 turns, saved again and again: old or new, the file is whole, and the next save leaves nothing else in the folder."""
    many = "talk = Conversation()\ntalk.turns += [TurnRecord(f'turn{i}', 'Why?', 'done', pieces=['Because. ' * 200]) for i in range(2000)]"
    assert kernel.run(f"{many}\npath = Path('saved', 'talk.json')\nhistory.save(talk, path)").error == ""
    path = kernel.folder / "saved" / "talk.json"
    for _ in range(scaled(50)):
        interrupted("while True: saved = history.save(talk, path)", "True", presses=2)
        assert [turn["id"] for turn in json.loads(path.read_text("utf-8"))["turns"]] == [f"turn{i}" for i in range(2000)]
        assert kernel.run("history.save(talk, path)").error == ""
        assert [file.name for file in path.parent.iterdir()] == ["talk.json"]
    asks_again(kernel, practice)


# -- the connect cell, again and again

CELLS = {
    "an assignment": "",
    "a bare agent at the end": "\nagent",
    "an error after it": "\n1 / 0",
    "an answer that runs": "\nagent.start(LONG)",
}


def test_a_connect_cell_that_runs_twenty_times_leaves_one_agent_one_server_and_nothing_else(kernel, practice):
    """As after the second run: threads, files, processes, connections; also when Out[] or a traceback keeps the old agents (I4)."""
    cell = "agent = ConversationAgent.connect()\nagent.speak_response('One.').wait(10)"
    assert [kernel.run(cell).error for _ in range(2)] == ["", ""]
    before, names = kernel.held(), kernel.tell(OURS)
    for end in CELLS.values():
        for _ in range(scaled(20)):
            assert kernel.run(cell + end).error == ("ZeroDivisionError" if "/" in end else "")
        assert kernel.run(cell).error == ""
        wait_for(lambda: kernel.holds_no_more_than(before), 10)
        assert kernel.tell(f"[{OURS}, len({AGENTS})]") == [names, 1]
    asks_again(kernel, practice)


# -- the end


MOMENTS = {
    "playing": ([], {}),
    "synthesising": ([], {}),
    "asking": (["stall"], {}),
    "connecting again": (["rate_limit_handshake:always"], SLOW),
}


@pytest.mark.parametrize("restarts", [False, True], ids=["shutdown", "restart"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_kernel_ends_in_the_middle_of_a_turn(tmp_path, figures, request, moment, restarts):
    """With speech in flight, in a cell that still asks, without a connection: by itself, with exit code 0, and the practice server with it;
    no temporary file is left (I11)."""
    kernel = Kernel(tmp_path)
    try:
        server = kernel.connect()
        family = kernel.seen.children(recursive=True)
        arm(server, *MOMENTS[moment][0], **MOMENTS[moment][1])
        if moment == "asking":  # the cell still runs: the request begins with an Interrupt
            kernel.client.execute("agent.ask(LONG)")
            wait_for(lambda: wire_log(server, type="response.output_text.delta"), 10)
        elif moment == "connecting again":
            ran = kernel.run("turn = agent.start(LONG)\ncut(port)\nwhile 'trying again' not in (turn.reason or ''): pause.wait(0.002)")
            assert ran.error == ""
        else:
            reached = f"any(one.status == {moment!r} for one in turn.utterances)"
            assert kernel.run(f"turn = agent.start(LONG)\nwhile not {reached}: pause.wait(0.002)").error == ""
        process, begun = kernel.process, time.monotonic()
        kernel.manager.restart_kernel() if restarts else kernel.manager.shutdown_kernel()
        seconds = time.monotonic() - begun
        figures(request.node.name, seconds)
        assert process.poll() == 0 and seconds < SHUTDOWN_S
        wait_for(lambda: all(map(gone, family)), 5)
        if restarts:
            kernel.ready()
            assert kernel.connect().pid != server.pid
            assert kernel.run("agent.ask(JOKE)").error == ""
    finally:
        kernel.close()
    wait_for(lambda: list((tmp_path / "tmp").iterdir()) == [], 5)
