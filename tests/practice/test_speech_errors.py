"""Every error of the speech side, twice: what a bare client sees on the wire, and what the real Speech SDK makes of it."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from voicehelper.practice.launcher import launch

from ..support import limit, made_up
from .conftest import arm, http, until, websocket, wire_log
from .test_speech import Synthesizer, parse, raw_socket, sdk, send_request, ssml

pytestmark = limit(120)
FRAME = 4800  # bytes of 100 ms
SOON = {"SpeechSynthesis_FirstChunkTimeoutMs": "1500", "SpeechSynthesis_FrameTimeoutInterval": "500"}


def some_words(count: int = 8) -> str:
    """More than three frames of sound."""
    return " ".join(made_up() for _ in range(count))


@pytest.fixture
def name():
    return made_up(12)


@pytest.fixture
def speaker(server, name):
    """With a key suffix, and so with faults, of its own."""
    synthesizer = Synthesizer(server, name=name)
    yield synthesizer
    synthesizer.close()


@pytest.fixture
def impatient(server, name):
    """Gives up soon, for the errors that are a time-out."""
    synthesizer = Synthesizer(server, name=name, **SOON)
    yield synthesizer
    synthesizer.close()


def failed(speaker):
    """The error code, the words and the audio of a sentence that must fail."""
    result = speaker.speak(ssml(some_words()))
    assert result.reason == sdk.ResultReason.Canceled
    details = result.cancellation_details
    assert details.reason == sdk.CancellationReason.Error
    return details.error_code.name, details.error_details, len(result.audio_data)


def recovers(server, speaker, name) -> None:
    """The same synthesizer speaks as soon as nothing is armed."""
    arm(server, name=name)
    result = speaker.speak(ssml(made_up()))
    assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
    entry = wire_log(server, name, type="synthesis")[-1]["body"]
    assert (entry["outcome"], entry["sha256"]) == ("completed", hashlib.sha256(result.audio_data).hexdigest())


# -- the Speech SDK: each row of the table of errors


@pytest.mark.parametrize(
    ("status", "code", "words", "attempts"),
    [
        (400, "BadRequest", "Bad request (400)", 1),
        (401, "AuthenticationFailure", "Authentication error (401). Please check subscription information", 1),
        (403, "AuthenticationFailure", "(403). Please check subscription information", 1),
        (200, "ConnectionFailure", "Unspecified connection error (200)", 2),
        (404, "ServiceError", "(404)", 2),
        (408, "ServiceTimeout", "(408)", 2),
        (429, "TooManyRequests", "(429)", 2),
        (500, "ServiceError", "Internal service error (500)", 2),
        (502, "ServiceError", "(502)", 2),
        (503, "ServiceUnavailable", "(503)", 2),
    ],
)
def test_a_refused_upgrade_is_told_by_its_status_and_tried_again_where_that_may_help(server, speaker, name, status, code, words, attempts):
    arm(server, f"speech_status={status}:always", name=name)
    told, details, audio = failed(speaker)
    assert (told, audio) == (code, 0)
    assert "WebSocket upgrade failed" in details
    assert words in details
    assert server.key not in details
    assert len(wire_log(server, name, direction="fault")) == attempts
    recovers(server, speaker, name)


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_happens_once_is_not_seen_at_all(server, speaker, name, status):
    arm(server, f"speech_status={status}", name=name)
    assert speaker.speak(ssml(made_up())).reason == sdk.ResultReason.SynthesizingAudioCompleted
    assert len(wire_log(server, name, direction="fault", type="speech_status")) == 1


def test_a_refused_key_by_name_is_an_authentication_failure_once(server, speaker, name):
    arm(server, "speech_bad_key", name=name)
    assert failed(speaker)[0] == "AuthenticationFailure"
    assert speaker.speak(ssml(made_up())).reason == sdk.ResultReason.SynthesizingAudioCompleted


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (1001, "ConnectionFailure"),
        (1002, "ConnectionFailure"),
        (1008, "ConnectionFailure"),
        (4000, "ConnectionFailure"),
        (1007, "BadRequest"),
        (1011, "ServiceError"),
        (1013, "ServiceError"),
        (4429, "TooManyRequests"),
    ],
)
def test_a_close_in_mid_audio_is_told_by_its_code_and_the_audio_before_it_stays(server, speaker, name, number, code):
    arm(server, f"speech_close={number}", name=name)
    told, details, audio = failed(speaker)
    assert (told, audio) == (code, 3 * FRAME)
    assert f"Error code: {number}. Error details: The practice server closes with this code." in details
    assert f"Received audio size: {audio} bytes." in details
    recovers(server, speaker, name)


@pytest.mark.parametrize(
    ("fault", "code", "words", "frames"),
    [
        ("speech_throttled", "TooManyRequests", "Error code: 4429. Error details: Too many requests", 0),
        ("speech_throttled_mid_audio", "TooManyRequests", "Error code: 4429. Error details: Too many requests", 3),
        ("speech_drop_mid_audio", "ConnectionFailure", "WebSocket operation failed", 3),
        ("speech_bad_ssml", "BadRequest", "Error code: 1007. Error details: SSML parsing error", 0),
    ],
)
def test_each_fault_by_name_is_told_in_the_sdks_own_words(server, speaker, name, fault, code, words, frames):
    arm(server, f"{fault}:always", name=name)
    told, details, audio = failed(speaker)
    assert (told, audio) == (code, frames * FRAME)
    assert words in details
    recovers(server, speaker, name)


@pytest.mark.parametrize(
    ("fault", "words", "frames"),
    [
        ("speech_closed_1000", "Timeout while synthesizing", 3),
        ("speech_stall_mid_audio", "Timeout while synthesizing", 3),
        ("speech_silent", "timeout waiting for the first audio chunk", 0),
    ],
)
def test_what_the_sdk_takes_for_a_pause_becomes_a_time_out(server, impatient, name, fault, words, frames):
    arm(server, f"{fault}:always", name=name)
    told, details, audio = failed(impatient)
    assert (told, audio) == ("ServiceTimeout", frames * FRAME)
    assert words in details
    recovers(server, impatient, name)


def test_zero_bytes_are_no_error_to_the_sdk(server, speaker, name):
    arm(server, "speech_zero_bytes", name=name)
    result = speaker.speak(ssml(some_words()))
    assert (result.reason, result.audio_data) == (sdk.ResultReason.SynthesizingAudioCompleted, b"")
    recovers(server, speaker, name)


def test_ssml_that_is_not_well_formed_is_a_bad_request_with_the_reason(server, speaker, name):
    details = speaker.speak(ssml(f"{made_up()} & {made_up()}")).cancellation_details
    assert details.error_code == sdk.CancellationErrorCode.BadRequest
    assert "Error code: 1007. Error details: The SSML is not well-formed XML" in details.error_details
    recovers(server, speaker, name)


def test_with_nobody_at_the_port_the_connection_fails():
    server = launch()
    server.close()
    speaker = Synthesizer(server, **SOON)
    assert failed(speaker)[0] == "ConnectionFailure"
    speaker.close()


def test_a_server_slower_than_speech_is_no_fault_as_long_as_frames_come():
    server = launch(extra=("--rtf", "2.5"))
    speaker = Synthesizer(server)
    try:
        assert speaker.speak(ssml(made_up())).reason == sdk.ResultReason.SynthesizingAudioCompleted
    finally:
        speaker.close()
        server.close()


# -- a bare client: the wire effect of each fault


BEGUN = ["turn.start", "response"]
EFFECTS = {  # the paths before the end, and the end
    "speech_throttled": ([], 4429),
    "speech_throttled_mid_audio": ([*BEGUN, "audio", "audio", "audio"], 4429),
    "speech_drop_mid_audio": ([*BEGUN, "audio", "audio", "audio"], "drop"),
    "speech_silent": ([], "silence"),
    "speech_stall_mid_audio": ([*BEGUN, "audio", "audio", "audio"], "silence"),
    "speech_zero_bytes": ([*BEGUN, "turn.end"], "silence"),
    "speech_bad_ssml": ([], 1007),
    "speech_closed_1000": ([*BEGUN, "audio", "audio", "audio"], 1000),
    "speech_close": ([*BEGUN, "audio", "audio", "audio"], 1011),
    "speech_close=4001": ([*BEGUN, "audio", "audio", "audio"], 4001),
}


def seen_until_the_end(socket, next_id: str) -> tuple[list[str], int | str]:
    """The paths of all frames of a request, and the close code; "drop" without one; "silence" when a next request is answered instead."""
    paths = []
    while True:
        try:
            opcode, frame = socket.recv_data(control_frame=True)
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            return paths, "drop"
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return paths, int.from_bytes(frame[:2], "big")
        path, request_id, _ = parse(frame if opcode == websocket.ABNF.OPCODE_BINARY else frame.decode())
        if request_id == next_id:
            return paths, "silence"
        paths.append(path)


@pytest.mark.parametrize("fault", EFFECTS)
def test_a_bare_client_sees_exactly_the_effect_of_the_fault(server, name, fault):
    arm(server, fault, name=name)
    socket = raw_socket(server, name)
    send_request(socket, "first", ssml(some_words()))
    paths, end = EFFECTS[fault]
    if end == "silence":
        until(lambda: wire_log(server, name, type="synthesis"))  # the turn is over
        send_request(socket, "next", ssml(made_up()))
    assert seen_until_the_end(socket, "next") == (paths, end)
    body = wire_log(server, name, type="synthesis")[0]["body"]
    assert body["outcome"] == ("completed" if fault == "speech_zero_bytes" else "fault")
    assert body["bytes_sent"] == paths.count("audio") * FRAME
    socket.shutdown()


def test_a_sentence_shorter_than_the_fault_waits_for_is_cut_at_its_end(server, name):
    arm(server, "speech_drop_mid_audio", name=name)
    socket = raw_socket(server, name)
    send_request(socket, "short", ssml("<break time='200ms'/>"), {})
    assert seen_until_the_end(socket, "") == ([*BEGUN, "audio", "audio"], "drop")


@pytest.mark.parametrize(("fault", "status"), [("speech_bad_key", 401), ("speech_status", 503), ("speech_status=429", 429)])
def test_a_bare_client_is_refused_at_the_upgrade_and_open_connections_go_on(server, name, fault, status):
    socket = raw_socket(server, name)
    arm(server, fault, name=name)
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        raw_socket(server, name)
    assert refusal.value.status_code == status
    assert json.loads(refusal.value.resp_body)["error"]["message"]
    send_request(socket, "open", ssml(made_up()))
    paths = []
    while paths[-1:] != ["turn.end"]:
        paths.append(parse(socket.recv())[0])
    for each in (socket, raw_socket(server, name)):
        each.close(timeout=1)


def test_every_speech_fault_of_the_table_is_tried_here(server):
    _, body = http(server, "/practice/faults", {"api-key": server.key})
    table = {fault: row["where"] for fault, row in json.loads(body)["faults"].items() if row["where"].startswith("speech")}
    upgrades = {"speech_bad_key": "speech_handshake", "speech_status": "speech_handshake"}
    assert table == upgrades | {fault: "speech" for fault in EFFECTS if "=" not in fault}


def test_the_latency_is_added_before_the_first_audio(server, name):
    arm(server, name=name, latency_ms=400)
    socket = raw_socket(server, name)
    begun = time.monotonic()
    send_request(socket, "late", ssml(made_up()))
    while parse(socket.recv())[0] != "audio":
        pass
    assert time.monotonic() - begun > 0.4
    socket.close(timeout=1)
