"""Security, command line and wire log."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys

import pytest

from voicehelper.practice.launcher import child_environment

from .conftest import DEADLINE_S, Client, http, websocket, wire_log

psutil = pytest.importorskip("psutil", reason="psutil (a test extra) is not installed")
PATHS = ["/openai/v1/realtime?model=m", "/cognitiveservices/websocket/v1", "/practice/log", "/anything/else"]
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example"])
def test_a_foreign_host_header_is_forbidden_even_with_the_key(server, path, host):
    status, body = http(server, path, {**UPGRADE, "Host": host, "Origin": f"http://{host}", "api-key": server.key})
    assert status == 403
    assert json.loads(body)["error"]["code"] == "403"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "file://"])
def test_a_foreign_origin_is_forbidden_even_with_the_key(server, path, origin):
    assert http(server, path, {**UPGRADE, "Origin": origin, "api-key": server.key})[0] == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [{}, {"api-key": "wrong"}, {"Authorization": "Bearer "}, {"Ocp-Apim-Subscription-Key": "practice-0"}])
def test_no_key_or_a_wrong_key_is_unauthorised_on_every_path(server, path, headers):
    status, body = http(server, path, {**UPGRADE, **headers})
    assert status == 401
    assert json.loads(body)["error"]["code"] == "401"
    assert server.key not in body


@pytest.mark.parametrize(
    "headers", [("api-key", "{}"), ("Authorization", "Bearer {}"), ("Ocp-Apim-Subscription-Key", "{}"), ("api-key", "{}~Ana")]
)
def test_each_way_of_sending_the_key_opens_the_log(server, headers):
    assert http(server, "/practice/log", {headers[0]: headers[1].format(server.key)})[0] == 200


@pytest.mark.parametrize("origin", ["http://localhost:8888", "http://127.0.0.1:8888", "http://[::1]:8888"])
def test_an_origin_on_this_computer_may_open_a_socket(server, origin):
    url = f"{server.realtime_url}?model=m"
    socket = websocket.create_connection(url, timeout=DEADLINE_S, header=[f"api-key: {server.key}"], origin=origin)
    assert json.loads(socket.recv())["type"] == "session.created"
    socket.close(timeout=1)


def test_an_unknown_path_is_not_found_and_not_part_of_the_practice_server(server):
    status, body = http(server, "/cognitiveservices/websocket/v2", {"api-key": server.key})
    assert status == 404
    assert "not part of the practice server" in body


@pytest.mark.parametrize(("query", "status", "word"), [("?api-version=2025-04-01-preview&model=m", 401, "api-version"), ("", 400, "model")])
def test_the_realtime_path_refuses_an_api_version_and_wants_a_model(server, query, status, word):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(
            server.realtime_url + query, timeout=DEADLINE_S, header=[f"api-key: {server.key}"], suppress_origin=True
        )
    assert refused.value.status_code == status
    assert word in json.loads(refused.value.resp_body)["error"]["message"]


def test_only_the_loopback_address_is_bound(server):
    listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [c.laddr.ip for c in listening] == ["127.0.0.1"]


def test_a_port_in_use_is_one_sentence_and_exit_code_2(server):
    port = server.speech_host.rpartition(":")[2]
    command = [sys.executable, "-m", "voicehelper.practice", "--port", port]
    ended = subprocess.run(command, env=child_environment(None, "practice-test"), capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert port in ended.stderr
    assert "--port" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""


def test_the_end_of_stdin_ends_the_server_with_code_0_and_the_first_line_is_the_address():
    command = [sys.executable, "-m", "voicehelper.practice", "--watch-stdin", "--key", "a-key-of-mine"]
    ended = subprocess.run(
        command, env=child_environment(None, "unused-key"), input="", capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 0
    address = json.loads(ended.stdout)
    assert address["key"] == "a-key-of-mine"
    assert set(address) == {"realtime_url", "speech_host", "key", "pid"}


def test_the_log_keeps_both_directions_without_the_key(server):
    client = Client(server, "Redacted")
    client.text_only()
    client.ask(f"My key is {server.key}")
    client.socket.close(timeout=1)
    entries = wire_log(server, "Redacted", service="realtime")
    assert {entry["direction"] for entry in entries} == {"sent", "received"}
    assert [entry["type"] for entry in entries[:3]] == ["session.created", "session.update", "session.updated"]
    assert all(set(entry) == {"at", "direction", "type", "service", "session", "body"} for entry in entries)
    assert server.key not in json.dumps(entries)
    said = "".join(entry["body"]["delta"] for entry in entries if entry["type"] == "response.output_text.delta")
    assert server.key not in said
    assert said == next(entry["body"]["text"] for entry in entries if entry["type"] == "response.output_text.done")


def test_each_key_suffix_sees_only_its_own_log(server):
    for name in ("Ana", "Ben"):
        client = Client(server, name)
        client.say(f"I am {name}")
        client.socket.close(timeout=1)
    assert "I am Ana" in json.dumps(wire_log(server, "Ana"))
    assert "I am Ana" not in json.dumps(wire_log(server, "Ben"))
    assert "I am Ana" not in json.dumps(wire_log(server))


def test_the_key_is_in_no_line_a_server_logs_wherever_a_client_puts_it():
    key = "vh." + secrets.token_hex(12)
    command = [sys.executable, "-m", "voicehelper.practice", "--key", key, "--watch-stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        port = int(json.loads(process.stdout.readline())["speech_host"].rpartition(":")[2])
        for path, host in (
            (f"/openai/v1/realtime?model=m&api-key={key}", "evil.example"),
            (f"/openai/v1/realtime?model=%ff&api-key={key}", "localhost"),
            (f"/{key}", "localhost"),
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\napi-key: {key}\r\nConnection: close\r\n\r\n".encode())
                assert connection.recv(100)
        process.stdin.close()
        logged = process.stderr.read().decode()
        assert process.wait(DEADLINE_S) == 0
    assert logged.count("GET") >= 3
    assert key not in logged


def test_a_body_larger_than_any_that_makes_sense_is_not_read(server):
    port = int(server.speech_host.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"POST /practice/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400") or not connection.recv(1000)
