"""Keys stay secret: in every form of a value, in logs, prompts and tracebacks, and in all that the notebooks leave behind."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import json
import logging
import os
import pickle
import pprint
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import websocket

from voicehelper.agent import ConversationAgent
from voicehelper.errors import SettingsError, VoiceHelperError
from voicehelper.player import SilentPlayer
from voicehelper.practice.launcher import launch
from voicehelper.settings import REQUIRED, Secret, Settings

from .scripted import Scripted, serving, settings_for
from .support import limit, made_up, made_up_key, scaled, shows, wait_for

LOGGERS = ("voicehelper", "websocket")


def made_settings(key: str, speech_key: str) -> Settings:
    return Settings("azure", "wss://example.openai.azure.com/openai/v1/realtime", Secret(key), speech_key=Secret(speech_key))


# -- the value


def of_pretty(value) -> str:
    return pytest.importorskip("IPython.lib.pretty").pretty(value)


def of_inspector(value) -> str:
    """What `value?` shows in a cell."""
    return str(pytest.importorskip("IPython.core.oinspect").Inspector().info(value, detail_level=1))


def of_attributes(value) -> str:
    return repr([getattr(value, name) for name in dir(value)])


WAYS = {
    **{way.__name__: way for way in (repr, str, ascii, vars, copy.copy, copy.deepcopy, pprint.pformat, dataclasses.asdict)},
    **{way.__name__: way for way in (dataclasses.astuple, inspect.getmembers, of_pretty, of_inspector, of_attributes, object.__repr__)},
    **{f"format {spec!r}": lambda value, spec=spec: format(value, spec) for spec in ("", ">80", ".200", "s", "r", "x", "d")},
    **{f"percent {sign}": sign.__mod__ for sign in ("%s", "%r", "%80s", "%a", "%d")},
    **{f"pickle {number}": partial(pickle.dumps, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    **{f"json {default}": partial(json.dumps, default=default) for default in (None, str, repr, vars, dataclasses.asdict)},
    "getstate": lambda value: value.__getstate__(),
    "reduce": lambda value: value.__reduce_ex__(4),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "inside", [lambda value: value, lambda value: [value], lambda value: {"it": (value,)}], ids=["bare", "list", "dict"]
)
def test_no_way_of_printing_or_saving_shows_a_key(way, inside):
    key, speech_key = made_up_key(84), made_up_key(32)
    settings = made_settings(key, speech_key)
    for value in (settings.openai_key, settings):
        try:
            shown = way(inside(value))
            shown = shown.decode("latin-1") if isinstance(shown, bytes) else f"{shown!r} {shown}"
        except Exception as refusal:
            shown = f"{refusal!r} {refusal}"
        assert not shows(shown, key) + shows(shown, speech_key)


def test_a_secret_is_revealed_by_reveal_alone():
    key = made_up_key()
    assert Secret(key).reveal() == key
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(key))


# -- logs


@pytest.fixture(params=LOGGERS)
def written(request):
    """A logger and the list that its records end in, formatted as by any handler."""
    logger, lines, level = logging.getLogger(request.param), [], logging.getLogger(request.param).level

    class Keeps(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record) + repr(vars(record)))

    handler = Keeps()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger, lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_logger_shows_no_key_in_message_arguments_traceback_or_stack(written):
    logger, lines = written
    key, speech_key, word = made_up_key(84), made_up_key(), made_up()
    held = made_settings(key, speech_key)
    logger.info("%s: %s and %(x)s".replace("%(x)s", "%s"), word, key, speech_key)
    logger.warning(f"{word} {key[5:20]} {{}} %")
    logger.info({"word": word, "key": key})
    logger.info(ValueError(f"{word} {speech_key}"))
    logger.info("%(word)s %(key)s", {"word": word, "key": key})
    try:
        raise ValueError(f"{word} {key}")
    except ValueError as error:
        logger.exception("it failed")
        logger.error("it failed", exc_info=error, stack_info=True)
        logger.error("%s", speech_key, exc_info=True)
    assert len(lines) == 8
    assert all("****" in line for line in lines)
    assert all(word in line for line in lines)
    assert sum("Traceback" in line and "ValueError" in line for line in lines) == 3
    assert not [line for line in lines if shows(line, key) or shows(line, speech_key)]
    assert held


def test_a_key_that_does_not_fit_its_message_raises_nothing_and_is_not_shown(written):
    logger, lines = written
    key = made_up_key()
    held = made_settings(key, key)
    logger.info("%d", key)
    logger.info("no place for it", key)
    assert ["****" in line for line in lines] == [True, True]
    assert not shows("".join(lines), key)
    assert held


def test_a_record_without_a_key_says_what_it_said(written):
    logger, lines = written
    held, word = made_settings(made_up_key(), made_up_key()), made_up()
    logger.info("%d%% of %s", 5, word)
    assert lines[0].startswith(f"5% of {word}{{")
    assert held


def test_the_keys_of_all_settings_in_use_are_masked_and_no_old_one_is_held(written):
    from voicehelper.settings import _LIVE

    logger, lines = written
    keys = [made_up_key() for _ in range(50)]
    held = [made_settings(key, key) for key in keys]
    for key in keys:
        logger.info(key)
    assert not [line for line, key in zip(lines, keys, strict=True) if shows(line, key)]
    before = len(_LIVE)
    del held
    for _ in range(scaled(10_000)):
        made_settings(made_up_key(), made_up_key())
    gc.collect()
    assert len(_LIVE) <= before - 2 * len(keys)


def test_settings_are_made_while_other_threads_log(written):
    logger, _ = written
    stop, faults = threading.Event(), []

    def log():
        try:
            while not stop.is_set():
                logger.info("%s", "x")
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=log, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(scaled(3000)):
        made_settings(made_up_key(), made_up_key())
    stop.set()
    for thread in threads:
        thread.join(5)
    assert faults == []


@contextmanager
def tracing():
    """`websocket.enableTrace(True)` into a list."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    websocket.enableTrace(True, handler)
    try:
        yield lines
    finally:
        websocket.enableTrace(False)


