"""The shape of the package: who may import whom, how large it may be, and what a library never does (design, section 3)."""

from __future__ import annotations

import ast
import importlib
import io
import json
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

import voicehelper

ROOT = Path(voicehelper.__file__).parent
REPO = Path(__file__).parents[1]
WAY = [
    "errors",
    "settings",
    "events",
    "conversation",
    "history",
    "realtime",
    "sentences",
    "speakable",
    "ssml",
    "speech",
    "player",
    "tts_queue",
    "costs",
    "pictures",
    "agent",
    "doctor",
]
NOTEBOOK = ["player", "panel", "microphone"]
PRACTICE = ["launcher", "server", "realtime", "speech", "ssml_reader", "say_as", "voice", "tutor", "faults", "recorder", "ears"]
PURE = ["conversation", "sentences", "speakable", "ssml", "costs", "events", "pictures"]
LIMITS = {"voicehelper": 2_000, "notebook": 700, "practice": 1_800}
LAZY = {("agent/__init__.py", "notebook"), ("agent/live.py", "practice/launcher")}  # one line each, inside a function
FORBIDDEN = [
    "socket",
    "ssl",
    "_socket",
    "threading",
    "asyncio",
    "websocket",
    "azure",
    "IPython",
    "ipywidgets",
    "anywidget",
    "tornado",
    "openai",
    "http.client",
    "urllib.request",
]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


