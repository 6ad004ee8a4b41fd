"""The doctor: each step that works is told with its seconds, each that fails in its own line with a remedy, and nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import voicehelper
from voicehelper import doctor, speech
from voicehelper.doctor import CHAT, examine
from voicehelper.practice.launcher import launch
from voicehelper.settings import REQUIRED, Secret, Settings

from .scripted import Answer, Scripted, serving, settings_for
from .support import limit, made_up, made_up_key, shows, wait_for

pytestmark = limit(90)
STEPS = (*CHAT, "speech")
LINE = re.compile(r"(?P<sign>[✓✗–]) (?P<name>\w+) +(?P<seconds>\d+\.\d\d) s  (?P<text>.+)")
PLACE = re.compile(r"practice server on (127\.0\.0\.1):(\d+)")


def told(checks) -> dict[str, str]:
    """What each step says."""
    return {name: text for name, _, _, text in checks}


def signs(checks) -> str:
    return "".join(sign for _, sign, _, _ in checks)


def expected(failed: str) -> str:
    """The signs of a round in which one step of the chat failed, or the speech."""
    if failed == "speech":
        return "✓" * len(CHAT) + "✗"
    at = CHAT.index(failed)
    return "✓" * at + "✗" + "–" * (len(CHAT) - at - 1) + "✓"


@contextmanager
def practising(*faults: str):
    """A practice server with these faults; yields its settings and itself."""
    server = launch(extra=[word for fault in faults for word in ("--fault", fault)])
    try:
        yield Settings.practice(server.realtime_url, server.speech_host, Secret(server.key)), server
    finally:
        server.close()


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(voicehelper.__file__).parents[1]), **more}


def command(*arguments: str, **more: str) -> tuple[int, str, str]:
    """The exit code, the output and the errors of `python -m voicehelper.doctor`."""
    asked = [sys.executable, "-m", "voicehelper.doctor", *arguments]
    done = subprocess.run(asked, env=environment(**more), capture_output=True, timeout=60, encoding="utf-8")
    return done.returncode, done.stdout, done.stderr


def read(output: str) -> list[tuple[str, str, float, str]]:
    """The checks of an output; every line must be one."""
    found = [LINE.fullmatch(line) for line in output.splitlines()]
    assert all(found), output
    return [(match["name"], match["sign"], float(match["seconds"]), match["text"]) for match in found]


def is_free(port: int) -> bool:
    """Nothing listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- when all is well


def test_without_any_setting_every_step_works_on_a_practice_server_of_its_own():
    """Exit code 0, a line for each step with its seconds, and the server is gone afterwards."""
    code, output, errors = command()
    checks = read(output)
    assert (code, errors) == (0, "")
    assert [check[0] for check in checks] == list(STEPS)
    assert signs(checks) == "✓" * len(STEPS)
    assert sum(check[2] for check in checks) > 0
    assert is_free(int(PLACE.search(told(checks)["settings"])[2]))


def test_every_step_works_anywhere_and_says_what_it_saw(anywhere):
    lines = []
    checks = examine(anywhere, out=lines.append)
    assert signs(checks) == "✓" * len(STEPS), lines
    assert [LINE.fullmatch(line)["text"] for line in lines] == [check[3] for check in checks]
    says = told(checks)
    assert anywhere.where in says["settings"]
    assert anywhere.deployment in says["deployment"]
    assert re.search(r"first delta after \d+\.\d\d s", says["answer"])
    assert re.search(r"Aria.* 'Hello\.' in \d\.\d s", says["speech"])


def test_in_a_cell_it_prints_the_lines_and_returns_the_checks(server, monkeypatch, capsys):
    """A server that VOICEHELPER_PRACTICE_URL names is used, and left alone."""
    monkeypatch.setenv("VOICEHELPER_PRACTICE_URL", server.realtime_url)
    monkeypatch.setenv("VOICEHELPER_PRACTICE_KEY", server.key)
    checks = examine()
    printed = read(capsys.readouterr().out)
    assert [check[:2] + check[3:] for check in printed] == [check[:2] + check[3:] for check in checks]
    assert server.realtime_url.split("/")[2] in told(checks)["settings"]
    assert server.alive()


def test_it_leaves_no_thread_no_process_and_no_socket_behind(practice):
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install -e '.[test]'")
    me = psutil.Process()
    examine(practice, out=str)  # the SDK keeps some of its own from the first time on
    threads, children = set(threading.enumerate()), me.children(recursive=True)
    sockets = len(me.net_connections())
    for settings in (practice, Settings("practice"), settings_for(free_port())):
        examine(settings, out=str)
        wait_for(lambda: set(threading.enumerate()) <= threads)
        wait_for(lambda: len(me.net_connections()) <= sockets)
        assert me.children(recursive=True) == children