def test_the_trace_of_websocket_client_shows_the_header_without_the_key():
    key = made_up_key(84)
    with serving(Scripted) as port, tracing() as lines:
        settings = settings_for(port, key)
        own = socket.create_connection(("127.0.0.1", port))
        websocket.create_connection(settings.url, header={"api-key": settings.openai_key.reveal()}, socket=own, timeout=5).shutdown()
    assert "api-key: ****" in "".join(lines)
    assert not shows("".join(lines), key)


def test_no_connection_is_opened_while_websocket_client_traces():
    with serving(Scripted) as port, tracing() as lines:
        with pytest.raises(SettingsError, match="enableTrace") as refused:
            ConversationAgent.connect(settings_for(port, made_up_key()), player=SilentPlayer(), replace=False)
        assert "enableTrace(False)" in refused.value.hint
        assert lines == []


# -- the proxy of the environment

PROXIES = (
    "http://somebody:{0}/{1}@127.0.0.1:9",
    "http://somebody:{0}/{1}@127.0.0.1:9x",
    "http://{0}:{1}[@127.0.0.1:9",
    "{0}/{1}@127.0.0.1:9",
)


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_the_password_of_a_proxy_is_shown_by_no_error_and_not_by_the_doctor(monkeypatch, variable, proxy):
    """Also where an unescaped character in it makes the address unreadable: then the password stands in the place of the port."""
    from voicehelper.doctor import examine

    words = made_up_key(10), made_up_key(10)
    monkeypatch.setenv(variable, proxy.format(*words))
    settings = made_settings(made_up_key(), made_up_key())
    with pytest.raises(VoiceHelperError) as failed:
        ConversationAgent.connect(settings, player=SilentPlayer(), replace=False)
    shown = f"{failed.value} {failed.value!r} {examine(dataclasses.replace(settings, speech_host='ws://127.0.0.1:9'), out=str)}"
    assert not [word for word in words if shows(shown, word, 5)]


# -- asking for a key


@limit(60)
def test_a_terminal_does_not_show_the_key_that_is_typed(tmp_path):
    """A real terminal: what is typed for a key is not echoed, what is typed for the others is."""
    pytest.importorskip("pty", reason="no pseudo terminals on this system")
    answers = dict(zip(REQUIRED, ("example.openai.azure.com", made_up_key(84), made_up_key(), "westeurope"), strict=True))
    code = "from voicehelper import Settings; print('ready:', Settings.ask().where)"
    terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", sys.executable, "-c", code]
    shown = b""
    with subprocess.Popen(terminal, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=tmp_path) as process:
        for sign, answer in [*((f"{name}: ", answer) for name, answer in answers.items()), ("ready: Azure", "")]:
            while sign.encode() not in shown:
                assert (more := process.stdout.read(4096)), shown
                shown += more
            process.stdin.write(f"{answer}\n".encode())
        shown += process.stdout.read()
    assert b"westeurope" in shown
    assert not [name for name, key in answers.items() if "KEY" in name and shows(shown.decode(), key)]
    assert list(tmp_path.iterdir()) == []


