"""Hostile input on every path of the practice server: it neither falls over nor grows, and whoever comes next is served."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import struct
import urllib.error
import urllib.request
import uuid

import pytest

from voicehelper.practice import launcher

from ..support import forall, made_up, openai_faults, scaled, st
from .conftest import DEADLINE_S, Client, text_of, until
from .test_tour import AUDIO_FORMAT, spoken

psutil = pytest.importorskip("psutil", reason="psutil (a test extra) is not installed")
GROWTH = 60 * 2**20  # bytes that one test may add
MEGABYTE = 1_000_000
REALTIME, SPEECH = "/openai/v1/realtime?model=practice", "/cognitiveservices/websocket/v1"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
both_sockets = pytest.mark.parametrize("path", [REALTIME, SPEECH], ids=["realtime", "speech"])


# --- the server under attack, and what must hold after each test


@pytest.fixture(scope="module")
def target():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "KEPT_LINES", 1_000_000)  # everything it ever wrote is searched for a traceback
        server = launcher.launch(extra=("--tokens-per-second", "2000", "--first-byte-ms", "0", "--rtf", "0"))
    for text in ("w" * 60_000, "word " * 11_000):  # the longest audio there is: what it costs once, and for a moment, is no growth
        assert answered(server, GOOD_CONTEXT, usp("ssml", ssml(text))) == "spoken"
    yield server
    server.close()


@pytest.fixture(autouse=True)
def unharmed(target):
    process = psutil.Process(target.pid)
    opened, used = files(process), process.memory_info().rss
    yield
    assert target.alive()
    serve_somebody(target)
    until(lambda: files(process) <= opened)
    assert process.memory_info().rss - used < GROWTH
    written = target.tail()
    assert "Traceback" not in written, written[written.index("Traceback") :][:3000]
    assert " ERROR " not in written, written[written.index(" ERROR ") :][:1000]


def files(process) -> int:
    """How many files and sockets a process holds open."""
    return process.num_handles() if os.name == "nt" else process.num_fds()


def serve_somebody(server) -> None:
    """A client that behaves has a conversation and hears a word."""
    here, name = Client(server), made_up()
    here.text_only()
    here.ask(f"My name is {name}")
    assert name in text_of(here.ask("What is my name?"))
    here.socket.close(timeout=1)
    assert len(spoken(server, name)) > 4800


@contextlib.contextmanager
def a_session(server, name: str = ""):
    here = Client(server, name)
    try:
        yield here
    finally:
        here.socket.shutdown()


def replies(here: Client) -> list[dict]:
    """What the session answers until it answers a probe; each a valid event by openai's types."""
    probe, start = made_up(12), len(here.seen)
    here.send("practice.probe", event_id=probe)
    while here.until("error")["error"]["event_id"] != probe:
        pass
    for event in here.seen[start:]:
        assert openai_faults(event, "server") == [], event
    return here.seen[start:-1]


# --- JSON of all kinds on the Realtime socket


def event_with(value: str, type: str = "session.update", field: str = "session") -> str:
    """The JSON of an event with this JSON somewhere in it."""
    return f'{{"type": "{type}", "{field}": {value}}}'


def message(text: str) -> str:
    """The JSON of a user's message with this JSON string as its text."""
    return event_with(
        f'{{"type": "message", "role": "user", "content": [{{"type": "input_text", "text": {text}}}]}}', "conversation.item.create", "item"
    )


