"""The socket: every refusal in words with a hint and without the key, and two threads that end."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading

import pytest

from tests.scripted import Answer, Scripted, delta, response, serving, settings_for
from tests.support import made_up, wait_for
from voicehelper import ConversationAgent, SilentPlayer
from voicehelper.errors import ConnectionFailed, DeploymentNotFound, KeyRefused, RateLimited, ServerRefused, VoiceHelperError
from voicehelper.realtime import RealtimeConnection
from voicehelper.settings import Secret, Settings

KEY = "Zq8xW3pLm0vB7nK5"


def refusal(settings) -> VoiceHelperError:
    with pytest.raises(VoiceHelperError) as caught:
        ConversationAgent.connect(settings, player=SilentPlayer())
    error = caught.value
    for shown in (str(error), repr(error), "".join(error._render_traceback_())):
        assert not any(KEY[at : at + 8] in shown for at in range(len(KEY) - 7)), shown
        assert "\n" not in str(error)
    assert error.hint
    assert error.__context__ is None and error.__cause__ is None, "frames of the library, with the header, hang on the error"
    return error


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "words"),
    [
        (401, '{"error": {"code": "401", "message": "Access denied"}}', {}, KeyRefused, "refused the key (401: Access denied)"),
        (403, "", {}, KeyRefused, "403"),
        (404, '{"error": {"code": "DeploymentNotFound", "message": "no"}}', {}, DeploymentNotFound, "'my-deployment'"),
        (400, '{"error": {"code": "OpperationNotSupported", "message": "no"}}', {}, DeploymentNotFound, "not a realtime model"),
        (429, "", {"Retry-After": "7"}, RateLimited, "429"),
        (200, "<html>log in</html>", {}, ConnectionFailed, "not the Realtime service"),
        (503, "", {}, ServerRefused, "503"),
        (401, f'{{"error": {{"message": "Incorrect API key provided: {KEY[:10]}"}}}}', {}, KeyRefused, "****"),
    ],
)
def test_each_refusal_at_the_handshake_has_its_own_error(status, body, headers, kind, words):
    """The status decides the class; the sentence names host or deployment, the hint what to do."""
    with serving(Answer, status=status, body=body, headers=headers) as port:
        error = refusal(settings_for(port, KEY))
    assert type(error) is kind and words in str(error)
    assert error.retryable == (kind is RateLimited or status == 503)
    if status == 429:
        assert "7 s" in error.hint


def test_a_service_that_names_a_date_instead_of_seconds_is_not_quoted():
    """Retry-After may be either."""
    with serving(Answer, status=429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}) as port:
        assert "1999" not in str(refusal(settings_for(port, KEY)))


def test_a_redirect_is_not_followed_and_the_key_is_not_sent_there():
    """The second host hears nothing."""
    requests = []
    with (
        serving(Answer, status=101, requests=requests) as other,
        serving(Answer, status=302, headers={"Location": f"http://127.0.0.1:{other}/"}) as port,
    ):
        assert isinstance(error := refusal(settings_for(port, KEY)), ConnectionFailed) and "redirects" in str(error)
    assert requests == []


def test_a_host_that_does_not_exist_and_a_port_that_refuses_are_told_apart():
    """The sentence names the host, the hint the setting."""
    missing = f"{made_up().lower()}.invalid"
    error = refusal(Settings("azure", f"wss://{missing}/openai/v1/realtime", Secret(KEY), speech_region="here"))
    assert isinstance(error, ConnectionFailed) and missing in str(error) and "AZURE_OPENAI_ENDPOINT" in error.hint
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error = refusal(settings_for(port, KEY))
    assert isinstance(error, ConnectionFailed) and f"127.0.0.1:{port} (connection refused)" in str(error)


def test_a_proxy_in_the_environment_never_sees_the_loopback(practice, monkeypatch):
    """http_proxy points nowhere; the practice server is reached."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ConversationAgent.connect(practice, player=SilentPlayer()) as agent:
        assert agent.connection.is_open


def test_a_refused_session_update_is_an_error_and_not_a_session_with_defaults():
    """An error that names our event, or a session that differs from what was asked, raises ServerRefused with the field."""

    def refused(asked):
        error = {"type": "invalid_request_error", "code": "unknown_parameter", "message": "Unknown parameter: 'session.x'."}
        return {"type": "error", "event_id": "e", "error": {**error, "param": "session.x", "event_id": asked["event_id"]}}

    def ignored(asked):
        return {"type": "session.updated", "event_id": "e", "session": {**asked["session"], "output_modalities": ["audio"]}}

    for confirm, words in ((refused, "Unknown parameter"), (ignored, "session.output_modalities")):
        with serving(Scripted, confirm=confirm) as port, pytest.raises(ServerRefused, match=words):
            ConversationAgent.connect(settings_for(port), player=SilentPlayer())