# -- kernels and everything they leave behind


def kernel(folder: Path, **environment: str):
    """A fresh kernel whose home, temporary files, history, log and standard streams all lie in a folder."""
    manager_of = pytest.importorskip("jupyter_client.manager").KernelManager
    for name in ("work", "ipython", "tmp"):
        (folder / name).mkdir(parents=True)
    quiet = {"VOICEHELPER_SOUND": "silent", "VOICEHELPER_TIME_SCALE": "20"}
    places = {"IPYTHONDIR": str(folder / "ipython"), "TMPDIR": str(folder / "tmp")}
    manager = manager_of(kernel_name="python3")
    with open(folder / "streams.txt", "wb") as streams:
        manager.start_kernel(cwd=str(folder / "work"), env={**os.environ, **quiet, **places, **environment}, stdout=streams, stderr=streams)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    return manager, client


def run(client, *cells: str, stdin=None, timeout: float = 90) -> str:
    """Execute cells; everything the frontend was sent, as JSON, errors included, without the colours (they would cut a key to pieces)."""
    said = []
    for cell in cells:
        more = {"stdin_hook": stdin, "allow_stdin": True} if stdin else {}
        client.execute_interactive(cell, output_hook=lambda message: said.append(message["content"]), timeout=timeout, **more)
    return re.sub(r"\\u001b\[[\d;]*m", "", json.dumps(said, ensure_ascii=False, default=str))


def end(manager, client) -> None:
    client.shutdown()
    wait_for(lambda: not manager.is_alive(), 20)
    client.stop_channels()
    manager.cleanup_resources()