@cache
def source(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


@cache
def tree(file: str) -> ast.Module:
    return ast.parse(source(file))


@cache
def code_lines(file: str) -> frozenset[int]:
    """The lines that hold code: no blanks, comments, docstrings."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source(file)).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree(file)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return frozenset(lines)


def room(file: str) -> str:
    return file.split("/")[0] if file.startswith(("notebook/", "practice/")) else "voicehelper"


def module(file: str) -> str:
    """`agent/turn.py` → "agent", `notebook/player.py` → "notebook/player"."""
    parts = file.removesuffix(".py").removesuffix("/__init__").split("/")
    return "/".join(parts[:2]) if room(file) != "voicehelper" else parts[0]


def is_front(file: str) -> bool:
    """`__init__` and `__main__` of a room, which may import any."""
    return (
        file in ("__init__.py", "__main__.py")
        or file.split("/", 1)[1:] in (["__init__.py"], ["__main__.py"])
        and room(file) != "voicehelper"
    )


def exists(parts: list[str]) -> bool:
    return bool(parts) and (ROOT.joinpath(*parts).with_suffix(".py").exists() or ROOT.joinpath(*parts, "__init__.py").exists())


@cache
def imports(file: str) -> frozenset[tuple[str, bool]]:
    """The modules of this package that a file imports, each with whether that happens inside a function."""
    inside = {
        id(inner) for node in ast.walk(tree(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree(file)):
        for parts in _targets(node, file.split("/")[:-1]):
            while parts and not exists(parts):
                parts = parts[:-1]  # a name in a module
            if parts:
                found.add((module("/".join(parts) + ".py"), id(node) in inside))
    return frozenset(found)


def _targets(node: ast.AST, package: list[str]) -> list[list[str]]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[1:] for alias in node.names if alias.name.split(".")[0] == "voicehelper"]
    if isinstance(node, ast.ImportFrom):
        dotted = node.module.split(".") if node.module else []
        if node.level:
            base = package[: len(package) - node.level + 1] + dotted
        elif dotted[:1] == ["voicehelper"]:
            base = dotted[1:]
        else:
            return []
        return [[*base, alias.name] for alias in node.names]
    return []


def third_party(file: str) -> set[str]:
    """The top-level names of what a file imports from outside, relative imports aside."""
    names = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- who may import whom


@pytest.mark.parametrize("file", [file for file in FILES if room(file) == "voicehelper" and not is_front(file)])
def test_a_module_of_the_voice_s_way_imports_only_modules_above_it(file):
    own = module(file)
    assert own in WAY, "a module the design does not list"
    allowed = {*WAY[: WAY.index(own)], own}
    wrong = {name for name, lazy in imports(file) if name not in allowed and not (lazy and (file, name) in LAZY)}
    assert wrong == set()


@pytest.mark.parametrize("file", [file for file in FILES if room(file) == "notebook" and not is_front(file)])
def test_a_module_of_the_notebook_room_imports_the_room_above_and_modules_above_it(file):
    own = module(file).split("/")[1]
    assert own in NOTEBOOK, "a module the design does not list"
    allowed = {*WAY, *(f"notebook/{name}" for name in NOTEBOOK[: NOTEBOOK.index(own) + 1])}
    assert {name for name, _ in imports(file)} <= allowed


@pytest.mark.parametrize("file", [file for file in FILES if room(file) == "practice"])
def test_the_practice_room_imports_nothing_of_the_rooms_above_but_events(file):
    if not is_front(file):
        assert module(file).split("/")[1] in PRACTICE, "a module the design does not list"
    assert {name for name, _ in imports(file) if not name.startswith("practice/")} - {"practice"} <= {"events"}


def test_no_import_goes_in_a_circle():
    edges = {}
    for file in FILES:
        edges.setdefault(module(file), set()).update(name for name, lazy in imports(file) if name != module(file) and not lazy)
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' → '.join([*path, name])}"
        if name not in done:
            for other in edges.get(name, ()):
                walk(other, (*path, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def test_the_two_lazy_lines_upwards_are_one_each():
    for file, name in LAZY:
        assert sum(found == name for found, _ in imports(file)) <= 1
        assert (name, False) not in imports(file), "it is loaded only when it is needed"


def test_the_launcher_is_standard_library_only_and_imports_nothing_of_the_package():
    assert third_party("practice/launcher.py") <= set(sys.stdlib_module_names)
    assert {name for name, _ in imports("practice/launcher.py")} <= {"practice/launcher"}


# -- what costs what


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_names_no_socket_thread_sdk_or_ipython(name):
    files = [file for file in FILES if module(file) == name]
    for file in files:
        assert (
            third_party(file) & {forbidden.split(".")[0] for forbidden in FORBIDDEN if forbidden not in ("http.client", "urllib.request")}
            == set()
        )
        assert third_party(file) <= set(sys.stdlib_module_names) | {"voicehelper"}


@pytest.mark.parametrize("name", PURE)
def test_importing_a_pure_module_loads_no_socket_thread_sdk_or_ipython(name):
    loaded = python(
        "import sys, json, re, dataclasses, importlib.resources; before = set(sys.modules); "
        f"import voicehelper.{name}; print(*sorted(set(sys.modules) - before))"
    ).split()
    assert f"voicehelper.{name}" in loaded
    assert set(loaded) & set(FORBIDDEN) == set()


@pytest.mark.parametrize("statement", ["import voicehelper", "from voicehelper import SentenceSplitter, Voice, TTSQueue, Settings"])
def test_importing_the_package_loads_neither_websocket_nor_azure_nor_ipython(statement):
    loaded = python(f"{statement}; import sys; print(*sys.modules)").split()
    assert "voicehelper" in loaded
    assert {"websocket", "azure", "azure.cognitiveservices.speech", "IPython", "ipywidgets", "anywidget", "tornado"} & set(loaded) == set()


def test_the_practice_process_never_loads_the_agent_or_the_speech_sdk():
    pytest.importorskip("tornado", reason="tornado is not installed (it comes with JupyterLab)")
    loaded = python("import voicehelper.practice.server, sys; print(*sys.modules)").split()
    assert "voicehelper.practice.server" in loaded
    assert [name for name in loaded if name.startswith(("azure", "voicehelper.agent", "websocket", "IPython"))] == []


# -- how large


def test_each_room_keeps_to_its_number_of_code_lines():
    sizes = dict.fromkeys(LIMITS, 0)
    for file in FILES:
        sizes[room(file)] += len(code_lines(file))
    assert {name: size for name, size in sizes.items() if size > LIMITS[name]} == {}


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_at_most_250_code_lines_and_a_function_40(file):
    functions = [node for node in ast.walk(tree(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    sizes = {node.name: len(code_lines(file) & set(range(node.lineno, node.end_lineno + 1))) for node in functions}
    assert len(code_lines(file)) <= 250
    assert {name: size for name, size in sizes.items() if size > 40} == {}


# -- what a library never does


def calls(file: str, *names: str) -> list[int]:
    """The lines on which one of these is called, such as "print" or "time.sleep"."""
    return [node.lineno for node in ast.walk(tree(file)) if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


@pytest.mark.parametrize("file", FILES)
def test_a_library_module_prints_nothing_but_the_practice_server_s_one_line(file):
    allowed = 1 if file == "practice/server/__init__.py" else 0
    assert file.endswith("__main__.py") or file == "doctor.py" or len(calls(file, "print")) <= allowed


@pytest.mark.parametrize("file", FILES)
def test_no_module_sleeps(file):
    assert calls(file, "time.sleep", "sleep") == []


@pytest.mark.parametrize("file", FILES)
def test_every_file_opens_with_what_it_is(file):
    if code_lines(file):
        assert ast.get_docstring(tree(file))


@pytest.mark.parametrize("name", voicehelper.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    home = getattr(voicehelper, "_HOME", {}).get(name, "")
    if home.startswith("notebook"):
        pytest.importorskip("anywidget", reason="anywidget is not installed (requirements.txt)")
    found = getattr(voicehelper, name)
    assert (found.__doc__ or "").strip()
    assert name in dir(voicehelper)


def test_a_function_keeps_its_name_beside_a_module_of_that_name():
    """Also when the module was imported first, by another one."""
    code = "import voicehelper.speech; from voicehelper import speakable; assert speakable('**yes**') == 'yes'"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = voicehelper.Nonsense


@pytest.mark.parametrize("name", [name for name in WAY if (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir()])
def test_every_public_function_and_class_of_a_module_is_documented(name):
    found = importlib.import_module(f"voicehelper.{name}")
    public = [
        value
        for key, value in vars(found).items()
        if not key.startswith("_") and getattr(value, "__module__", "").startswith(found.__name__)
    ]
    events = importlib.import_module("voicehelper.events")
    assert [
        value.__name__
        for value in public
        if callable(value) and not value.__doc__ and not (name == "events" and issubclass(value, events.Event))
    ] == []


# -- beside the code


@pytest.mark.parametrize("name", [name for name in WAY if (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir()])
def test_every_module_of_the_voice_s_way_has_its_tests(name):
    tests = Path(__file__).parent
    assert (tests / f"test_{name}.py").exists() or (tests / name).is_dir()


@pytest.mark.parametrize("path", sorted((REPO / "notebooks").rglob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path):
    if ".ipynb_checkpoints" in path.parts:
        pytest.skip("a checkpoint is not part of the course")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    assert cells
    assert [cell for cell in cells if cell["cell_type"] == "code" and (cell.get("outputs") or cell.get("execution_count"))] == []
