"""A connection that is lost: opened again, told what was said, and never a word asked for twice."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from contextlib import contextmanager

import pytest
import websocket

from tests.practice.conftest import arm, named_key, suffix, wire_log
from tests.scripted import Scripted, delta, response, serving, settings_for
from tests.support import made_up, wait_for
from voicehelper import ConversationAgent, SilentPlayer
from voicehelper import conversation as heart
from voicehelper import realtime as wire
from voicehelper.errors import ConnectionFailed, KeyRefused, ServerRefused
from voicehelper.practice.launcher import launch
from voicehelper.settings import Secret, Settings

NAMES = ("Mara", "Jonas", "Lena", "Paul", "Nora", "Emil", "Clara", "Anton", "Ida", "Hugo")


def fast() -> SilentPlayer:
    return SilentPlayer(clock=lambda: time.monotonic() * 50)


@contextmanager
def talking(server, **options):
    """An agent with a log and faults of its own, and the name of both."""
    name = suffix()
    key = Secret(named_key(server, name))
    with ConversationAgent.connect(Settings.practice(server.realtime_url, server.speech_host, key), player=fast(), **options) as agent:
        agent.name = name
        yield agent


def asked(server, agent) -> list[str]:
    """What the server was asked, in order: "update", "user: …", "assistant: …", "create"; "open" for each handshake."""
    lines = []
    for entry in wire_log(server, agent.name):
        body = entry.get("body") or {}
        match entry["type"]:
            case "session.update":
                lines.append("update")
            case "conversation.item.create":
                lines.append(f"{body['item']['role']}: {body['item']['content'][0]['text']}")
            case "response.create":
                lines.append("create")
            case "session.created":
                lines.append("open")
    return lines


def spoken_turn(agent, text: str):
    turn = agent.ask(text)
    assert turn.wait(30), turn
    return turn


# -- lost before a word, and after


def test_a_turn_without_a_word_is_asked_again_on_a_new_connection():
    """The first connection ends at the question; the second knows the session and answers once."""
    words, received, connections = [f"{made_up()} ", made_up()], [], []

    def answer(server, number):
        connections.append(server)
        if len(connections) == 1:
            server.close()
        else:
            for event in (response("in_progress"), *map(delta, words), response("completed")):
                server.say(event)

    opened, closed = [], []
    with serving(Scripted, on_ask=answer, received=received) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        agent.on_open(lambda: opened.append(len(connections)))
        agent.on_close(lambda code, reason: closed.append(code))
        turn = agent.ask(question := made_up())
        assert (turn.status, turn.text, turn.reason, turn.attempts) == ("done", "".join(words), None, 2)
        wait_for(lambda: len(opened) == 2)
    types = [event["type"] for event in received]
    once = ["session.update", "conversation.item.create", "response.create"]
    assert types == once + once
    assert [event["item"]["content"][0]["text"] for event in received if "item" in event] == [question, question]
    assert len(closed) == 2


def test_a_turn_that_has_shown_a_word_is_partial_and_the_next_one_is_remembered(server):
    """What was heard is told to the new session, the question of the broken turn too; nothing is asked twice."""
    with talking(server) as agent:
        name = random.choice(NAMES)
        first = spoken_turn(agent, f"My name is {name}.")
        arm(server, "drop_mid_answer", name=agent.name)
        broken = agent.ask("Explain queues in a long answer")
        assert broken.status == "partial" and broken.text and "connection was lost" in broken.reason
        broken.wait(30)
        turn = agent.ask("What is my name?")
        assert turn.status == "done" and name in turn.text
    lines = asked(server, agent)
    again = lines[lines.index("open", 1) :]
    assert lines.count("create") == 3 and again.count("create") == 1
    assert again[:4] == ["open", "update", f"user: {first.user_text}", f"assistant: {first.text}"]
    assert again[4] == f"user: {broken.user_text}" and again[5].startswith(f"assistant: {broken.text[: broken.heard_chars]}")
    assert again[6:] == [f"user: {turn.user_text}", "create"]


def test_what_was_not_heard_is_not_told_to_the_new_session(server):
    """An answer that was interrupted: the model learns where."""
    with talking(server) as agent:
        agent.player._clock = time.monotonic  # as slow as the wall: the interrupt comes in mid-sentence
        turn = agent.start("Explain queues in a long answer")
        wait_for(lambda: turn.heard_chars > 0 or (turn.utterances and turn.utterances[0].status == "playing"), 20)
        wait_for(lambda: len(turn.heard_text) > 5, 20)
        agent.interrupt()
        agent.connection.abort("for this test")
        agent.ask("Tell me a joke about programmers")
    told = [line for line in asked(server, agent) if line.startswith("assistant: ")]
    assert turn.heard_chars and told == [f"assistant: {turn.heard_text} [The user heard no more of this answer.]"]
    assert turn.text.startswith(turn.heard_text) and len(turn.heard_text) < len(turn.text)


@pytest.mark.parametrize("fault", ["session_expired", "reset_mid_frame"])
def test_whatever_ended_the_connection_the_next_question_is_answered(server, fault):
    with talking(server) as agent:
        arm(server, fault, name=agent.name)
        broken = agent.ask("Explain queues in a long answer")
        assert broken.status == "partial" and ("longest duration" in broken.reason) == (fault == "session_expired")
        assert agent.ask("Tell me a joke about programmers").status == "done"
        assert [entry.body["error"]["code"] for entry in agent.events.select("error")] == ["session_expired"] * (fault == "session_expired")


# -- when it is opened again


def test_a_connection_nobody_used_is_opened_again_only_when_somebody_asks(server):
    with talking(server) as agent:
        closed = []
        agent.on_close(lambda code, reason: closed.append(reason))
        agent.connection.abort(reason := made_up())
        wait_for(lambda: closed == [reason])
        assert not agent.connection.is_open and asked(server, agent).count("open") == 1
        turn = agent.ask("Tell me a joke about programmers")
        assert turn.status == "done" and asked(server, agent).count("open") == 2
        agent.connection.abort(reason)  # used since: at once
        wait_for(lambda: asked(server, agent).count("open") == 3)
        wait_for(lambda: agent.conversation.is_ready)
        agent.connection.abort(reason)  # not used since
        wait_for(lambda: len(closed) == 3)
        with pytest.raises(ConnectionFailed):
            agent.configure(instructions="Be brief.")
        assert asked(server, agent).count("open") == 3


def test_a_session_is_renewed_between_turns_before_it_ends():
    """124 s long, renewed 120 s before its end: after four seconds, quietly, and the name is known."""
    started = launch(seed=5, extra=("--session-seconds", "124", "--tokens-per-second", "600", "--rtf", "0.01"))
    errors, closed, name = [], [], random.choice(NAMES)
    try:
        with talking(started) as agent:
            agent.on_error(errors.append)
            agent.on_close(lambda code, reason: closed.append(reason))
            spoken_turn(agent, f"My name is {name}.")
            wait_for(lambda: agent.conversation.is_ready and asked(started, agent).count("open") == 2, 20)
            turn = agent.ask("What is my name?")
            assert turn.status == "done" and name in turn.text and turn.attempts == 1
            assert errors == [] and "renewed" in closed[0]
    finally:
        started.close()


def test_a_refusal_that_lasts_is_tried_once_and_said_with_its_hint(server):
    """A key that is refused now: one handshake, a failed turn that names the setting, and the next question tries anew."""
    with talking(server) as agent:
        errors = []
        agent.on_error(errors.append)
        agent.connection.abort("for this test")
        arm(server, "bad_key:2", name=agent.name)
        for _ in range(2):
            turn = agent.ask("Anybody there?")
            assert turn.status == "failed" and "refused the key" in turn.reason and "AZURE_OPENAI_KEY" in turn.reason
        assert [type(error) for error in errors] == [KeyRefused] * 2
        assert len(wire_log(server, agent.name, direction="fault", type="bad_key")) == 2
        assert agent.ask("And now?").status == "done"


def test_a_busy_service_is_tried_three_times_no_earlier_than_it_says(server):
    """Retry-After: 2 at each handshake; the wait is told in words, and on the loudspeaker."""
    with talking(server) as agent:
        agent.connection.abort("for this test")
        arm(server, "rate_limit_handshake:always", name=agent.name)
        turn = agent.start("Anybody there?")
        wait_for(lambda: turn.reason and "trying again in" in turn.reason and "(2 of 3)" in turn.reason)
        assert turn.wait_text(20) and turn.status == "failed" and "no room for another session" in turn.reason
        times = [entry["at"] for entry in wire_log(server, agent.name, direction="fault", type="rate_limit_handshake")]
        assert len(times) == 3
        assert all(later - earlier >= 2 for earlier, later in zip(times, times[1:], strict=False)), times
        assert any("(3 of 3)" in line for line in agent.player.notices)


def test_a_busy_answer_is_asked_for_again_on_the_same_connection(server):
    with talking(server) as agent:
        arm(server, "rate_limit_response", name=agent.name)
        turn = agent.ask(question := "Tell me a joke about programmers")
        assert (turn.status, turn.reason, turn.attempts) == ("done", None, 2)
        lines = asked(server, agent)
        assert lines == ["open", "update", f"user: {question}", "create", "create"]
        created = [entry["at"] for entry in wire_log(server, agent.name, type="response.create")]
        assert created[1] - created[0] >= 1, "the service said: in 1s"
        arm(server, "rate_limit_response:always", name=agent.name)
        turn = agent.ask("And another one")
        assert (turn.status, turn.text, turn.attempts) == ("failed", "", 3)


def test_waiting_is_ended_by_an_interrupt_and_by_a_new_question(server):
    """At once, and what was given up is never asked."""
    with talking(server) as agent:
        arm(server, "rate_limit_response:2", name=agent.name)
        first = agent.start("Tell me a joke about programmers")
        wait_for(lambda: first.reason)
        agent.interrupt()
        assert first.status == "cancelled" and agent.player.notices[-1] == "🔇 interrupted", "the countdown stands there for ever"
        second = agent.start("Tell me a joke about cats")
        wait_for(lambda: second.reason)
        third = agent.ask("Tell me a joke about teachers")
        assert [turn.status for turn in (first, second, third)] == ["cancelled", "cancelled", "done"]


def test_closing_ends_a_wait_and_a_handshake_at_once(server):
    """No thread is left, whatever the reader was about to do."""
    before = set(threading.enumerate())
    with talking(server) as agent:
        agent.connection.abort("for this test")
        arm(server, "rate_limit_handshake:always", name=agent.name)
        turn = agent.start("Anybody there?")
        wait_for(lambda: turn.reason)
    assert turn.status == "cancelled"
    with socket.socket() as silent:  # takes the connection, never answers the upgrade
        with serving(Scripted) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            agent.connection._settings = settings_for(silent.getsockname()[1])
            agent.connection.abort("for this test")
            turn = agent.start("Anybody there?")
            accepted, _ = silent.accept()
            begun = time.monotonic()
        assert time.monotonic() - begun < 5, "the handshake's own limit is 10 s"
        accepted.close()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("voicehelper")])


def test_closing_while_another_socket_connects_leaves_neither_it_nor_a_thread(monkeypatch):
    """The handshake succeeds a moment after close() has looked for a socket to shut down."""
    before, closing, connect, connecting = set(threading.enumerate()), threading.Event(), websocket.WebSocket.connect, threading.Event()

    def late(socket, url, **options):
        connecting.set()
        assert closing.wait(10)
        connect(socket, url, **options)

    with serving(Scripted) as port:
        agent = ConversationAgent.connect(settings_for(port), player=fast())
        monkeypatch.setattr(websocket.WebSocket, "connect", late)
        agent.connection.abort("for this test")
        agent.start(made_up())
        assert connecting.wait(10)
        shut = agent.connection._shutdown
        monkeypatch.setattr(agent.connection, "_shutdown", lambda: (shut(), closing.set()))
        agent.close()
        wait_for(lambda: not [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("voicehelper")])
        assert agent.connection._ws.sock is None, "it is open still"


def test_a_handler_that_is_added_while_there_is_no_connection_is_called_when_there_is_one(server):
    with talking(server) as agent:
        opened, closed = [], []
        agent.on_close(lambda code, reason: closed.append(reason))
        agent.connection.abort("for this test")
        wait_for(lambda: closed)
        agent.on_open(lambda: opened.append(agent.connection.is_open))
        assert agent.ask("Tell me a joke about programmers").status == "done"
        assert opened == [True]


# -- the session, when something comes between


def counted(*answers):
    """A confirm() of the scripted server: each function in turn, the last one for all others; and the session.updates it got."""
    updates = []

    def confirm(update):
        updates.append(update["session"])
        return {"type": "session.updated", "event_id": "e", "session": {}, **answers[min(len(updates), len(answers)) - 1](update)}

    return confirm, updates


def as_asked(update) -> dict:
    return {"session": update["session"]}


def say_yes(handler, number) -> None:
    for event in (response("in_progress", number), delta("Yes.", number), response("completed", number)):
        handler.say(event)


def test_a_service_that_hangs_up_before_it_is_asked_for_a_session_is_said_at_once():
    class Leaving(Scripted):
        def open(self):
            self.close(4000, reason)

    reason, begun = made_up(), time.monotonic()
    with serving(Leaving) as port, pytest.raises(ConnectionFailed, match=reason):
        ConversationAgent.connect(settings_for(port), player=fast())
    assert time.monotonic() - begun < 5


def test_a_change_whose_connection_is_lost_is_not_made_and_the_next_session_is_the_old_one():
    """configure() says so at once; the next question is answered under the old instructions."""
    confirm, updates = counted(as_asked, lambda update: {"type": "session.created"}, as_asked)
    with serving(Scripted, on_ask=say_yes, confirm=confirm) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        before, failed = agent.session, []

        def change():
            try:
                agent.configure(instructions=made_up())
            except ConnectionFailed as error:
                failed.append(error)

        cell = threading.Thread(target=change)
        cell.start()
        wait_for(lambda: len(updates) == 2)
        agent.connection.abort(reason := made_up())
        cell.join(5)
        assert [reason in str(error) for error in failed] == [True] and agent.session == before
        assert agent.ask(made_up()).status == "done"
    assert updates[2] == updates[0] != updates[1]


def test_a_session_that_was_changed_in_part_is_left_for_a_new_one_as_it_was_before():
    """Nobody knows under what instructions the next answer would be."""
    confirm, updates = counted(as_asked, lambda update: {"session": {**update["session"], "max_output_tokens": 7}}, as_asked)
    with serving(Scripted, on_ask=say_yes, confirm=confirm) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        before = agent.session
        with pytest.raises(ServerRefused, match="session.max_output_tokens"):
            agent.configure(instructions=made_up())
        assert agent.session == before and agent.ask(made_up()).status == "done"
    assert updates[2] == updates[0]


def test_a_handler_that_waits_for_a_change_is_told_and_the_agent_goes_on(monkeypatch):
    """It waits on the thread that would bring the answer."""
    monkeypatch.setattr("voicehelper.agent.wire.CONFIRM_S", -1.5)  # it waits 2 s more than that
    confirm, _ = counted(as_asked)
    with serving(Scripted, on_ask=say_yes, confirm=confirm) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        errors, wanted = [], made_up()
        agent.on_error(errors.append)
        agent.on_message(lambda event: event.type == "response.done" and len(agent.turns) == 1 and agent.configure(instructions=wanted))
        assert agent.ask(made_up()).status == "done"
        wait_for(lambda: errors)
        assert [type(error) for error in errors] == [ConnectionFailed]
        assert agent.ask(made_up()).status == "done"
        assert agent.session.instructions == wanted, "it was confirmed later, and that is said"


@pytest.mark.parametrize("end", [{}, {"expires_at": None}, {"expires_at": 0}])
def test_a_session_that_does_not_say_when_it_ends_is_used(end):
    confirm, updates = counted(lambda update: {"session": {**update["session"], **end}})
    with serving(Scripted, on_ask=say_yes, confirm=confirm) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        assert agent.ask(made_up()).status == "done"
    assert len(updates) == 1


# -- silence of every kind


@pytest.fixture
def impatient(monkeypatch):
    """The limits of the design, a thirtieth as long."""
    for name in ("FIRST_EVENT_S", "DELTA_GAP_S", "CONFIRM_S", "CANCEL_S"):
        monkeypatch.setattr(heart, name, getattr(heart, name) / 30)


@pytest.mark.parametrize("fault", ["half_frame", "stall"])
def test_an_answer_that_stops_is_partial_and_the_next_question_is_answered(server, impatient, fault):
    with talking(server) as agent:
        arm(server, fault, name=agent.name)
        turn = agent.ask("Explain queues in a long answer")
        assert turn.status == "partial" and turn.text and "nothing came for" in turn.reason
        assert agent.ask("Tell me a joke about programmers").status == "done"
        assert asked(server, agent).count("open") == (2 if fault == "half_frame" else 1)


def raw_frames(handler, *pieces: bytes, pause_s: float = 0.0) -> None:
    """Bytes on the wire that no library would send; endless when there is a pause."""
    stream = handler.ws_connection.stream.socket
    stream.setblocking(True)

    def run():
        try:
            for piece in pieces:
                stream.sendall(piece)
            while pause_s:
                stream.sendall(b"x")
                threading.Event().wait(pause_s)
        except OSError:
            pass  # the client has closed

    threading.Thread(target=run, daemon=True).start()


@pytest.mark.parametrize("how", ["silent", "drip", "huge", "in parts"])
def test_a_service_that_never_comes_to_a_word_fails_the_turn_in_words(impatient, how):
    """Three connections, then a reason: nothing at all, a frame that drips, a message of more than 4 MiB in one frame or in many."""
    header = struct.pack("!BBQ", 0x81, 127, 1 << 40)

    def answer(handler, number):
        if how == "drip":
            raw_frames(handler, header, pause_s=0.01)
        elif how == "huge":
            raw_frames(handler, header, *[b"x" * (1 << 20)] * 6)
        elif how == "in parts":
            part = struct.pack("!BBQ", 0x01, 127, 1 << 20) + b"x" * (1 << 20)
            raw_frames(handler, part, *[b"\0" + part[1:]] * 6)

    received = []
    with serving(Scripted, on_ask=answer, received=received) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        turn = agent.ask(made_up())
        assert (turn.status, turn.text, turn.attempts) == ("failed", "", 3)
        assert ("4 MiB" if how in ("huge", "in parts") else "nothing came for") in turn.reason
    assert [event["type"] for event in received].count("response.create") == 3


def test_a_new_session_that_is_never_confirmed_is_given_up(impatient):
    """The first one is; the others are taken and never answered."""
    sessions = []

    def confirm(update):
        sessions.append(update)
        kind = "session.updated" if len(sessions) == 1 else "session.created"
        return {"type": kind, "event_id": "e", "session": update["session"]}

    with serving(Scripted, confirm=confirm) as port, ConversationAgent.connect(settings_for(port), player=fast()) as agent:
        agent.connection.abort("for this test")
        turn = agent.ask(made_up())
        assert turn.status == "failed" and "did not confirm the session" in turn.reason
        assert len(sessions) == 4


def test_a_session_that_is_refused_after_a_loss_is_not_used(server):
    """Rather no answer than one under other instructions."""
    with talking(server) as agent:
        agent.connection.abort("for this test")
        arm(server, "one_bad_field:always", name=agent.name)
        turn = agent.ask("Anybody there?")
        assert turn.status == "failed" and "session was refused" in turn.reason and "practice_fault" in turn.reason
        assert "create" not in asked(server, agent)


def test_a_close_that_says_do_not_come_back_is_obeyed():
    """Code 1008: no other handshake until somebody asks."""
    reason, received = made_up(), []
    with (
        serving(Scripted, on_ask=lambda handler, number: handler.close(1008, reason), received=received) as port,
        ConversationAgent.connect(settings_for(port), player=fast()) as agent,
    ):
        turn = agent.ask(made_up())
        assert (turn.status, turn.attempts) == ("failed", 1) and reason in turn.reason
        assert [event["type"] for event in received].count("session.update") == 1


# -- a conversation that goes on


def test_a_conversation_goes_on_with_another_agent_and_its_turns_are_numbered_on(server):
    """The model knows the name; ids do not come twice."""
    name = random.choice(NAMES)
    with talking(server) as agent:
        spoken_turn(agent, f"My name is {name}.")
        agent.speak_response("Only spoken.")
        before = agent.conversation
    with talking(server, conversation=before.trimmed(turns=5), session=heart.SessionConfig.preset("teacher")) as agent:
        turn = agent.ask("What is my name?")
        assert name in turn.text
        assert [known.id for known in agent.conversation.turns] == ["turn1", turn.id] and turn.id == "turn2"
        assert agent.turns == [turn]
        assert "teacher" in agent.session.instructions


def test_the_first_connection_is_tried_once_and_nothing_is_left_of_it(server):
    before = set(threading.enumerate())
    name = suffix()
    arm(server, "rate_limit_handshake:always", name=name)
    settings = Settings.practice(server.realtime_url, server.speech_host, Secret(named_key(server, name)))
    with pytest.raises(wire.errors.RateLimited, match="Try again in 2 s"):
        ConversationAgent.connect(settings, player=fast())
    assert len(wire_log(server, name, direction="fault")) == 1
    assert set(threading.enumerate()) <= before


def test_the_log_of_a_turn_that_was_asked_twice_holds_both_attempts(server):
    with talking(server) as agent:
        arm(server, "server_error", name=agent.name)
        turn = agent.ask("Tell me a joke about programmers")
        assert turn.status == "done"
        done = [entry.body["response"]["status"] for entry in agent.events.select("response.done", turn=turn.id)]
        assert done[-1] == "completed"
        assert [entry.type for entry in agent.events.select("response.create", "sent", turn.id)] == ["response.create"] * 2