# -- each failure in its own line


@pytest.mark.parametrize(
    ("fault", "step", "words", "remedy"),
    [
        ("bad_key", "handshake", "refused the key (401", "AZURE_OPENAI_KEY"),
        ("rate_limit_handshake", "handshake", "429", "Try again in 2 s"),
        ("no_deployment", "handshake", "no deployment named", "AZURE_OPENAI_DEPLOYMENT"),
        ("not_realtime_model", "handshake", "is not a realtime model", "AZURE_OPENAI_DEPLOYMENT"),
        ("one_bad_field", "session", "session.practice_fault", "it names the field"),
        ("server_error:always", "answer", "The server had an error", "try again in a minute"),
        ("rate_limit_response:always", "answer", "Rate limit", "try again in a minute"),
        ("max_tokens", "answer", "length limit", "try again in a minute"),
        ("empty_answer", "answer", "no complete answer", "try again in a minute"),
        ("drop_mid_answer", "answer", "connection was lost", "try again in a minute"),
        ("speech_bad_key:always", "speech", "AuthenticationFailure", "AZURE_SPEECH_KEY"),
        ("speech_throttled", "speech", "TooManyRequests", "larger tier"),
        ("speech_zero_bytes", "speech", "no sound", "AZURE_SPEECH_REGION"),
        ("speech_bad_ssml", "speech", "BadRequest", "name of the voice"),
    ],
)
def test_a_fault_of_the_service_fails_the_step_it_belongs_to_and_only_what_needs_it(fault, step, words, remedy):
    """The steps of the chat after it are skipped; the voice does not depend on the chat."""
    with practising(fault) as (settings, _):
        checks = examine(settings, out=str)
    assert signs(checks) == expected(step), checks
    seen, _, advice = told(checks)[step].partition(" → ")
    assert words in seen
    assert remedy in advice
    assert all(text == "skipped" for _, sign, _, text in checks if sign == "–")


@pytest.mark.parametrize(("fault", "step"), [("bad_key", "handshake"), ("one_bad_field", "session"), ("speech_throttled", "speech")])
def test_the_command_exits_with_1_when_a_step_failed_and_writes_nothing_but_its_lines(fault, step):
    with practising(fault) as (_, server):
        code, output, errors = command(VOICEHELPER_PRACTICE_URL=server.realtime_url, VOICEHELPER_PRACTICE_KEY=server.key)
    assert (code, signs(read(output)), errors) == (1, expected(step), "")
    assert shows(output, server.key) == []


@pytest.mark.parametrize(
    ("fault", "step", "words"), [("stall", "answer", "no complete answer came"), ("speech_silent:always", "speech", "no complete sound")]
)
def test_a_step_that_hangs_is_given_up_after_its_time(fault, step, words, monkeypatch):
    monkeypatch.setattr(doctor, "STEP_S", 1.5)
    monkeypatch.setattr(speech, "FIRST_BYTE_S", 1.5)
    with practising(fault) as (settings, _):
        checks = examine(settings, out=str)
    assert signs(checks) == expected(step), checks
    assert words in told(checks)[step]
    assert 1.5 <= checks[STEPS.index(step)][2] < 6


def test_a_name_server_that_never_answers_is_given_up_after_its_time(practice, monkeypatch):
    """The voice, whose SDK asks by itself, is tried all the same."""
    answered = threading.Event()
    monkeypatch.setattr(doctor, "STEP_S", 1.5)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30))
    checks = examine(practice, out=str)
    answered.set()
    assert signs(checks) == expected("host"), checks
    assert "did not answer" in told(checks)["host"]
    assert checks[STEPS.index("host")][2] < 6


def test_no_step_is_begun_when_the_time_is_up(practice, monkeypatch):
    """Skipped is not passed."""
    monkeypatch.setattr(doctor, "LAST_S", 0.0)
    assert signs(examine(practice, out=str)) == "–" * len(STEPS)


def test_a_host_that_does_not_exist_is_named_with_its_setting(practice):
    missing = f"{made_up().lower()}.invalid"
    key = Secret(made_up_key())
    place = Settings("azure", f"wss://{missing}/openai/v1/realtime", key, "d", practice.speech_key, speech_host=practice.speech_host)
    checks = examine(place, out=str)
    assert signs(checks) == expected("host"), checks
    assert f"no host named {missing} was found → Check AZURE_OPENAI_ENDPOINT" in told(checks)["host"]


