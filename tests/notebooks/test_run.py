"""Every notebook runs: by nbval as it is, twice in one kernel, and with its exercise solved."""

from __future__ import annotations

import subprocess
import sys

import nbformat
from nbclient import NotebookClient

from tests.notebooks.conftest import NOTEBOOKS

SOLVED = NOTEBOOKS[0].parent / "solutions"  # what a learner may load into the cell of an exercise

# for each notebook: a piece of an exercise's source -> what a learner would write in its place
SOLUTIONS = {
    "00_start_here": {'my_question = "Hello!"': 'my_question = "Explain latency in detail"'},
    "01_session_configuration": {"You are a friendly tutor.": "Answer in one sentence. End with a question."},
    "02_event_handling": {
        'return ""  # your code here': 'return "".join(entry["body"]["delta"] for entry in entries if entry["turn"] == turn_id '
        'and entry["type"] == "response.output_text.delta")',
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
    "06_memory": {
        "def go_on(name):\n    return ConversationAgent.connect()  # your code here": (SOLVED / "06_memory_1.py").read_text("utf-8"),
        'my_guess = {\n    "server_error": 0,\n    "drop_mid_answer": 0,\n    "content_filter": 0,\n    "server_error:3": 0,\n'
        '    "slow_first_token": 0,\n}': (SOLVED / "06_memory_2.py").read_text("utf-8"),
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
