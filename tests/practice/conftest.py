"""One fast practice server for the tests of this folder, and the real clients to try it with."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest
import websocket

from voicehelper.practice.launcher import launch

DEADLINE_S = 10


def until(condition, seconds: float = DEADLINE_S):
    """Poll a condition until it holds; its value, or a failure at the deadline."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
    return value


def http(server, path: str, headers: dict | None = None) -> tuple[int, str]:
    """Status and body of a GET."""
    request = urllib.request.Request(server.speech_host.replace("ws://", "http://") + path, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def wire_log(server, name: str = "", **match) -> list[dict]:
    """Entries of GET /practice/log whose fields equal `match`."""
    status, body = http(server, "/practice/log", {"api-key": server.key + (f"~{name}" if name else "")})
    assert status == 200
    return [entry for entry in json.loads(body)["entries"] if all(entry[key] == value for key, value in match.items())]


class Client:
    """The real websocket-client on the practice Realtime socket; keeps every event it saw."""

    def __init__(self, server, name: str = "", model: str = "practice"):
        key = server.key + (f"~{name}" if name else "")
        url = f"{server.realtime_url}?model={model}"
        self.socket = websocket.create_connection(url, timeout=DEADLINE_S, header=[f"api-key: {key}"], suppress_origin=True)
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


@pytest.fixture
def slow_client(slow_server):
    client = Client(slow_server)
    client.text_only()
    yield client
    client.socket.close(timeout=1)