def leaks(folder: Path, key: str) -> list[str]:
    """The files below a folder that show 8 characters of a key."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if shows(path.read_bytes().decode("latin-1"), key)]


LOG = "import logging\nlogging.basicConfig(filename='../log.txt', level=logging.DEBUG)"


@limit(120)
def test_a_notebook_asks_for_keys_in_a_field_that_shows_nothing(tmp_path):
    answers = dict(zip(REQUIRED, ("example.openai.azure.com", made_up_key(84), made_up_key(), "westeurope"), strict=True))
    manager, client = kernel(tmp_path)
    asked = []

    def answer(message):
        asked.append((message["content"]["prompt"], message["content"]["password"]))
        client.input(answers[message["content"]["prompt"].strip(": ")])

    shown = run(client, LOG, "from voicehelper import Settings\nsettings = Settings.ask()\nprint(settings.where)", "settings", stdin=answer)
    end(manager, client)
    assert asked == [(f"{name}: ", "KEY" in name) for name in REQUIRED]
    assert "Azure OpenAI at example.openai.azure.com" in shown
    keys = [answers[name] for name in REQUIRED if "KEY" in name]
    assert not [key for key in keys if shows(shown, key) or leaks(tmp_path, key)]
    assert list((tmp_path / "work").iterdir()) == []


@pytest.fixture(scope="module")
def marked():
    """A practice server with a key of our making."""
    key = made_up_key(48)
    server = launch(extra=("--key", key, "--tokens-per-second", "600", "--first-byte-ms", "10", "--rtf", "0.01"))
    yield key, server, {"VOICEHELPER_PRACTICE_URL": server.speech_host.replace("ws:", "http:"), "VOICEHELPER_PRACTICE_KEY": key}
    server.close()


CONNECT = "from voicehelper import ConversationAgent\nagent = ConversationAgent.connect()\nsettings, connection = agent.settings, agent.connection"


@limit(400)
def test_all_notebooks_run_and_leave_no_key_anywhere(tmp_path, marked):
    """One kernel, all notebooks, a key made for this run: it is in no output, stream, log, history or saved file."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (requirements.txt)")
    key, server, environment = marked
    manager, client = kernel(tmp_path, **environment)
    notebooks = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
    cells = [cell.source for path in notebooks for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    shown = run(
        client, LOG, *cells, "print(agent.practice, agent.settings.backend, agent.turns[-1].status)", "agent.events.save('events.jsonl')"
    )
    end(manager, client)
    assert len(cells) > 50
    assert "None practice done" in shown  # it was the marked server that answered
    assert '"ename"' not in shown, re.findall(r'"ename": .{200}', shown)
    request = urllib.request.Request(f"{environment['VOICEHELPER_PRACTICE_URL']}/practice/log", headers={"api-key": key})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        wire = answer.read().decode()
    assert "response.create" in wire
    assert (tmp_path / "work" / "events.jsonl").stat().st_size > 0
    found = {"outputs": shows(shown, key), "wire log": shows(wire, key), "server": shows(server.tail(), key), "files": leaks(tmp_path, key)}
    assert not any(found.values()), found


FAILING = {
    "def failing(agent, settings, connection, secret, fields):\n    return sum([agent, settings, connection, secret, fields])\n"
    "failing(agent, settings, connection, settings.speech_key, vars(settings))": "TypeError",
    "settings.mask(None)": "TypeError",
    "import pickle\npickle.dumps([settings, agent.settings.openai_key])": "TypeError",
    "import json\njson.dumps({'settings': settings, 'connection': connection})": "TypeError",
    "import dataclasses\ndataclasses.asdict(settings)": "TypeError",
    "agent.speak_response('Hello.').utterances[0].clip.nonsense": "AttributeError",
    "from voicehelper import Settings\nimport os\nSettings.load('', {**os.environ, 'AZURE_OPENAI_KEY': 'x'})": "SettingsError",
    "agent.events.save('nowhere/events.jsonl')": "InputError",
}


@limit(120)
def test_verbose_tracebacks_of_a_real_kernel_show_no_key(tmp_path, marked):
    key, _, environment = marked
    manager, client = kernel(tmp_path, **environment)
    run(client, LOG, CONNECT, "%xmode Verbose")
    shown = {cell: run(client, cell) for cell in FAILING}
    end(manager, client)
    assert [name for name in FAILING.values() if not any(f'"ename": "{name}"' in text for text in shown.values())] == []
    assert "secret=Secret('****')" in next(iter(shown.values()))  # local variables are shown, and the key is not
    assert [cell for cell, text in shown.items() if shows(text, key)] == []
    assert leaks(tmp_path, key) == []


@limit(120)
@pytest.mark.skipif(os.name == "nt", reason="an Interrupt is another thing on Windows")
def test_a_verbose_traceback_of_an_interrupt_during_the_handshake_shows_no_key(tmp_path):
    """A server that takes the connection and never answers; the kernel is interrupted while the library waits, with the header in its hands."""
    key = made_up_key(84)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        four = dict(zip(REQUIRED, (f"http://127.0.0.1:{silent.getsockname()[1]}", key, key, "westeurope"), strict=True))
        manager, client = kernel(tmp_path, **four)
        run(client, LOG, "%xmode Verbose")
        waiter = threading.Thread(target=lambda: (silent.accept()[0].recv(4096), manager.interrupt_kernel()), daemon=True)
        waiter.start()
        shown = run(client, CONNECT)
        waiter.join(10)
        end(manager, client)
    assert '"ename": "KeyboardInterrupt"' in shown
    assert not shows(shown, key)
    assert leaks(tmp_path, key) == []


CARELESS = {
    "print(settings.openai_key.reveal())": "outputs",
    "settings.openai_key.reveal()[3:11]": "outputs",
    "%xmode Verbose\ndef careless(key):\n    return len(key) // 0\ncareless(settings.openai_key.reveal())": "outputs",
    "from IPython.display import HTML\nHTML(f'<p data-key={settings.openai_key.reveal()}>')": "outputs",
    "open('saved.txt', 'w').write(settings.openai_key.reveal())": "work/saved.txt",
    "logging.getLogger('another').debug(settings.openai_key.reveal())": "log.txt",
    "import os; os.write(2, settings.openai_key.reveal().encode())": "streams.txt",
    "open(os.environ['TMPDIR'] + '/left', 'w').write(settings.openai_key.reveal()[:8])": "tmp/left",
}


@limit(120)
def test_the_canary_sees_a_cell_that_is_careless_with_the_key(tmp_path, marked):
    """The two tests above can fail: each of these cells shows the key in one place, and is seen there."""
    key, _, environment = marked
    manager, client = kernel(tmp_path, **environment)
    run(client, LOG, CONNECT)
    seen = {cell: shows(run(client, cell), key) for cell in CARELESS}
    end(manager, client)
    assert {cell for cell, pieces in seen.items() if pieces} == {cell for cell, place in CARELESS.items() if place == "outputs"}
    assert set(leaks(tmp_path, key)) >= {place for place in CARELESS.values() if place != "outputs"}