FRAMES = {
    "deep list": "[" * 100_000,
    "deep object": '{"a":' * 100_000,
    "half a string": '{"type": "',
    "a NUL": "\0",
    "a NUL in JSON": '{"type": "\0"}',
    "an escaped NUL": message('"\\u0000"'),
    "a type that is an object": '{"type": {"a": []}}',
    "a type that is a number": '{"type": 1e999}',
    "a type of 1 MB": json.dumps({"type": "x" * MEGABYTE}),
    "a type with a NUL": '{"type": "\\u0000"}',
    "a lone surrogate as the type": '{"type": "\\ud800"}',
    "a lone surrogate in a key": '{"\\udfff": 1, "type": "\\udfff\\ud800"}',
    "1 MB of text": message(f'"{"word " * (MEGABYTE // 5)}"'),
    "1 MB of emoji": message(json.dumps("😀" * (MEGABYTE // 12))),
    "1 MB that is no JSON": "x" * MEGABYTE,
    "1 MB of spaces": " " * MEGABYTE,
    "a key of 1 MB": event_with(json.dumps({"type": "realtime", "x" * MEGABYTE: 1})),
    "an event_id of 1 MB": json.dumps({"type": "nothing", "event_id": "x" * MEGABYTE}),
    "100,000 keys": event_with(json.dumps({"type": "realtime"} | {str(number): number for number in range(100_000)})),
    "10,000 parts": event_with(
        json.dumps({"type": "message", "role": "user", "content": [{"type": "input_text", "text": ""}] * 10_000}),
        "conversation.item.create",
        "item",
    ),
    "a number of 4,000 digits": event_with('{"type": "realtime", "max_output_tokens": ' + "9" * 4000 + "}"),
    "a number of 5,000 digits": event_with('{"type": "realtime", "max_output_tokens": ' + "9" * 5000 + "}"),
    "a fraction of 100,000 digits": event_with('{"type": "realtime", "max_output_tokens": 0.' + "9" * 100_000 + "}"),
    "1e999": event_with('{"type": "realtime", "audio": {"output": {"speed": 1e999}}}'),
    "1e999 tokens": event_with('{"max_output_tokens": 1e999}', "response.create", "response"),
    "NaN": event_with('{"type": "realtime", "audio": {"output": {"speed": NaN}}}'),
    "-Infinity": event_with('{"type": "realtime", "truncation": {"type": "retention_ratio", "retention_ratio": -Infinity}}'),
    "NaN metadata": event_with('{"conversation": "none", "metadata": {"a": NaN}}', "response.create", "response"),
    "NaN for all": event_with("NaN"),
    "the same key twice": '{"type": "session.update", "type": "response.create", "type": "x"}',
    "an item that follows itself": '{"type": "conversation.item.create", "previous_item_id": {"a": 1}, "item": {"id": {"a": 1}, "type": "message"}}',
    "an id of 1 MB": json.dumps({"type": "conversation.item.delete", "item_id": "x" * MEGABYTE}),
    "1 MB that is no base64": event_with('"' + "?" * MEGABYTE + '"', "input_audio_buffer.append", "audio"),
    "audio of one byte": event_with('"AA=="', "input_audio_buffer.append", "audio"),
    **{f"{depth} levels": event_with("[" * depth + "]" * depth) for depth in (100, 500, 900, 950, 970, 980, 985, 990, 995, 2000)},
    **{f"{depth} objects": event_with('{"a":' * depth + "1" + "}" * depth) for depth in (100, 900, 980, 2000)},
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_hostile_text_frame_is_answered_and_the_session_goes_on(target, frame):
    with a_session(target) as here:
        here.socket.send(frame)
        assert replies(here)


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff mid \\ud800", "a\\u0000b", "\\ufffe\\uffff", "\\u202e\\u0007"])
def test_broken_characters_in_a_message_do_not_break_the_answer(target, text):
    with a_session(target) as here:
        here.text_only()
        here.socket.send(message(f'"My name is {text}"'))
        here.until("conversation.item.done", "error")
        here.send("response.create")
        here.until("response.done", "error")
        assert here.ask("Tell me a joke")["status"] == "completed"
        assert [openai_faults(event, "server") for event in here.seen if openai_faults(event, "server")] == []


def test_noise_in_binary_frames_is_refused_and_the_session_goes_on(target):
    with a_session(target) as here:
        for size in (0, 1, 125, 126, 65_536, MEGABYTE):
            here.socket.send_binary(os.urandom(size))
            assert [event["type"] for event in replies(here)] == ["error"]


def test_thousands_of_unknown_events_are_each_answered(target):
    with a_session(target) as here:
        count = scaled(5000)
        for number in range(count):
            here.send(made_up(), event_id=f"event {number}", depth=[[[number]]])
        answers = replies(here)
        assert [event["error"]["event_id"] for event in answers] == [f"event {number}" for number in range(count)]


MINUTE = base64.b64encode(os.urandom(1000) * 2880).decode()
GREEDY = {
    "long messages": (message(f'"{"word " * (MEGABYTE // 5)}"'), 400),
    "events of 70 KB": (json.dumps({"type": "nothing", "padding": "x" * 70_000}), 20_000),
    "events with many keys": (FRAMES["100,000 keys"], 200),
    "minutes of audio": (event_with(json.dumps(MINUTE), "input_audio_buffer.append", "audio"), 500),
    "items": (message('"a"'), 20_000),
    "answers beside the conversation": (event_with('{"conversation": "none", "input": []}', "response.create", "response"), 2000),
}


@pytest.mark.parametrize(("frame", "count"), GREEDY.values(), ids=GREEDY)
def test_what_is_sent_a_thousand_times_does_not_stay_in_memory(frame, count):
    server = launcher.launch(extra=("--tokens-per-second", "2000"))  # a new one: the others' leftovers would hide the growth
    try:
        process = psutil.Process(server.pid)
        with a_session(server) as here:
            here.text_only()
            used = process.memory_info().rss
            for _ in range(scaled(count)):
                here.socket.send(frame)
                replies(here)
        assert process.memory_info().rss - used < GROWTH
    finally:
        server.close()


def test_minutes_of_noise_in_open_ears_are_turns_or_refused_and_nobody_waits(target):
    with a_session(target) as here:
        for _ in range(scaled(20)):
            here.send("input_audio_buffer.append", audio=MINUTE)
            here.send("input_audio_buffer.commit")
            replies(here)
            serve_somebody(target)


LONG_QUESTIONS = {
    repr(piece): piece * (30_000 // len(piece))
    for piece in (
        "1",
        "a",
        "a ",
        ".",
        "1. ",
        "1 + ",
        "- ",
        "\n",
        "# ",
        "| a ",
        "'",
        "my name is ",
        "I am ",
        "count to ",
        "my a is ",
        "é",
        "😀",
    )
}


@pytest.mark.parametrize("text", LONG_QUESTIONS.values(), ids=LONG_QUESTIONS)
def test_a_long_question_of_one_piece_is_answered_and_nobody_waits(target, text):
    """As long as the module lets one be; a slow pattern in the tutor would hold up everybody."""
    with a_session(target) as here:
        here.text_only(max_output_tokens=20)
        here.socket.send(message(json.dumps(f"What is {text}?")))
        here.send("response.create")
        serve_somebody(target)
        assert here.until("response.done")["response"]["status"] in ("completed", "incomplete")


SESSION = {
    "type": "realtime",
    "model": "practice",
    "instructions": "x",
    "output_modalities": ["text"],
    "max_output_tokens": 5,
    "tools": [],
    "tool_choice": "auto",
    "truncation": {"type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {"post_instructions": 9}},
    "tracing": None,
    "prompt": None,
    "include": None,
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"model": "whisper-1", "language": "en", "prompt": "x"},
            "noise_reduction": {"type": "near_field"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
                "idle_timeout_ms": None,
                "create_response": True,
                "interrupt_response": True,
            },
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy", "speed": 1.0},
    },
}
MESSAGE = {
    "type": "message",
    "role": "user",
    "id": "i",
    "status": "completed",
    "content": [{"type": "input_text", "text": "Tell me a joke"}],
}
RESPONSE = {
    "conversation": "none",
    "input": [MESSAGE, {"type": "item_reference", "id": "first"}],
    "instructions": "x",
    "max_output_tokens": 5,
    "metadata": {"a": "b"},
    "output_modalities": ["text"],
    "tools": [],
    "tool_choice": "auto",
}
EVENTS = [
    {"type": "session.update", "session": SESSION},
    {"type": "conversation.item.create", "previous_item_id": "first", "item": MESSAGE},
    {"type": "conversation.item.retrieve", "item_id": "first"},
    {"type": "conversation.item.delete", "item_id": "first"},
    {"type": "conversation.item.truncate", "item_id": "first", "content_index": 0, "audio_end_ms": 0},
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(os.urandom(9600)).decode()},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "response.create", "response": RESPONSE},
    {"type": "response.cancel", "response_id": "r"},
]

NEVER_ACCEPTED = ("conversation.item.truncate", "output_audio_buffer.clear", "response.cancel")  # there is nothing they could act on


def places(value, path=()):
    """Every place in a JSON value, as a path of keys and numbers."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def with_another(value, path, other):
    """A copy of a JSON value with another value at a place."""
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_another(value[path[0]], path[1:], other)
    return copy


def any_json():
    words = st.sampled_from(["", "auto", "none", "inf", "root", "first", "text", "audio", "\0", "x" * 3000])
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), words)
    inner = st.dictionaries(st.one_of(words, st.text(max_size=9), st.sampled_from(["type", "id"])), leaves, max_size=3)
    return st.recursive(st.one_of(leaves, inner), lambda inside: st.lists(inside, max_size=4), max_leaves=8)


def any_place(values):
    return st.sampled_from([(value, path) for value in values for path in places(value) if path])


def send_late(here: Client, event: dict) -> list[dict]:
    """The answers to this event in a session where something has happened."""
    here.say("Tell me a joke")
    first = {"type": "message", "role": "user", "id": "first", "content": [{"type": "input_text", "text": "My name is Ana"}]}
    here.send("conversation.item.create", item=first)
    here.text_only()
    here.send("input_audio_buffer.append", audio=EVENTS[5]["audio"])
    replies(here)
    here.socket.send(json.dumps(event))
    return replies(here)


@pytest.mark.parametrize("number", [number for number, event in enumerate(EVENTS) if event["type"] not in NEVER_ACCEPTED])
def test_the_events_that_the_next_test_spoils_are_accepted_when_they_are_not(target, number):
    with a_session(target) as here:
        assert "error" not in [event["type"] for event in send_late(here, EVENTS[number])]


@forall(any_place([{**event, "event_id": "mine"} for event in EVENTS]), any_json(), examples=3000)
def test_anything_in_the_place_of_any_field_is_answered_by_valid_events(target, place, other):
    event, path = place
    with a_session(target) as here:
        send_late(here, with_another(event, path, other))


# --- frames that no client library would send


def framed(opcode: int, payload: bytes = b"", *, first: int = 0x80, mask: bool = True, length: int | None = None) -> bytes:
    """The bytes of one frame; `first` holds the FIN and reserved bits, `length` may be a lie."""
    length = len(payload) if length is None else length
    size = (
        bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length) if length < 65536 else b"\x7f" + struct.pack(">Q", length)
    )
    head = bytes([first | opcode, size[0] | (0x80 if mask else 0)]) + size[1:]
    return head + bytes(4) + payload if mask else head + payload  # a mask of zeros changes nothing


class Raw:
    """A TCP connection with the bytes of our choice."""

    def __init__(self, server, path: str = ""):
        host, port = server.speech_host.removeprefix("ws://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
        if path:
            self.socket.sendall(upgrade(server, path))
            received = b""
            while b"\r\n\r\n" not in received:
                received += self.socket.recv(1)
            assert received.startswith(b"HTTP/1.1 101"), received

    def send(self, sent: bytes) -> None:
        with contextlib.suppress(OSError):  # the server may have left already
            self.socket.sendall(sent)

    def replies(self):
        """The server's frames, as opcode and payload, up to its close frame or the end of the connection."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError), self.socket.makefile("rb") as stream:
            while len(head := stream.read(2)) == 2:
                length = head[1] if head[1] < 126 else int.from_bytes(stream.read(2 if head[1] == 126 else 8), "big")
                yield head[0] & 15, stream.read(length)
                if head[0] & 15 == CLOSE:
                    return

    def probe(self) -> list[tuple[int, bytes]]:
        """What came up to the answer to a ping, or up to the end."""
        last, came = os.urandom(20), []
        self.send(framed(PING, last))
        for reply in self.replies():
            came.append(reply)
            if reply == (PONG, last):
                break
        return came

    def end(self) -> None:
        """Nothing more will be sent."""
        with contextlib.suppress(OSError):  # the server may have left already
            self.socket.shutdown(socket.SHUT_WR)

    def drop(self, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def upgrade(server, path: str, *more: str) -> bytes:
    """The bytes of the request that opens a web socket."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {server.speech_host.removeprefix('ws://')}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", f"api-key: {server.key}", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


WRONG_FRAMES = {
    **{f"opcode {number}": framed(number, b"x") for number in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"reserved bit {bit:#x}": framed(1, b"x", first=0x80 | bit) for bit in (0x10, 0x20, 0x40, 0x70)},
    "no mask": framed(1, b"{}", mask=False),
    "an empty text": framed(1),
    "an empty binary": framed(2),
    "a ping of 126 bytes": framed(9, bytes(126)),
    "a ping of 70,000 bytes": framed(9, bytes(70_000)),
    "a ping in two parts": framed(9, b"x", first=0) + framed(0, b"y"),
    "a pong nobody asked for": framed(10, b"x"),
    "a continuation of nothing": framed(0, b"x"),
    "a text within a text": framed(1, b"{", first=0) + framed(1, b"}"),
    "10,000 parts": framed(1, b"[", first=0) + framed(0, b"[", first=0) * 10_000 + framed(0),
    "an endless message": framed(1, b"x", first=0) + framed(0, bytes(65_000), first=0) * 80,
    "a close of one byte": framed(8, b"\x03"),
    "a close with a reserved code": framed(8, b"\x03\xed"),
    "a close with a reason that is no text": framed(8, b"\x03\xe8\xff\xfe"),
    "two closes": framed(8, b"\x03\xe8") * 2,
    "a length of 5 MB": framed(1, b"x", length=5 * 2**20),
    "a length of 2**63 - 1": framed(1, b"x", length=2**63 - 1),
    "a length of 2**64 - 1": framed(2, b"x", length=2**64 - 1),
    **{f"invalid UTF-8 {number}": framed(1, text) for number, text in enumerate([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf"], 1)},
    "noise": os.urandom(100_000),
    "many pings": framed(9, b"ping") * 5000,
}


@both_sockets
@pytest.mark.parametrize("sent", WRONG_FRAMES.values(), ids=WRONG_FRAMES)
def test_after_a_wrong_frame_the_connection_goes_on_or_is_closed(target, path, sent):
    here = Raw(target, path)
    here.send(sent)
    here.send(framed(PING, b"x" * 9))
    here.end()  # a frame that promised more than it has ends here
    assert len(list(here.replies())) < 10_000  # a connection that hangs raises TimeoutError
    here.drop()


@both_sockets
def test_a_frame_of_5_mb_is_too_big_and_only_its_connection_ends(target, path):
    here = Raw(target, path)
    here.send(framed(1, b"x" * 5 * 2**20))
    assert b"x" * 100 not in b"".join(body for _, body in here.replies())
    here.drop()


@both_sockets
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_half_frames_and_a_drop_at_every_byte_leave_nothing_behind(target, path, reset):
    whole = framed(1, message('"Tell me a long story"').encode()) + framed(1, b'{"type": "response.create"}')
    for cut in range(1, len(whole), max(1, len(whole) // scaled(200))):
        here = Raw(target, path)
        here.send(whole[:cut])
        here.drop(reset)


def test_connections_opened_and_dropped_in_every_way_leave_nothing_behind(target):
    """500 at scale 1, at most 100 at a time; while they are open somebody else is served."""
    update = framed(1, b'{"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}')
    turn = update + framed(1, message('"Tell me a long story"').encode()) + framed(1, b'{"type": "response.create"}')
    left = scaled(500)
    while left > 0:
        opened = []
        for number in range(min(left, 100)):
            way = number % 6
            here = Raw(target, (REALTIME, SPEECH)[way % 2] if way < 4 else "")
            if way == 0:
                here.send(turn)
            elif way == 4:
                here.send(upgrade(target, REALTIME)[: 10 + number])
            opened.append(here)
        serve_somebody(target)
        for number, here in enumerate(opened):
            here.drop(reset=number % 4 == 0)
        left -= len(opened)


HALF_DONE = {
    "one letter": lambda server: b"G",
    "no end of the headers": lambda server: upgrade(server, REALTIME)[:-2],
    "no key of the socket": lambda server: upgrade(server, REALTIME).replace(b"Sec-WebSocket-Key", b"X"),
    "an odd key of the socket": lambda server: upgrade(server, REALTIME).replace(b"AAAA", "é\0".encode()),
    "another version": lambda server: upgrade(server, REALTIME).replace(b"Version: 13", b"Version: 99"),
    "no upgrade": lambda server: upgrade(server, SPEECH).replace(b"Upgrade: websocket\r\n", b""),
    "no host": lambda server: upgrade(server, REALTIME).replace(b"Host:", b"Hose:"),
    "two hosts": lambda server: upgrade(server, REALTIME, "Host: evil.example"),
    "a header of 1 MB": lambda server: upgrade(server, REALTIME, "X: " + "x" * MEGABYTE),
    "10,000 headers": lambda server: upgrade(server, SPEECH, *(f"X-{number}: x" for number in range(10_000))),
    "a key with odd letters": lambda server: upgrade(server, REALTIME).replace(b"api-key: ", b"api-key: \xff\xfe\xe9~"),
    "a name with odd letters": lambda server: upgrade(server, REALTIME, f"api-key: {server.key}~\xff\xe9~~"),
    "an unknown extension": lambda server: upgrade(server, REALTIME, "Sec-WebSocket-Extensions: permessage-deflate; x=y; ;;,"),
    "compression": lambda server: upgrade(server, REALTIME, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"),
    "sub-protocols": lambda server: upgrade(server, REALTIME, "Sec-WebSocket-Protocol: realtime, ,;é"),
    "an odd query": lambda server: upgrade(server, "/openai/v1/realtime?model=%ff%00&model=&&=%zz"),
    "a model of 60 KB": lambda server: upgrade(server, "/openai/v1/realtime?model=" + "x" * 60_000),
    "TLS": lambda server: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),
    "an old HTTP": lambda server: b"GET /practice/log\r\n\r\n",
    "a body of 10**12 bytes": lambda server: b"POST /practice/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n{",
    "a body of -1 bytes": lambda server: b"POST /practice/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{",
    "a body in odd chunks": lambda server: (
        b"POST /practice/faults HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"
    ),
    "two requests in one": lambda server: upgrade(server, "/practice/log") * 2,
}


@pytest.mark.parametrize("how", HALF_DONE.values(), ids=HALF_DONE)
def test_half_done_and_wrong_upgrades_leave_nothing_behind(target, how):
    here = Raw(target)
    here.send(how(target))
    here.end()
    with contextlib.suppress(ConnectionResetError):
        while here.socket.recv(65536):
            pass
    here.drop()


# --- the speech socket


def answered(server, *messages: str) -> str:
    """How the speech socket answers: "spoken", "refused" by a close frame, or "cut" if the connection ends without one."""
    here = Raw(server, SPEECH)
    for sent in messages:
        here.send(framed(TEXT, sent.encode()))
    ends = ("refused" if opcode == CLOSE else "spoken" for opcode, body in here.replies() if opcode == CLOSE or b"Path:turn.end" in body)
    how = next(ends, "cut")
    here.drop()
    return how


def usp(path: str, body: str, request: str = "") -> str:
    return f"X-RequestId:{request or 'a' * 32}\r\nPath:{path}\r\n\r\n{body}"


CONTEXT = {
    "synthesis": {
        "audio": {
            "outputFormat": AUDIO_FORMAT,
            "metadataOptions": {"wordBoundaryEnabled": True, "bookmarkEnabled": True, "sessionEndEnabled": True},
        },
        "language": {"autoDetection": False},
    }
}
GOOD_CONTEXT = usp("synthesis.context", json.dumps(CONTEXT))


def ssml(body: str) -> str:
    names = 'xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US"'
    return f'<speak version="1.0" {names}><voice name="en-US-AriaNeural">{body}</voice></speak>'


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
DOCUMENTS = {
    "deep": ssml("<p>" * 10_000 + "</p>" * 10_000),
    "deep and open": "<speak>" * 10_000,
    "deep prosody": ssml('<prosody rate="0.9">' * 500 + "a" + "</prosody>" * 500),
    "a million laughs": f'<!DOCTYPE speak [<!ENTITY l0 "ha">{LAUGHS}]>' + ssml("&l9;"),
    "a file": '<!DOCTYPE speak [<!ENTITY f SYSTEM "file:///etc/hostname">]>' + ssml("&f;"),
    "1 MB": ssml("word " * (MEGABYTE // 5)),
    "60 KB in one word": ssml("w" * 60_000),
    "60 KB of marks": ssml("?!.," * 15_000),
    "a NUL": ssml("a\0b"),
    "an escaped NUL": ssml("a&#0;b"),
    "a lone surrogate": ssml("a&#xd800;b"),
    "odd characters": ssml("\ufffe\u202e\u200b😀\u0301"),
    "breaks": ssml('<break time="99999h"/>' * 400),
    "a break of 1e999 s": ssml('<break time="1e999s"/><prosody rate="1e999" pitch="nan" volume="-inf">a</prosody>'),
    "no XML": made_up(),
    "nothing": "",
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_hostile_document_is_spoken_or_refused(target, document):
    assert answered(target, GOOD_CONTEXT, usp("ssml", document)) in ("spoken", "refused")


ODD_MESSAGES = {
    "no head": "x",
    "no body": "Path:ssml",
    "no path": "X-RequestId:1\r\n\r\n{}",
    "only marks": "\r\n" * 10_000,
    "a head of 1 MB": f"Path:{'x' * MEGABYTE}\r\n\r\n",
    "SSML first": usp("ssml", ssml("a")),
    "another request": GOOD_CONTEXT + "\0",
    "a deep context": usp("synthesis.context", '{"synthesis":' * 50_000),
    "a context with NaN": usp("synthesis.context", '{"synthesis": {"audio": NaN}}'),
    "a context that is a list": usp("synthesis.context", "[1]"),
    "noise": os.urandom(10_000),
    "no bytes": b"",
    "text that is no UTF-8": usp("ssml", "\ud800"),
}


@pytest.mark.parametrize("sent", ODD_MESSAGES.values(), ids=ODD_MESSAGES)
def test_an_odd_speech_message_is_ignored_or_refused_and_never_spoken(target, sent):
    here = Raw(target, SPEECH)
    here.send(framed(BINARY, sent) if isinstance(sent, bytes) else framed(TEXT, sent.encode("utf-8", "surrogatepass")))
    assert not any(b"Path:turn.start" in body for _, body in here.probe())
    here.drop()


@forall(any_place([CONTEXT]), any_json(), examples=500)
def test_anything_in_the_place_of_any_field_of_a_context_is_spoken_or_refused(target, place, other):
    context, path = place
    changed = usp("synthesis.context", json.dumps(with_another(context, path, other)))
    assert answered(target, changed, usp("ssml", ssml("a"))) in ("spoken", "refused")


def test_hundreds_of_requests_by_clients_that_leave_do_not_hold_up_the_next(target):
    for number in range(scaled(300)):
        here = Raw(target, SPEECH)
        request = uuid.uuid4().hex
        for path, body in (("synthesis.context", json.dumps(CONTEXT)), ("ssml", ssml("A long sentence about nothing. " * 100))):
            here.send(framed(1, usp(path, body, request).encode()))
        here.drop(reset=number % 2 == 0)


# --- HTTP


def post(server, body: bytes, method: str = "POST") -> tuple[int, str]:
    url = server.speech_host.replace("ws://", "http://") + "/practice/faults"
    request = urllib.request.Request(url, data=body, method=method, headers={"api-key": f"{server.key}~Eve"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


BODIES = [
    b"",
    b"{",
    b"null",
    b"[" * 100_000,
    b'{"faults": 1e999}',
    b'{"faults": ["stall\\u0000"]}',
    b"\xff\xfe",
    b"\0" * 1000,
    b"x" * MEGABYTE,
]
BODIES += [
    b'{"faults": ["stall:9999999"]}',
    b'{"faults": ["speech_status=99999"]}',
    '{"faults": ["stall:٣"]}'.encode(),
    b'{"faults": ["\\ud800"]}',
]
BODIES += [json.dumps({"faults": ["stall"] * 100_000}).encode(), b'{"faults": [], "latency_ms": 1e999}', b'{"faults": [], "seed": {}}']


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_hostile_body_arms_nothing_and_the_refusal_is_json(target, body):
    status, answer = post(target, body)
    assert status == 400
    assert "Nothing was armed" in json.loads(answer)["error"]["message"]


ARMING = {"faults": ["stall:3", "drop_mid_answer@0.5"], "seed": 1, "latency_ms": 0}


@forall(st.one_of(any_json(), st.tuples(any_place([ARMING]), any_json()).map(lambda both: with_another(*both[0], both[1]))), examples=1000)
def test_whatever_is_posted_is_armed_or_refused(target, body):
    status, answer = post(target, json.dumps(body).encode())
    assert status in (200, 400)
    assert isinstance(json.loads(answer), dict)


@forall(st.binary(max_size=300), examples=300)
def test_whatever_bytes_are_posted_are_refused(target, body):
    assert post(target, body)[0] == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "X" * 1000])
def test_another_method_is_refused(target, method):
    assert post(target, b"{}", method)[0] in (400, 404, 405)