def test_a_port_where_nothing_listens_is_told_from_a_refusal(monkeypatch):
    """Also for the voice, which would be there."""
    port = free_port()
    code, output, _ = command(VOICEHELPER_PRACTICE_URL=f"http://127.0.0.1:{port}")
    checks = read(output)
    assert (code, signs(checks)) == (1, expected("network")[:-1] + "✗")
    assert f"nothing answers on 127.0.0.1:{port} (connection refused) → Check the address and the port" in told(checks)["network"]
    assert "AZURE_SPEECH_REGION" in told(checks)["speech"]


def test_the_proxy_is_looked_up_reached_and_named_without_its_password(practice, monkeypatch):
    """A proxy that refuses to connect further fails the handshake; one that is not there fails the network."""
    password, host = made_up_key(), f"{made_up().lower()}.openai.azure.com"
    key = Secret(made_up_key())
    place = Settings("azure", f"wss://{host}/openai/v1/realtime", key, "d", practice.speech_key, speech_host=practice.speech_host)
    with serving(Answer, status=200) as port:
        for proxy, failed in ((port, "handshake"), (free_port(), "network")):
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@localhost:{proxy}")
            lines: list[str] = []
            checks = examine(place, out=lines.append)
            assert signs(checks) == expected(failed), checks
            assert "HTTPS_PROXY" in told(checks)["settings"]
            assert re.fullmatch(r"localhost is \S+, the proxy", told(checks)["host"])
            assert shows("\n".join(lines), password) == []
            assert shows("\n".join(lines), key.reveal()) == []


def test_a_password_with_a_slash_in_the_proxy_s_address_is_not_taken_apart_and_shown(practice, monkeypatch):
    """Many a parser takes its first half for a port, and quotes it."""
    password, port = made_up_key(), free_port()
    place = Settings("azure", f"wss://{made_up().lower()}.openai.azure.com", Secret(made_up_key()), "d", speech_host=practice.speech_host)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password[:4]}/{password}@localhost:{port}")
    lines: list[str] = []
    checks = examine(place, out=lines.append)
    assert f"nothing answers on localhost:{port} (the proxy)" in told(checks)["network"]
    assert shows("\n".join(lines), password, 4) == []