def test_what_the_service_says_with_the_key_in_it_is_masked_everywhere():
    """An error event that quotes the key leaves no trace of it in reasons, log and handlers."""

    def quoting(server, number):
        error = {
            "type": "invalid_request_error",
            "code": "bad",
            "message": f"key {KEY} is bad",
            "event_id": server.received[-1]["event_id"],
        }
        server.say({"type": "error", "event_id": "e", "error": error})

    heard = []
    with (
        serving(Scripted, on_ask=quoting, received=[]) as port,
        ConversationAgent.connect(settings_for(port, KEY), player=SilentPlayer()) as agent,
    ):
        agent.on_error(lambda error: heard.append(str(error)))
        turn = agent.ask(made_up())
        wait_for(lambda: heard)
        everything = [str(heard), repr(turn), str(turn.reason), repr(agent), repr([entry.body for entry in agent.events]), repr(vars(turn))]
    assert turn.status == "failed"
    assert all(KEY[:8] not in text and KEY[-8:] not in text for text in everything), everything


@pytest.mark.parametrize(
    "sent", ["not json", "[]", '{"type": 5}', '{"type":"response.output_text.delta"}', '{"type":"some.new.event","event_id":"e"}']
)
def test_unreadable_and_unknown_frames_do_no_harm(sent):
    """The answer around them is complete."""
    words = [made_up(), " ", made_up(), "."]

    def answer(server, number):
        for event in (response("in_progress"), delta(words[0]), sent, *map(delta, words[1:]), response("completed")):
            server.say(event)

    with serving(Scripted, on_ask=answer) as port, ConversationAgent.connect(settings_for(port), player=SilentPlayer()) as agent:
        turn = agent.ask(made_up())
        assert (turn.status, turn.text) == ("done", "".join(words))


def test_close_ends_both_threads_at_once_even_when_the_server_never_answers(practice):
    """A connection whose server is silent closes within the deadline; twice is once."""
    before = threading.active_count()
    with serving(Scripted) as port:
        connection = RealtimeConnection(settings_for(port))
        assert connection.is_open
        connection.close()
        connection.close()
        assert not connection.is_open
        wait_for(lambda: threading.active_count() <= before + 1)


def test_the_writer_thread_survives_many_senders():
    """Messages of several threads arrive whole, in the order of each sender."""
    received = []
    with serving(Scripted, received=received) as port:
        connection = RealtimeConnection(settings_for(port))
        senders = [
            threading.Thread(
                target=lambda who=who: [
                    connection.send({"type": "x", "who": who, "n": n, "fill": os.urandom(200).hex()}) for n in range(50)
                ]
            )
            for who in range(4)
        ]
        for sender in senders:
            sender.start()
        wait_for(lambda: len(received) == 200, 10)
        connection.close()
    for who in range(4):
        assert [event["n"] for event in received if event["who"] == who] == list(range(50))


def test_a_network_that_takes_nothing_for_a_second_is_waited_for():
    """A long message through small buffers: it arrives whole, although reading has a timeout of 0.25 s."""
    received, closed, over = [], [], threading.Event()

    def slow_peer(listener):
        stream, _ = listener.accept()
        with stream, stream.makefile("rb") as lines:
            head = dict(line.split(b": ", 1) for line in iter(lambda: lines.readline().strip(), b"") if b": " in line)
            accept = base64.b64encode(hashlib.sha1(head[b"Sec-WebSocket-Key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            upgrade = b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            stream.sendall(upgrade + accept + b"\r\n\r\n")
            threading.Event().wait(1)
            received.append(lines.read(400_000))
            over.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer = threading.Thread(target=slow_peer, args=(listener,), daemon=True)
        peer.start()
        connection = RealtimeConnection(settings_for(listener.getsockname()[1]), closed=lambda *why: closed.append(why))
        connection._ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        connection.send({"x": "y" * 400_000})
        wait_for(lambda: received or closed, 10)
        assert closed == [] and len(received[0]) == 400_000
        over.set()
        connection.close()
        peer.join(10)
