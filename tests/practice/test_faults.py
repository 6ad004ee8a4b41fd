"""Faults by name: the table, arming them, and who they reach. What each does on the wire is shown in test_realtime and test_speech_errors."""

from __future__ import annotations

import json
import random
import string
import urllib.error
import urllib.request

import pytest
import websocket

from voicehelper.practice.faults import TABLE, Faults
from voicehelper.practice.launcher import LaunchFailed, launch

from .conftest import DEADLINE_S, Client, http, text_of, wire_log

PLACES = {"handshake", "update", "response", "speech_handshake", "speech"}


def post(server, body: bytes | dict, name: str = "") -> tuple[int, dict]:
    """Status and JSON of POST /practice/faults."""
    key = server.key + (f"~{name}" if name else "")
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = server.speech_host.replace("ws://", "http://") + "/practice/faults"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, raw, {"api-key": key}), timeout=DEADLINE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


@pytest.fixture
def name() -> str:
    """A key suffix nobody else has."""
    return "".join(random.choices(string.ascii_lowercase, k=12))


def test_the_table_says_of_each_fault_where_it_acts_what_travels_and_what_is_read(server):
    assert len(TABLE) >= 28
    for row in TABLE.values():
        assert row["where"] in PLACES
        assert row["wire"].endswith(".") and len(row["reads"]) > 10
    assert json.loads(http(server, "/practice/faults", {"api-key": server.key})[1]) == {"faults": TABLE}


def test_a_fault_acts_once_unless_more_was_asked_for():
    faults = Faults()
    faults.arm(["stall", "empty_answer:2", "bad_key:always"])
    assert [row and row["name"] for row in (faults.take("response") for _ in range(5))] == [
        "stall",
        "empty_answer",
        "empty_answer",
        None,
        None,
    ]
    assert {faults.take("handshake")["name"] for _ in range(50)} == {"bad_key"}
    assert faults.take("speech") is None


def test_arming_replaces_what_was_armed_and_nothing_armed_is_no_fault():
    faults = Faults()
    faults.arm(["stall:always"], latency_ms=250)
    assert faults.latency_s == 0.25
    faults.arm([])
    assert (faults.take("response"), faults.latency_s) == (None, 0.0)


def test_a_schedule_follows_its_rate_and_repeats_with_its_seed():
    def drawn(seed: int) -> list[str | None]:
        faults = Faults()
        faults.arm(["stall@0.2", "server_error@0.1"], seed=seed)
        return [row and row["name"] for row in (faults.take("response") for _ in range(2000))]

    seed = random.randrange(10**6)
    names = drawn(seed)
    assert names == drawn(seed) != drawn(seed + 1)
    assert 300 < names.count("stall") < 500  # 400 expected, 5.6 standard deviations
    assert 90 < names.count("server_error") < 230  # a tenth of those that were no stall


def test_the_dice_of_the_two_services_do_not_disturb_each_other():
    def stalls(speaks: bool) -> list[bool]:
        faults = Faults()
        faults.arm(["stall@0.3", "speech_silent@0.3"], seed=seed)
        found = []
        for _ in range(300):
            found.append(faults.take("response") is not None)
            if speaks:
                faults.take("speech")
        return found

    seed = random.randrange(10**6)
    assert stalls(True) == stalls(False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unheard_of",
        "stall:",
        "stall:-1",
        "stall@2",
        "stall@9.9",
        "speech_close=1005",
        "stall@",
        "stall=5",
        "speech_status=301",
        "speech_close=1",
        7,
        None,
        ["stall"],
        {},
    ],
)
def test_what_is_no_fault_is_refused_in_words_and_changes_nothing(server, name, text):
    assert post(server, {"faults": ["empty_answer"]}, name)[0] == 200
    status, answer = post(server, {"faults": ["stall", text]}, name)
    assert status == 400
    assert "Nothing was armed" in answer["error"]["message"]
    client = Client(server, name)
    client.text_only()
    assert text_of(client.ask("Hello")) == ""  # the first one is still armed
    client.socket.close(timeout=1)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\x00", b"[]", b"{}", b'"stall"', b'{"faults": "stall"}', b'{"faults": 5}', b'{"faults": [], "seed": {}}', b'{"faults": [], "latency_ms": "x"}',
             b'{"faults": [], "latency_ms": -1}', b'{"faults": [], "latency_ms": 1e99}', b"[" * 100_000]
)  # fmt: skip
def test_any_other_body_is_refused_in_words(server, name, body):
    status, answer = post(server, body, name)
    assert status == 400
    assert "Nothing was armed" in answer["error"]["message"]


