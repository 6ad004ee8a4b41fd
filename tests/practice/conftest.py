"""One fast practice server for the tests of this folder, and the real clients to try it with."""

from __future__ import annotations

import base64
import importlib.util
import json
import random
import string
import time
import urllib.error
import urllib.request

import pytest
import websocket

from voicehelper.practice.launcher import launch

from ..support import openai_faults

DEADLINE_S = 10


def until(condition, seconds: float = DEADLINE_S):
    """Poll a condition until it holds; its value, or a failure at the deadline."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
    return value


def suffix() -> str:
    """A name nobody else has: its log and its faults are its own."""
    return "".join(random.choices(string.ascii_lowercase, k=12))


def named_key(server, name: str) -> str:
    return server.key + (f"~{name}" if name else "")


def http(server, path: str, headers: dict | None = None, body: bytes | None = None) -> tuple[int, str]:
    """Status and body of a GET, or of a POST of `body`."""
    request = urllib.request.Request(server.speech_host.replace("ws://", "http://") + path, body, headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def wire_log(server, name: str = "", **match) -> list[dict]:
    """Entries of GET /practice/log whose fields equal `match`."""
    status, body = http(server, "/practice/log", {"api-key": named_key(server, name)})
    assert status == 200
    return [entry for entry in json.loads(body)["entries"] if all(entry[key] == value for key, value in match.items())]


def arm(server, *texts: str, name: str = "", **more) -> None:
    """POST /practice/faults for a key suffix; `more`: seed, latency_ms."""
    status, body = http(server, "/practice/faults", {"api-key": named_key(server, name)}, json.dumps({"faults": texts, **more}).encode())
    assert status == 200, body


def spoken(server, text: str) -> bytes:
    """The sound of a text, 24 kHz 16-bit mono, by a bare client of the speech socket."""
    url = f"{server.speech_host}/cognitiveservices/websocket/v1"
    socket = websocket.create_connection(url, timeout=DEADLINE_S, header=[f"Ocp-Apim-Subscription-Key: {server.key}"], suppress_origin=True)
    context = {"synthesis": {"audio": {"outputFormat": "raw-24khz-16bit-mono-pcm", "metadataOptions": {}}}}
    names = 'version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US"'
    socket.send(f"Path:synthesis.context\r\nX-RequestId:1\r\n\r\n{json.dumps(context)}")
    socket.send(f'Path:ssml\r\nX-RequestId:1\r\n\r\n<speak {names}><voice name="en-US-AriaNeural">{text}</voice></speak>')
    pcm = b""
    while not isinstance(frame := socket.recv(), str) or "Path:turn.end" not in frame:
        assert frame, "the speech socket was closed"
        if isinstance(frame, bytes):
            pcm += frame[2 + int.from_bytes(frame[:2], "big") :]
    socket.close(timeout=1)
    return pcm


class Client:
    """The real websocket-client on the practice Realtime socket; keeps every event it saw."""

    def __init__(self, server, name: str = "", model: str = "practice"):
        url, header = f"{server.realtime_url}?model={model}", [f"api-key: {named_key(server, name)}"]
        self.socket = websocket.create_connection(url, timeout=DEADLINE_S, header=header, suppress_origin=True)
        self.seen: list[dict] = []
        self.until("session.created")

    def send(self, type: str, **fields) -> None:
        self.socket.send(json.dumps({"type": type, **fields}))

    def until(self, *types: str) -> dict:
        """Read events up to the first of one of these types."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            event = json.loads(self.socket.recv())
            self.seen.append(event)
            if event["type"] in types:
                return event
        raise AssertionError(f"none of {types} within {DEADLINE_S} s")

    def text_only(self, **fields) -> dict:
        audio = {"input": {"turn_detection": None}}
        self.send("session.update", session={"type": "realtime", "output_modalities": ["text"], "audio": audio, **fields})
        return self.until("session.updated")["session"]

    def say(self, text: str, role: str = "user", **fields) -> dict:
        kind = "output_text" if role == "assistant" else "input_text"
        self.send("conversation.item.create", item={"type": "message", "role": role, "content": [{"type": kind, "text": text}]}, **fields)
        return self.until("conversation.item.done", "error")

    def ask(self, text: str, **fields) -> dict:
        """One turn; the response of its response.done."""
        self.say(text)
        self.send("response.create", **fields)
        response = self.until("response.done", "error")
        assert response["type"] == "response.done", response
        self.until("rate_limits.updated")
        return response["response"]

    def refused(self, type: str, **fields) -> dict:
        """Send an event that must be refused; the error."""
        self.send(type, event_id="mine", **fields)
        error = self.until("error")["error"]
        assert error["event_id"] == "mine"
        assert error["type"] == "invalid_request_error"
        return error

    def frames(self, quiet_s: float = DEADLINE_S) -> tuple[list[str], str | tuple[int, str]]:
        """The frames up to the end of the connection, or up to a silence; and how it ended: (code, reason), "end", "reset" or "silence"."""
        texts = []
        self.socket.settimeout(quiet_s)
        try:
            while True:
                kind, data = self.socket.recv_data(control_frame=True)
                if kind == websocket.ABNF.OPCODE_CLOSE:
                    return texts, (int.from_bytes(data[:2], "big"), data[2:].decode())
                if kind == websocket.ABNF.OPCODE_TEXT:
                    texts.append(data.decode())
        except websocket.WebSocketTimeoutException:
            return texts, "silence"
        except websocket.WebSocketConnectionClosedException:
            return texts, "end"
        except ConnectionResetError:
            return texts, "reset"
        finally:
            self.socket.settimeout(DEADLINE_S)

    def hear(self, pcm: bytes, chunk: int = 4800) -> None:
        """Append sound to the input buffer, in pieces."""
        for at in range(0, len(pcm), chunk):
            self.send("input_audio_buffer.append", audio=base64.b64encode(pcm[at : at + chunk]).decode())

    def judged(self) -> None:
        """Every event seen is valid by openai's own types, where they are installed."""
        if importlib.util.find_spec("openai"):
            for event in self.seen:
                assert openai_faults(event, "server") == [], event


def text_of(response: dict) -> str:
    return response["output"][0]["content"][0]["text"]


@pytest.fixture(scope="session")
def server():
    server = launch(extra=("--tokens-per-second", "5000", "--first-byte-ms", "30", "--rtf", "0.01"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def slow_server():
    """Slow enough to be interrupted."""
    server = launch(extra=("--tokens-per-second", "20", "--rtf", "1"))
    yield server
    server.close()


@pytest.fixture
def client(server):
    client = Client(server)
    yield client
    client.socket.close(timeout=1)
    client.judged()


@pytest.fixture
def slow_client(slow_server):
    client = Client(slow_server)
    client.text_only()
    yield client
    client.socket.close(timeout=1)
    client.judged()
