"""Every fault of the practice server, as its user sees it: one table, run row by row, and printed in the README.

troubleshooting.json says for each fault how the turn and its speech end, what is read, and how much of the text is kept. Each row is played by
the real clients; `python -m tests.test_troubleshooting` writes the table into README.md.
"""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.practice.conftest import arm, named_key, suffix, wire_log
from voicehelper import ConversationAgent, SilentPlayer
from voicehelper import conversation as heart
from voicehelper.errors import VoiceHelperError
from voicehelper.practice.launcher import launch
from voicehelper.settings import Secret, Settings

ROOT = Path(__file__).parents[1]
ROWS = {row["fault"]: row for row in json.loads(Path(__file__).with_name("troubleshooting.json").read_text("utf-8"))}
FAULTS = json.loads((ROOT / "voicehelper/practice/faults.json").read_text("utf-8"))
BEFORE_CONNECTING = ("handshake", "update", "speech_handshake")
HEADING = "## Troubleshooting"
FASTER = 10  # than the limits of the design


def played(fault: str, server) -> dict:
    """One conversation with one question under one fault: the row that a user could write."""
    name, where = suffix(), FAULTS[fault]["where"]
    settings = Settings.practice(server.realtime_url, server.speech_host, Secret(named_key(server, name)))
    if where in BEFORE_CONNECTING:
        arm(server, fault + (":always" if where == "speech_handshake" else ""), name=name)
    try:
        agent = ConversationAgent.connect(settings, player=SilentPlayer(clock=lambda: time.monotonic() * 20), replace=False)
    except VoiceHelperError as error:
        return _row(fault, "no session", type(error).__name__, str(error), "–", settings)
    with agent:
        if where not in BEFORE_CONNECTING:
            arm(server, fault, name=name)
        turn = agent.ask("Tell me a joke about programmers")
        assert turn.wait(60), turn
        # what a user read: why the text ended, what was said while it waited, why a sentence was not spoken
        reasons = [turn.reason, *(item.reason for item in turn.utterances if item.status == "failed")]
        waits = [line.removeprefix("⏳ ") for line in agent.player.notices if line.startswith("⏳ ")][:1]
        told = agent.conversation.turns[-1].text
        sent = "".join(
            entry["body"]["delta"]
            for entry in wire_log(server, name, type="response.output_text.delta")
            if entry["body"]["response_id"] == turn.response_id
        )
    whole = {entry["body"]["text"] for entry in wire_log(server, name, type="response.output_text.done")}
    assert sent.startswith(told)
    kept = "nothing" if not told else "all of it" if told in whole and turn.status == "done" else "the beginning"
    said = next(iter([reason for reason in reasons if reason] + waits), "–")
    return _row(fault, turn.status, turn.speech, said, kept, settings)


def _row(fault: str, status: str, speech: str, says: str, kept: str, settings: Settings) -> dict:
    place = settings.speech_host.removeprefix("ws://")
    for text, sign in ((place, "HOST"), (settings.deployment, "NAME")):
        says = says.replace(text, sign)
    return {"fault": fault, "text": status, "speech": speech, "reads": re.sub(r"\d+(\.\d+)? s\b", "… s", says), "kept": kept}


@pytest.fixture(scope="module")
def seen():
    """All of them at once: most of them only wait."""
    server = launch(seed=7, extra=("--tokens-per-second", "60", "--rtf", "0.1", "--time-scale", str(FASTER)))
    limits = {name: getattr(heart, name) for name in ("FIRST_EVENT_S", "DELTA_GAP_S", "CONFIRM_S", "CANCEL_S")}
    for name, seconds in limits.items():
        setattr(heart, name, seconds / FASTER)
    try:
        with ThreadPoolExecutor(8) as pool:
            rows = {fault: pool.submit(played, fault, server) for fault in FAULTS}
        yield rows
    finally:
        for name, seconds in limits.items():
            setattr(heart, name, seconds)
        server.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_as_the_table_says(seen, fault):
    assert seen[fault].result() == ROWS.get(fault)


def test_the_table_has_a_row_for_every_fault_and_no_other():
    assert list(ROWS) == list(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_read_is_a_sentence_that_says_what_to_do(fault):
    """Where something was lost; no class names of a library, no "None", no code in place of words."""
    row = ROWS[fault]
    lost = row["kept"] != "all of it" or row["speech"] not in ("spoken", "none")
    if lost and fault != "empty_answer":
        assert " → " in row["reads"], row
    assert not re.search(r"WebSocket\w*Exception|Errno|None|Traceback|(?<!Service)(?<=\w)Error: ", row["reads"]), row


def section() -> str:
    """The table as the README prints it."""
    head = (
        f"{HEADING}\n\nWhat goes wrong on the way, and what you see of it. Each row is played against the practice server by a test; play it yourself"
        " with\n`python -m voicehelper.practice --fault NAME`, or in notebook 02. `HOST` and `NAME` stand for your endpoint and your deployment, … for"
        " a number.\n\n| fault | `turn.status` | `turn.speech` | text that stays | what you read → what to do |\n|---|---|---|---|---|"
    )
    rows = [
        " | ".join(("", f"`{row['fault']}`", row["text"], row["speech"], row["kept"], row["reads"], "")).strip() for row in ROWS.values()
    ]
    return "\n".join([head, *rows]) + "\n"


def test_the_readme_prints_the_table():
    assert section() in (ROOT / "README.md").read_text("utf-8")


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before, _, after = readme.read_text("utf-8").partition(HEADING)
    rest = after.partition("\n## ")
    readme.write_text(before + section() + (f"\n## {rest[2]}" if rest[1] else ""), "utf-8")
