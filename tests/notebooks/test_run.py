"""Every notebook runs: by nbval as it is, twice in one kernel, and with its exercise solved."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

# for each notebook: a piece of an exercise's source -> what a learner would write in its place
SOLUTIONS = {
    "00_start_here": {'my_question = "Hello!"': 'my_question = "Explain latency in detail"'},
    "01_session_configuration": {"You are a friendly tutor.": "Answer in one sentence. End with a question."},
    "02_event_handling": {
        "    pass  # your code here": '    if event.type == "response.output_text.delta": collected.append(event.delta)',
        'return "?"  # your code here: one of the six': 'details = response["status_details"] or {}\n'
        '    error = details.get("error") or {}\n'
        '    seen = details.get("reason") or error.get("code") or error.get("type")\n'
        "    if seen is None:\n"
        '        return "healthy" if response["output"][0]["content"][0]["text"] else "empty_answer"\n'
        '    return {"max_output_tokens": "max_tokens", "rate_limit_exceeded": "rate_limit_response"}.get(seen, seen)',
    },
    "03_ssml_tuning": {
        "my_voice = Voice()": "my_voice = Voice(rate=0.7, volume=50)",
        '<prosody rate="5">': '<mstts:express-as style="cheerful">',
        '<mstts:express-as style="cheerful">Good morning!</mstts:express-as>': '<prosody rate="1.2">Good morning!</prosody>',
        "    </prosody>\n    <pause": "    </mstts:express-as>\n    <break",
        "    Tea & coffee": "    Tea &amp; coffee",
        "each, around = 0, 0": "each, around = 760, 238",
    },
    "04_tts_queue": {
        "            index += 1": "            index += 1\n    for unit in splitter.flush():\n"
        "        target.put(Utterance('mine', index, unit, generation=generation))\n        index += 1",
        "(self, clip):\n        pass  # your code here": "(self, clip):\n        self.diary.append(clip.utterance.text)\n"
        "        self.end = max(self.end, now()) + clip.duration_s",
        "(self):\n        pass  # your code here": "(self):\n        self.end = 0.0",
        "return 0.0  # your code here": "return max(0.0, self.end - now())",
    },
}


def executed(notebook):
    """Run all cells in a kernel of its own; raises at the first error."""
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return notebook


def printed(notebook, stream: str = "stdout") -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == stream)


def test_nbval_finds_no_failing_cell(path, quiet):
    """Offline, without keys, silently, twenty times as fast."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval-lax",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(path.parent),
        str(path),
    ]
    ended = subprocess.run(command, env=quiet, cwd=path.parent, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "passed" in ended.stdout


def test_run_all_twice_in_one_kernel_raises_nowhere_and_the_check_says_not_yet(notebook, quiet):
    """Cells may run again; no thread dies unseen; the unsolved exercise speaks kindly."""
    first = notebook.cells
    again = [nbformat.from_dict({**cell, "id": f"{cell['id']}-2"}) for cell in nbformat.from_dict(first)]
    notebook.cells = first + again
    executed(notebook)
    assert "Exception in thread" not in printed(notebook, "stderr") and "Traceback" not in printed(notebook, "stderr")
    assert "not yet" in printed(notebook)


def test_the_solved_exercises_pass_their_checks(path, notebook, quiet):
    """The same cells with the solution in place: ✓, and no "not yet"."""
    for task, solution in SOLUTIONS[path.stem].items():
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and task in cell.source]
        assert len(cells) == 1
        cells[0].source = cells[0].source.replace(task, solution)
    executed(notebook)
    assert "✓" in printed(notebook) and "not yet" not in printed(notebook)


def test_an_azure_free_machine_is_told_what_is_wrong_by_the_first_cell_of_00(tmp_path):
    """Without voicehelper, with a Python that is too old, with ipykernel 7.0: one sentence with the command to run."""
    from tests.notebooks.conftest import NOTEBOOKS

    cell = next(cell for cell in nbformat.read(NOTEBOOKS[0], 4).cells if cell.cell_type == "code")
    situations = {
        "sys.version_info = (3, 9)": "3.11 or newer",
        "sys.modules['voicehelper'] = None; importlib.util.find_spec = lambda name: None": "pip install -r requirements.txt",
        "import importlib.metadata; importlib.metadata.version = lambda name: '7.0.1'": "pip install -U ipykernel",
        "pass": "✓ this kernel is ready",
    }
    for situation, words in situations.items():
        code = f"import importlib.util, sys\n{situation}\n{cell.source}"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
        assert words in ended.stdout and len(ended.stdout.strip().splitlines()) == 1
    names = [line for line in cell.source.splitlines() if line.startswith(("import", "from"))]
    assert names == ["import importlib.util, sys", "from importlib.metadata import version"], "only the standard library"


@pytest.fixture
def kernel(quiet):
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code: str, timeout: float = 30) -> str:
    """Execute and return stdout; a raised error is returned as its name and value."""
    out: list[str] = []

    def hook(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            out.append(content["text"])
        elif message["msg_type"] == "error":
            out.append(f"{content['ename']}: {content['evalue']}")

    client.execute_interactive(code, timeout=timeout, output_hook=hook)
    return "".join(out)


CONNECT = "from voicehelper import ConversationAgent\nagent = ConversationAgent.connect()\nprint(agent.practice.pid)"


def test_interrupting_the_kernel_during_a_turn_frees_the_cell_and_the_next_ask_works_on_the_same_server(kernel):
    """ask(), stream() and wait(): KeyboardInterrupt comes through, the turn is cancelled, the server lives (I6)."""
    import threading

    manager, client = kernel
    pid = run(client, CONNECT)
    waits = (
        "agent.ask('Explain queues in a long answer')",
        "for delta in agent.stream('Explain queues in a long answer'): pass\nagent.turns[-1].wait()",
        "import threading\nagent.ask('Explain queues in a long answer')\nthreading.Event().wait(20)",
    )
    for wait in waits:
        timer = threading.Timer(0.1, manager.interrupt_kernel)
        timer.start()
        assert "KeyboardInterrupt" in run(
            client, f"import itertools\nfor _ in itertools.count():\n    {wait.replace(chr(10), chr(10) + '    ')}"
        )
        timer.join()
        assert run(client, "print(agent.ask('Tell me a joke about programmers').status)") == "done\n"
    assert run(client, "print(agent.practice.pid, agent.practice.alive())") == f"{pid.strip()} True\n"


def test_running_the_connect_cell_twenty_times_leaves_one_agent_and_one_server(kernel):
    """One reader thread, one pid."""
    _, client = kernel
    pids = {run(client, CONNECT) for _ in range(20)}
    assert len(pids) == 1
    count = "import threading\nprint(sum(thread.name == 'voicehelper-reader' for thread in threading.enumerate()))"
    assert run(client, count) == "1\n"
    assert run(client, "print(agent.ask('Tell me a joke about programmers').status)") == "done\n"


def test_shutting_the_kernel_down_with_speech_in_flight_ends_the_server_too(kernel):
    """The kernel ends by itself, without being killed; no practice server is left."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install -e '.[test]'")
    from tests.support import wait_for

    manager, client = kernel
    pid = int(run(client, CONNECT))
    run(client, "turn = agent.ask('Explain queues in a long answer')")
    client.shutdown()
    wait_for(lambda: not manager.is_alive(), 10)
    assert manager.provisioner.process.returncode == 0
    wait_for(lambda: not psutil.pid_exists(pid), 5)
