"""A clean environment for every test, one practice server for those that only need some server, and the list of skips that are allowed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voicehelper.practice.launcher import launch
from voicehelper.settings import REQUIRED, Secret, Settings

KEYS = {name: value for name, value in os.environ.items() if name.startswith("AZURE_")}
for name in [*KEYS, *(name for name in os.environ if name.startswith("VOICEHELPER_") and not name.startswith("VOICEHELPER_TEST"))]:
    del os.environ[name]  # before any test module reads them

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
_skips: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path_factory):
    """No .env of the developer is found: tests run in an empty folder."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def server():
    """A practice server with the pace of a real one for speech, and fast text."""
    started = launch(seed=7, extra=("--tokens-per-second", "600", "--first-byte-ms", "10", "--rtf", "0.01"))
    yield started
    started.close()


@pytest.fixture
def practice(server) -> Settings:
    return Settings.practice(server.realtime_url, server.speech_host, Secret(server.key))


@pytest.fixture(params=["practice", pytest.param("azure", marks=pytest.mark.azure)])
def anywhere(request, server) -> Settings:
    """The same test against the practice server and, when the four keys are set, against Azure."""
    if request.param == "practice":
        return Settings.practice(server.realtime_url, server.speech_host, Secret(server.key))
    if not all(KEYS.get(name) for name in REQUIRED):
        pytest.skip("azure: the four keys are not set")
    return Settings.load(dotenv=os.devnull, environ=KEYS)


def pytest_runtest_logreport(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skips.append((report.nodeid, reason.removeprefix("Skipped: ")))


def pytest_collectreport(report):
    if report.skipped:
        _skips.append((report.nodeid, str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)))


def pytest_sessionfinish(session):
    """In CI a skip that nobody listed is a failure."""
    if not os.environ.get("VOICEHELPER_TEST_STRICT"):
        return
    allowed = [line.strip() for line in ALLOWED.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for node, reason in _skips:
        if not any(reason.removeprefix("Skipped: ").startswith(line) for line in allowed):
            print(f"\na skip that is not listed in {ALLOWED.name}: {node}: {reason}")
            session.exitstatus = 1