def test_a_proxy_in_the_environment_does_not_stand_before_the_practice_server(practice, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    checks = examine(practice, out=str)
    assert signs(checks) == "✓" * len(STEPS)
    assert "http_proxy" in told(checks)["settings"]
    assert "proxy" not in told(checks)["host"]


def test_something_that_is_not_the_service_is_told_as_such():
    with serving(Answer, status=200, body="<html>log in</html>") as port:
        checks = examine(settings_for(port), out=str)
    assert signs(checks)[: len(CHAT)] == expected("handshake")[: len(CHAT)]
    assert "not the Realtime service" in told(checks)["handshake"]


def test_a_session_that_is_not_applied_as_asked_fails_with_the_field():
    def ignored(asked):
        return {"type": "session.updated", "event_id": "e", "session": {**asked["session"], "max_output_tokens": 7}}

    with serving(Scripted, confirm=ignored) as port:
        checks = examine(settings_for(port), out=str)
    assert "session.max_output_tokens" in told(checks)["session"]


# -- the settings


def test_an_incomplete_env_file_is_told_by_names_only_and_nothing_else_is_tried(tmp_path, monkeypatch):
    """What is found, what is missing, what is still a placeholder."""
    key = made_up_key()
    lines = (
        f"AZURE_OPENAI_KEY={key}",
        "AZURE_SPEECH_KEY=your_speech_key",
        "AZURE_SPEECH_REGION=westeurope",
        f"OPENAI_ENDPOINT=https://{key}",
    )
    (tmp_path / ".env").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    code, output, _ = command()
    checks = read(output)
    assert (code, signs(checks)) == (1, "✓✗" + "–" * (len(STEPS) - 2))
    assert told(checks)["names"] == "found: AZURE_OPENAI_KEY, AZURE_SPEECH_REGION, OPENAI_ENDPOINT (not read)"
    assert "AZURE_OPENAI_ENDPOINT is missing, AZURE_SPEECH_KEY is still a placeholder → Fill in .env" in told(checks)["settings"]
    assert shows(output, key) == []
    assert "westeurope" not in output


@pytest.mark.parametrize(
    "name", ["AZUER_OPENAI_KEY", "AZURE_OPENAI_KEYS", "azure_openai_key", "OPENAI_API_KEY", "AZURE_REGION", "SPEECH_KEY"]
)
def test_a_name_that_was_not_spelled_right_is_pointed_at(practice, monkeypatch, name):
    monkeypatch.setenv(name, made_up_key())
    assert told(examine(practice, out=str))["names"] == f"found: {name} (not read)"


def test_an_env_file_that_cannot_be_read_fails_the_first_step(monkeypatch):
    os.mkdir(".env")
    monkeypatch.setattr("dotenv.find_dotenv", lambda **_: os.path.abspath(".env"))
    checks = examine(out=str)
    assert signs(checks) == "✗" + "–" * (len(STEPS) - 1)
    assert "can't be read" in told(checks)["names"]


def test_the_backend_can_be_chosen_on_the_command_line(monkeypatch):
    """Practice although a setting is there, azure although none is, and nothing else."""
    monkeypatch.setenv("AZURE_SPEECH_KEY", made_up_key())
    code, output, _ = command("practice")
    assert (code, signs(read(output))) == (0, "✓" * len(STEPS))
    monkeypatch.delenv("AZURE_SPEECH_KEY")
    code, output, _ = command("azure")
    assert code == 1
    assert all(f"{name} is missing" in told(read(output))["settings"] for name in REQUIRED)
    code, output, _ = command(made_up())
    assert (code, signs(read(output))) == (1, "✓✗" + "–" * (len(STEPS) - 2))
    assert "azure or practice" in told(read(output))["settings"]


def test_a_practice_server_that_cannot_start_is_a_failure_in_one_line(monkeypatch):
    """Its last words have several."""
    monkeypatch.setenv("VOICEHELPER_TIME_SCALE", made_up())
    lines: list[str] = []
    assert signs(examine(out=lines.append)) == "✓✗" + "–" * (len(STEPS) - 2)
    assert all(map(LINE.fullmatch, lines)), lines
    assert "the practice server did not start" in lines[1]


# -- the manners of a command


def test_no_key_is_shown_whoever_says_it(tmp_path):
    """The service quotes the key, whole and cut, in its refusal, on both protocols."""
    key = made_up_key(40)
    for said in (key, key[:12], key[-9:]):
        lines: list[str] = []
        with serving(Answer, status=401, body=f'{{"error": {{"message": "{said} is not a key"}}}}') as port:
            checks = examine(settings_for(port, key), out=lines.append)
        assert "****" in told(checks)["handshake"]
        assert shows(f"{lines} {checks}", key) == []


def test_a_key_in_the_wrong_line_of_the_settings_is_not_shown_either(practice):
    key = made_up_key()
    for deployment in (key, f"my-{key[5:20]}"):
        checks = examine(Settings("practice", practice.realtime_url, Secret(key), deployment, speech_host=practice.speech_host), out=str)
        assert signs(checks) == expected("handshake")[:-1] + "✗", "the made-up key opens nothing"
        assert shows(str(checks), key) == []
    checks = examine(Settings("azure", practice.realtime_url, practice.openai_key, practice.openai_key.reveal(), speech_host="x"), out=str)
    assert "****" in told(checks)["settings"] and "****" in told(checks)["deployment"]
    assert shows(str(checks), practice.openai_key.reveal()) == []


def test_the_signs_arrive_whatever_the_encoding_of_the_terminal():
    code, output, _ = command(PYTHONIOENCODING="cp1252")
    assert (code, signs(read(output))) == (0, "✓" * len(STEPS))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_it_with_code_130_no_traceback_and_no_server_left():
    """In the middle of an answer that never ends."""
    asked = [sys.executable, "-m", "voicehelper.doctor"]
    with practising("stall") as (_, server):
        more = {"VOICEHELPER_PRACTICE_URL": server.realtime_url, "VOICEHELPER_PRACTICE_KEY": server.key}
        process = subprocess.Popen(asked, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        while LINE.fullmatch(line := process.stdout.readline().rstrip())["name"] != "session":
            assert line[0] == "✓"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=5)
    assert (process.returncode, output, errors) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_also_ends_the_practice_server_it_started():
    asked = [sys.executable, "-m", "voicehelper.doctor"]
    process = subprocess.Popen(asked, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    while not (place := PLACE.search(process.stdout.readline())):
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert "Traceback" not in errors
    assert is_free(int(place[2]))