def test_a_fault_reaches_only_the_key_suffix_it_was_armed_for_and_stands_in_its_log(server, name):
    post(server, {"faults": ["empty_answer:always"]}, name)
    mine, other = Client(server, name), Client(server, name + "2")
    for client in (mine, other):
        client.text_only()
    assert text_of(mine.ask("Hello")) == ""
    assert len(text_of(other.ask("Hello"))) > 5
    [entry] = wire_log(server, name, direction="fault")
    assert (entry["type"], entry["service"], entry["body"]["wire"]) == ("empty_answer", "realtime", TABLE["empty_answer"]["wire"])
    assert wire_log(server, name + "2", direction="fault") == []
    for client in (mine, other):
        client.socket.close(timeout=1)


def test_faults_of_the_command_line_reach_every_suffix(name):
    started = launch(extra=("--fault", "empty_answer", "--tokens-per-second", "5000"))
    try:
        for suffix in (name, name + "2"):
            client = Client(started, suffix)
            client.text_only()
            assert [text_of(client.ask("Hello")) == "" for _ in range(2)] == [True, False]
            client.socket.close(timeout=1)
    finally:
        started.close()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--fault", "unheard_of", "there is no fault"),
        ("--fault", "speech_status=301", "from 200 to 200 or 400 to 599"),
        ("--latency-ms", "-1", "0 to 60000"),
        ("--replay", "/no/such/file", "is no recording"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_told_in_words(option, value, words):
    with pytest.raises(LaunchFailed, match=words):
        launch(extra=(option, value))


def test_the_latency_dial_is_added_before_an_answer(server, name):
    post(server, {"faults": [], "latency_ms": 700}, name)
    client = Client(server, name)
    client.text_only()
    client.ask("Hello")
    logged = wire_log(server, name, direction="sent")
    began = next(entry["at"] for entry in logged if entry["type"] == "response.content_part.added")
    first = next(entry["at"] for entry in logged if entry["type"] == "response.output_text.delta")
    assert first - began >= 0.7
    client.socket.close(timeout=1)


def test_after_half_a_frame_nothing_follows_and_nothing_else_is_in_the_log(server, name):
    post(server, {"faults": ["half_frame"]}, name)
    client = Client(server, name)
    client.text_only()
    client.send("response.create", response={"conversation": "none", "input": [], "instructions": "Explain queues in a long answer"})
    client.say("Explain queues in a long answer")
    client.send("response.create")
    client.socket.settimeout(1)
    for _ in range(2):  # the second time after a ping
        with pytest.raises(websocket.WebSocketTimeoutException):
            while True:
                client.seen.append(json.loads(client.socket.recv()))
        client.socket.ping("are you there?")
    assert b"are you there?" not in b"".join(bytes(part) for part in client.socket.frame_buffer.recv_buffer)
    assert len(wire_log(server, name, direction="sent")) == len(client.seen)
    client.socket.shutdown()


def test_a_failed_response_leaves_nothing_in_the_conversation(server, name):
    client = Client(server, name)
    client.text_only()
    asked = client.say("Hello")["item"]["id"]
    post(server, {"faults": ["server_error"]}, name)
    client.send("response.create")
    assert client.until("response.done")["response"]["status"] == "failed"
    assert client.say("Hello again")["previous_item_id"] == asked
    client.socket.close(timeout=1)
