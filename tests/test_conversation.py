"""conversation: the heart without I/O, played against a small model of the service."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque

import pytest

from voicehelper.conversation import Conversation, Outcome, SessionConfig, TurnRecord
from voicehelper.errors import ConnectionFailed, InputError, ServerRefused
from voicehelper.events import parse

from .support import forall, made_up, openai_faults, st

PRESETS = ("voice assistant", "accessibility reader", "teacher", "customer service")
FINAL = ("done", "partial", "cancelled", "failed")
counter = itertools.count(1)


def server(type: str, **fields) -> dict:
    return {"type": type, "event_id": f"event_{next(counter)}", **fields}


def created(response: str) -> dict:
    body = {"object": "realtime.response", "id": response, "status": "in_progress", "status_details": None, "output": [], "usage": None}
    return server("response.created", response=body)


def delta(response: str, text: str) -> dict:
    return server("response.output_text.delta", response_id=response, item_id="item_a", output_index=0, content_index=0, delta=text)


def done(response: str, status: str = "completed", reason: str | None = None, error: dict | None = None) -> dict:
    details = {"type": status, **({"reason": reason} if reason else {}), **({"error": error} if error else {})}
    usage = {"total_tokens": 12, "input_tokens": 10, "output_tokens": 2}
    body = {"object": "realtime.response", "id": response, "status": status, "output": [], "usage": usage}
    return server("response.done", response={**body, "status_details": None if status == "completed" else details})


def item(id: str, role: str = "user", kind: str = "added") -> dict:
    body = {"id": id, "object": "realtime.item", "type": "message", "status": "completed", "role": role, "content": []}
    return server(f"conversation.item.{kind}", previous_item_id=None, item=body)


def error(cause: str | None, code: str = "invalid_value", said: str = "no") -> dict:
    return server("error", error={"type": "invalid_request_error", "code": code, "message": said, "param": None, "event_id": cause})


class Talk:
    """A conversation and what went over the wire; every message sent is held against openai's types."""

    def __init__(self, config: SessionConfig | None = None):
        self.it, self.sent = Conversation(config), []

    def take(self) -> list[dict]:
        """What is to be sent since the last look."""
        fresh = [message for message, _ in self.it.outgoing()]
        self.sent += fresh
        return fresh

    def types(self) -> list[str]:
        return [message["type"] for message in self.take()]

    def say(self, *events: dict, now: float = 0.0) -> list:
        return [outcome for event in events for outcome in self.it.receive(parse(event), now)]

    def ask(self, config: SessionConfig | None = None, now: float = 0.0) -> tuple[str, list]:
        """Another configuration is asked for; the id of the event, and a list that gets the answer."""
        answers = []
        self.it.open(now, config or self.it.config, answers.append)
        return self.take()[-1]["event_id"], answers

    def connect(self, now: float = 0.0) -> list[dict]:
        """A socket is up: the session is asked for and confirmed. Returns what was sent for it."""
        self.it.open(now)
        sent = [message for message, _ in self.it.outgoing()]
        self.say(server("session.updated", session=self.it.config.to_event()["session"]), now=now)
        return sent


@pytest.fixture
def talk():
    talk = Talk()
    talk.connect()
    return talk


@pytest.fixture
def running(talk):
    """A turn whose answer has begun: "One. "."""
    talk.turn = talk.it.begin(TurnRecord("turn_1", "count"))
    talk.take()
    talk.say(created("resp_1"), delta("resp_1", "One. "))
    return talk


# -- what is sent


def test_the_events_of_this_file_are_events_by_openai_s_own_types():
    failed = done("r", "failed", error={"type": "server_error", "code": "x", "message": "m"})
    samples = [
        created("r"),
        delta("r", "x"),
        done("r"),
        done("r", "incomplete", "content_filter"),
        failed,
        item("i"),
        item("i", "user", "done"),
        error("e"),
    ]
    assert [fault for sample in samples for fault in openai_faults(sample, "server")] == []


@pytest.mark.parametrize(
    "config",
    [
        SessionConfig(),
        SessionConfig(instructions="¡Olé! \u2603", max_output_tokens="inf", output_modalities=["audio"]),
        SessionConfig(transcription={"model": "whisper-1", "language": "es"}, turn_detection={"type": "server_vad", "threshold": 0.4}),
    ],
    ids=["default", "audio", "microphone"],
)
def test_a_session_update_is_valid_by_openai_s_own_types(config):
    talk = Talk(config)
    talk.it.open()
    (update,) = talk.take()
    assert openai_faults(update, "client") == []
    assert update["session"]["type"] == "realtime"


def test_every_message_of_a_turn_and_its_cancel_is_valid_by_openai_s_own_types(running):
    running.it.cancel(running.turn)
    running.take()
    assert [message["type"] for message in running.sent] == ["conversation.item.create", "response.create", "response.cancel"]
    assert [fault for message in running.sent for fault in openai_faults(message, "client")] == []


def test_the_user_s_words_are_sent_unchanged(talk):
    text = f"{made_up()} <b>&amp;</b> ☃\n{made_up()}"
    talk.it.begin(TurnRecord("turn_1", text))
    assert talk.take()[0]["item"]["content"] == [{"type": "input_text", "text": text}]


def test_every_message_has_an_event_id_of_its_own(talk):
    talk.it.open()
    for number in range(5):
        turn = talk.it.begin(TurnRecord(f"turn_{number}", "x"))
        talk.it.cancel(turn)
        talk.say(done(f"resp_{number}", "cancelled"))
    ids = [message["event_id"] for message in talk.take()]
    assert len(set(ids)) == len(ids)


def test_messages_are_taken_once_and_name_their_turn(talk):
    talk.it.begin(TurnRecord("turn_7", "x"))
    assert [turn.id for _, turn in talk.it.outgoing()] == ["turn_7", "turn_7"]
    assert list(talk.it.outgoing()) == []


# -- the session


def effective(config: SessionConfig, **changes) -> dict:
    """A server's full session that applies a config."""
    asked = config.to_event()["session"]
    audio = {"input": {**asked["audio"]["input"], "noise_reduction": None}, "output": {"voice": "alloy"}}
    return {**asked, "id": "sess_1", "model": "m", "tools": [], "audio": audio, **changes}


def test_a_session_updated_as_asked_is_ready(talk):
    session, (_, answers) = effective(talk.it.config), talk.ask()
    assert talk.say(server("session.created", session={"type": "realtime"})) == []
    assert talk.say(server("session.updated", session=session)) == [Outcome("ready")]
    assert (talk.it.session, answers) == (session, [None])


@pytest.mark.parametrize(
    ("field", "value"), [("instructions", "other"), ("max_output_tokens", 7), ("output_modalities", ["audio"]), ("type", "transcription")]
)
def test_a_session_that_is_not_as_asked_is_refused_by_the_name_of_the_field(talk, field, value):
    _, answers = talk.ask()
    (outcome,) = talk.say(server("session.updated", session=effective(talk.it.config, **{field: value})))
    assert outcome.what == "stuck", "nobody knows what holds in this session now"
    assert f"session.{field}" in outcome.text and f"session.{field}" in str(answers[0])


def test_a_turn_detection_that_was_not_turned_off_is_noticed(talk):
    session, _ = effective(talk.it.config), talk.ask()
    session["audio"]["input"]["turn_detection"] = {"type": "server_vad", "create_response": True}
    (outcome,) = talk.say(server("session.updated", session=session))
    assert "session.audio.input.turn_detection" in outcome.text


def test_what_the_service_adds_to_a_turn_detection_is_no_difference():
    config = SessionConfig(turn_detection={"type": "server_vad"})
    session = effective(config)
    session["audio"]["input"]["turn_detection"] = {"type": "server_vad", "threshold": 0.5}
    assert config.differences(session) == []


def test_an_empty_session_differs_in_everything_that_is_not_off():
    names = SessionConfig().differences({})
    assert {"session.instructions", "session.max_output_tokens", "session.output_modalities"} <= set(names)


def test_an_error_that_names_our_session_update_refuses_it_and_the_session_goes_on_as_it_was(talk):
    before, said = talk.it.config, made_up()
    event_id, answers = talk.ask(SessionConfig(instructions=made_up()))
    assert talk.say(error(event_id, said=said)) == []
    assert (talk.it.config, talk.it.is_ready) == (before, True)
    assert [type(answer) for answer in answers] == [ServerRefused] and said in str(answers[0])


def test_an_error_that_names_the_first_session_update_of_a_connection_makes_it_useless():
    talk = Talk()
    talk.it.open()
    (outcome,) = talk.say(error(talk.take()[0]["event_id"], said=(said := made_up())))
    assert outcome.what == "stuck" and said in outcome.text


def test_each_of_several_changes_gets_its_own_answer_and_the_last_one_confirmed_holds(talk):
    """An interrupt may have left an earlier one without anybody who waits for it."""
    configs = [SessionConfig(instructions=made_up()) for _ in range(3)]
    (_, first), (second_id, second), (_, third) = [talk.ask(config) for config in configs]
    talk.say(server("session.updated", session=effective(configs[0])))
    assert (first, second, third, talk.it.config) == ([None], [], [], configs[0])
    talk.say(error(second_id), server("session.updated", session=effective(configs[2])))
    assert ([type(answer) for answer in second], third, talk.it.config) == ([ServerRefused], [None], configs[2])


def test_a_change_that_is_not_answered_when_the_connection_is_lost_is_not_made_on_the_next_one(talk):
    """And whoever waits for it is told at once."""
    before, gone = talk.it.config, ConnectionFailed("gone")
    _, answers = talk.ask(SessionConfig(instructions=made_up()))
    talk.it.lost(gone)
    assert (answers, talk.it.config) == ([gone], before)
    assert talk.connect()[0]["session"] == before.to_event()["session"]


def test_a_session_updated_that_nobody_asked_for_changes_nothing_but_what_is_known(talk):
    """A learner's own session.update on the socket."""
    session, before = effective(talk.it.config, instructions=made_up()), talk.it.config
    assert talk.say(server("session.updated", session=session)) == []
    assert (talk.it.session, talk.it.config, talk.it.is_ready) == (session, before, True)


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_a_session_of_its_own_and_takes_other_fields(name):
    config, limit = SessionConfig.preset(name), 7
    assert openai_faults(config.to_event(), "client") == []
    assert SessionConfig.preset(name, max_output_tokens=limit) == dataclasses.replace(config, max_output_tokens=limit)
    assert len({SessionConfig.preset(other).instructions for other in PRESETS}) == len(PRESETS)


def test_a_preset_that_is_not_there_is_refused_by_the_names_of_those_that_are():
    with pytest.raises(InputError, match=(wrong := made_up())) as caught:
        SessionConfig.preset(wrong)
    assert all(name in caught.value.hint for name in PRESETS)


def test_a_temperature_is_refused_with_the_explanation():
    with pytest.raises(InputError, match="temperature") as caught:
        SessionConfig(temperature=0.7)
    assert "instructions" in caught.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        *({"output_modalities": value} for value in (("text", "audio"), (), ("video",), "text")),
        *({"max_output_tokens": value} for value in (0, -1, 4097, 1.5, True, "many", None)),
        {"instructions": 5},
    ],
    ids=str,
)
def test_a_config_the_service_would_refuse_is_refused_before_it_is_sent(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        SessionConfig(**fields)


# -- one turn


def test_a_completed_turn_is_done_and_holds_its_deltas_once_in_order(running):
    words = [made_up() + " " for _ in range(20)]
    outcomes = running.say(*(delta("resp_1", word) for word in words), done("resp_1"))
    assert outcomes[:-1] == [Outcome("delta", running.turn, word) for word in words]
    assert outcomes[-1] == Outcome("ended", running.turn)
    assert (running.turn.status, running.turn.text, running.turn.reason) == ("done", "One. " + "".join(words), None)
    assert running.turn.usage["total_tokens"] == 12


def test_an_empty_delta_is_nothing(running):
    assert running.say(delta("resp_1", "")) == []


def test_deltas_of_another_response_are_dropped(running):
    assert running.say(delta("resp_0", "old"), delta("resp_9", "other")) == []
    running.say(done("resp_1"))
    assert running.turn.text == "One. "


def test_the_end_of_another_response_does_not_end_the_turn(running):
    assert running.say(done("resp_0")) == []
    assert running.turn.status == "running"


def test_deltas_after_the_end_are_dropped(running):
    running.say(done("resp_1"))
    assert running.say(delta("resp_1", "late")) == []
    assert running.turn.text == "One. "


@pytest.mark.parametrize(("reason", "words"), [("max_output_tokens", "length"), ("content_filter", "filter")])
def test_an_incomplete_answer_is_partial_with_a_plain_reason(running, reason, words):
    (ended,) = running.say(done("resp_1", "incomplete", reason))
    assert (running.turn.status, running.turn.text) == ("partial", "One. ")
    assert words in running.turn.reason
    assert "_" not in running.turn.reason
    assert ended == Outcome("ended", running.turn)


def test_a_failed_answer_without_text_is_failed_and_says_why(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    said = made_up()
    (ended,) = talk.say(created("r"), done("r", "failed", error={"type": "invalid_request_error", "code": "x", "message": said}))
    assert (turn.status, turn.reason, ended) == ("failed", said, Outcome("ended", turn))


def test_a_failed_answer_with_text_is_partial_and_keeps_it(running):
    running.say(done("resp_1", "failed", error={"type": "server_error", "code": "x", "message": "sorry"}))
    assert (running.turn.status, running.turn.reason, running.turn.text) == ("partial", "sorry", "One. ")


def test_an_answer_the_service_cancelled_is_cancelled(running):
    running.say(done("resp_1", "cancelled", "turn_detected"))
    assert running.turn.status == "cancelled"
    assert "turn_detected" in running.turn.reason


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_an_end_without_a_reason_does_not_say_none(running, status):
    running.say(done("resp_1", status))
    assert "None" not in running.turn.reason


@pytest.mark.parametrize("which", [0, 1], ids=["the item", "the response"])
def test_an_error_that_names_an_event_of_the_turn_ends_it_at_once(talk, which):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    said = made_up()
    (ended,) = talk.say(error(talk.take()[which]["event_id"], "invalid_value", said))
    assert (turn.status, turn.reason, ended) == ("failed", said, Outcome("ended", turn))


def test_after_a_refused_response_the_next_turn_is_sent_at_once(talk):
    talk.it.begin(TurnRecord("turn_1", "x"))
    _, ask = talk.take()
    talk.it.begin(TurnRecord("turn_2", "y"))
    talk.say(error(ask["event_id"]))
    assert talk.types() == ["conversation.item.create", "response.create"]


def test_after_a_refused_item_the_next_turn_waits_for_the_response_that_was_asked_for(talk):
    talk.it.begin(TurnRecord("turn_1", "x"))
    made, _ = talk.take()
    talk.say(error(made["event_id"]))
    talk.it.begin(TurnRecord("turn_2", "y"))
    assert talk.types() == []
    talk.say(created("resp_1"), done("resp_1"))
    assert talk.types() == ["conversation.item.create", "response.create"]


@pytest.mark.parametrize("cause", [None, "someone_else", ""])
def test_an_error_that_names_nothing_of_ours_leaves_the_turn_alone(running, cause):
    assert running.say(error(cause)) == []
    assert running.turn.status == "running"


# -- one turn at a time


def test_a_second_turn_waits_for_the_end_of_the_first_response(running):
    running.it.begin(TurnRecord("turn_2", "y"))
    assert running.types() == []
    running.say(delta("resp_1", "Two."), done("resp_1"))
    assert running.types() == ["conversation.item.create", "response.create"]


def test_barge_in_sends_the_cancel_and_asks_only_after_response_done(running):
    assert running.it.cancel(running.turn)
    second = running.it.begin(TurnRecord("turn_2", "y"))
    (cancel,) = running.take()
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "resp_1")
    assert running.say(delta("resp_1", "late")) == []
    assert running.types() == []
    running.say(done("resp_1", "cancelled", "client_cancelled"))
    assert running.types() == ["conversation.item.create", "response.create"]
    running.say(created("resp_2"), delta("resp_2", "New."), done("resp_2"))
    assert (running.turn.status, running.turn.text) == ("cancelled", "One. ")
    assert (second.status, second.text) == ("done", "New.")


def test_a_turn_cancelled_before_its_response_has_an_id_is_cancelled_without_one(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.take()
    talk.it.cancel(turn)
    (cancel,) = talk.take()
    assert "response_id" not in cancel
    assert talk.say(created("r"), delta("r", "late"), done("r", "cancelled")) == []
    assert (turn.status, turn.text) == ("cancelled", "")


def test_a_turn_cancelled_while_it_waits_is_never_sent(running):
    second = running.it.begin(TurnRecord("turn_2", "y"))
    assert running.it.cancel(second)
    running.say(done("resp_1"))
    assert running.types() == []


def test_cancelling_twice_or_after_the_end_changes_nothing(running):
    running.say(done("resp_1"))
    assert not running.it.cancel(running.turn)
    assert running.turn.status == "done"
    assert running.types() == []


def test_a_cancel_that_came_too_late_keeps_the_turn_cancelled(running):
    running.it.cancel(running.turn, "my reason")
    running.say(done("resp_1"))
    assert (running.turn.status, running.turn.reason) == ("cancelled", "my reason")
    assert running.turn.usage["total_tokens"] == 12


def test_the_refusal_of_a_late_cancel_is_harmless(running):
    running.say(done("resp_1"))
    second = running.it.begin(TurnRecord("turn_2", "y"))
    assert running.say(error("cancel_1", "response_cancel_not_active")) == []
    assert second.status == "running"


def test_the_end_of_an_earlier_turn_s_response_said_twice_does_not_end_the_next_turn(running):
    running.say(done("resp_1"))
    second = running.it.begin(TurnRecord("turn_2", "y"))
    running.say(done("resp_1"))
    assert second.status == "running"


def test_an_earlier_turn_s_response_created_twice_is_not_taken_for_the_next_turn_s(running):
    running.say(done("resp_1"))
    second = running.it.begin(TurnRecord("turn_2", "y"))
    running.say(created("resp_1"), delta("resp_1", "old"), created("resp_2"), delta("resp_2", "new"), done("resp_2"))
    assert (second.status, second.text) == ("done", "new")


def test_an_answer_whose_response_created_was_left_out_is_not_done_with_an_empty_text(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.say(delta("r", "Hello."), done("r"))
    assert (turn.status, turn.text) in (("done", "Hello."), ("running", ""))


# -- the connection is lost


def texts(messages: list[dict]) -> list[tuple[str, str]]:
    """Role and text of the items in what was sent."""
    items = [message["item"] for message in messages if message["type"] == "conversation.item.create"]
    return [(item["role"], item["content"][0]["text"]) for item in items]


def test_a_lost_connection_ends_what_has_shown_a_word_and_the_others_wait(running):
    second = running.it.begin(TurnRecord("turn_2", "y"))
    outcomes = running.it.lost(ConnectionFailed("the wire broke"))
    assert [outcome.turn.id for outcome in outcomes] == ["turn_1"]
    assert (running.turn.status, running.turn.text, running.turn.reason) == (
        "partial",
        "One. ",
        "the wire broke → Ask again; what came is kept.",
    )
    assert second.status == "running"


def test_a_turn_without_a_word_is_asked_again_on_the_next_connection_and_answered_once(talk):
    question, answer = made_up(), made_up()
    turn = talk.it.begin(TurnRecord("turn_1", question))
    talk.take()
    talk.say(created("resp_1"))
    assert talk.it.lost(ConnectionFailed("gone")) == []
    assert talk.it.tick(0.1) == [Outcome("waits", turn)]
    assert (turn.status, talk.types()) == ("running", [])
    assert texts(talk.connect(now=60.0)) == []  # its question is not told as something of the past
    talk.it.tick(60.0)
    assert texts(again := talk.take()) == [("user", question)] and again[-1]["type"] == "response.create"
    talk.say(delta("resp_1", "late"), created("resp_2"), delta("resp_2", answer), done("resp_2"), now=61.0)
    assert (turn.status, turn.text, turn.attempts) == ("done", answer, 2)


def test_a_turn_is_asked_three_times_at_most(talk):
    turn, now = talk.it.begin(TurnRecord("turn_1", "x")), 0.0
    for attempt in (1, 2, 3):
        assert talk.types()[-1] == "response.create"
        assert (turn.attempts, turn.status) == (attempt, "running")
        outcomes = talk.it.lost(ConnectionFailed(f"gone {attempt}"), now)
        talk.connect(now := now + 60.0)
        talk.it.tick(now)
    assert outcomes == [Outcome("ended", turn)]
    assert (turn.status, turn.reason, talk.types()) == ("failed", "gone 3 → Ask again; what came is kept.", [])


def test_no_turn_leaves_before_the_new_session_is_confirmed(running):
    running.it.lost(ConnectionFailed("gone"))
    running.it.begin(TurnRecord("turn_2", "y"))
    assert running.types() == []
    running.it.open(60.0)
    assert "response.create" not in running.types()
    running.say(server("session.updated", session=running.it.config.to_event()["session"]), now=60.0)
    assert running.types() == ["conversation.item.create", "response.create"]


def test_what_waits_has_failed_when_an_error_will_not_pass(talk):
    talk.it.lost(ConnectionFailed("gone"))
    turns = [talk.it.begin(TurnRecord(f"turn_{number}", "x")) for number in (1, 2)]
    lasting = ConnectionFailed(made_up(), retryable=False)
    assert talk.it.lost(lasting) == [Outcome("gone"), *[Outcome("ended", turn) for turn in turns]]
    assert {(turn.status, turn.reason) for turn in turns} == {("failed", str(lasting))}
    assert talk.connect() and talk.types() == []


def test_a_lost_connection_is_opened_three_times_with_growing_pauses_and_then_when_somebody_asks(talk):
    turn, now, pauses = talk.it.begin(TurnRecord("turn_1", "x")), 100.0, []
    talk.say(created("r"), delta("r", "a word"), done("r"))
    while Outcome("gone") not in talk.it.lost(ConnectionFailed("gone"), now):
        pauses.append(next(later / 100 for later in range(500) if talk.it.is_due(now + later / 100)))
        now += pauses[-1]
    assert all(limit <= pause <= limit * 1.25 + 0.01 for pause, limit in zip(pauses, (0.5, 1.0, 2.0), strict=True)), pauses
    assert not talk.it.is_due(now + 1e6) and turn.status == "done"
    talk.it.begin(TurnRecord("turn_2", "x"), now)
    assert talk.it.is_due(now)


def test_a_connection_nobody_asked_anything_of_is_due_when_somebody_asks(talk):
    talk.it.lost(ConnectionFailed("gone"), 0.0)
    assert not talk.it.is_due(60.0)
    talk.it.begin(TurnRecord("turn_1", "x"), 60.0)
    assert talk.it.is_due(60.0)


def test_a_service_that_says_when_is_not_asked_earlier_also_when_the_connection_is_lost_meanwhile(talk):
    """Its own number counts for the handshake, and for a turn that waits."""
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.say(done("r1", "failed", error={"type": "t", "code": "rate_limit_exceeded", "message": "Retry after 20 seconds."}), now=0.0)
    talk.it.lost(ConnectionFailed("gone"), 1.0)
    assert not talk.it.is_due(19.9) and talk.it.is_due(20.0)
    talk.it.lost(ConnectionFailed("busy", hint="Try again in 7 s."), 20.0)
    assert not talk.it.is_due(26.9) and talk.it.is_due(27.0)
    assert talk.it.tick(20.5) == [Outcome("waits", turn)] and turn.reason == "busy: trying again in 7 s (2 of 3)"


def test_a_lost_connection_ends_the_running_turn_also_behind_a_cancelled_one(running):
    second = running.it.begin(TurnRecord("turn_2", "y"))
    running.it.begin(TurnRecord("turn_3", "z"))
    running.it.cancel(second)
    running.it.lost(ConnectionFailed("gone"))
    assert running.turn.status == "partial"


def test_a_turn_that_is_interrupted_while_it_waits_is_never_sent(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.take()
    talk.it.lost(ConnectionFailed("gone"))
    assert talk.it.cancel(turn)
    talk.connect(60.0)
    talk.it.tick(60.0)
    assert "response.create" not in talk.types()


# -- what the service may do a moment later


@pytest.mark.parametrize(("code", "kind"), [("rate_limit_exceeded", "requests"), (None, "server_error")])
def test_a_response_that_failed_for_now_is_asked_for_again_without_its_question(talk, code, kind):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.take()
    assert talk.say(created("r1"), done("r1", "failed", error={"type": kind, "code": code, "message": "Busy."}), now=10.0) == []
    assert talk.it.tick(10.1) == [Outcome("waits", turn)]
    assert (turn.status, talk.types()) == ("running", [])
    talk.it.tick(10.4)
    assert talk.types() == []
    talk.it.tick(10.7)
    assert talk.types() == ["response.create"]
    assert turn.reason is None
    talk.say(created("r2"), done("r1", "failed"), delta("r2", "Yes."), done("r2"))
    assert (turn.status, turn.text) == ("done", "Yes.")


@pytest.mark.parametrize(("words", "seconds"), [("Please try again in 7s.", 7), ("Try again in 1.5 s", 1.5), ("again in 300ms", 0.3)])
def test_the_service_is_asked_again_when_it_said(talk, words, seconds):
    talk.it.begin(TurnRecord("turn_1", "x"))
    talk.take()
    talk.say(done("r1", "failed", error={"type": "t", "code": "rate_limit_exceeded", "message": words}), now=100.0)
    talk.it.tick(99.99 + seconds)
    assert talk.types() == []
    talk.it.tick(100.01 + seconds)
    assert talk.types() == ["response.create"]


def test_a_turn_that_waits_counts_down_in_its_reason(talk):
    turn, said = talk.it.begin(TurnRecord("turn_1", "x")), made_up()
    talk.say(done("r1", "failed", error={"type": "t", "code": "rate_limit_exceeded", "message": f"{said}. Again in 3 s."}), now=0.0)
    shown = [turn.reason for now in (0.5, 1.5, 2.5) if talk.it.tick(now) == [Outcome("waits", turn)]]
    assert [f"{said}. Again in 3 s: trying again in {left} s (2 of 3)" for left in (3, 2, 1)] == shown


def test_an_answer_that_failed_after_a_word_is_not_asked_for_again(running):
    running.say(done("resp_1", "failed", error={"type": "t", "code": "rate_limit_exceeded", "message": "Busy."}), now=1.0)
    running.it.tick(60.0)
    assert (running.turn.status, running.turn.text, running.types()) == ("partial", "One. ", [])


def test_a_response_that_ran_already_is_no_end_of_the_turn(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    ask = talk.take()[-1]["event_id"]
    talk.say(error(ask, "conversation_already_has_active_response"), now=0.0)
    talk.it.tick(5.0)
    assert (turn.status, talk.types()) == ("running", ["response.create"])


# -- what a new session is told


def said(number: int, heard: int | None = None, **fields) -> TurnRecord:
    text = f"Answer {made_up()} {number}."
    record = {"status": "done", "heard_chars": len(text) if heard is None else heard, **fields}
    return TurnRecord(f"turn_{number}", f"Question {made_up()}?", pieces=[text], **record)


def test_a_new_session_is_told_what_was_said_as_far_as_it_was_heard():
    talk, first, second = Talk(), said(1), said(2, heard=6)
    third = TurnRecord("turn_3", made_up(), status="failed", reason="x")
    talk.it.turns += [first, second, third]
    sent = talk.connect()
    assert sent[0]["type"] == "session.update" and {message["type"] for message in sent[1:]} == {"conversation.item.create"}
    assert texts(sent) == [
        ("user", first.user_text),
        ("assistant", first.text),
        ("user", second.user_text),
        ("assistant", f"{second.text[:6]} [The user heard no more of this answer.]"),
        ("user", third.user_text),
    ]
    assert [fault for message in sent for fault in openai_faults(message, "client")] == []


def test_a_session_that_lives_is_not_told_again(talk):
    talk.it.begin(TurnRecord("turn_1", "x"))
    talk.say(created("r"), delta("r", "y"), done("r"))
    talk.ask()
    assert [message["type"] for message in talk.sent] == ["conversation.item.create", "response.create", "session.update"]


def test_the_memory_of_a_new_session_is_bounded_by_turns_and_by_tokens():
    talk = Talk()
    talk.it.turns += [said(number) for number in range(50)]
    assert texts(talk.connect())[0] == ("user", talk.it.turns[30].user_text)
    talk = Talk()
    talk.it.turns += [TurnRecord(str(number), made_up(), status="done", pieces=["x" * 12_000], heard_chars=12_000) for number in range(5)]
    assert texts(talk.connect())[0] == ("user", talk.it.turns[3].user_text)


@pytest.mark.parametrize(("limits", "left"), [({}, 4), ({"turns": 2}, 2), ({"turns": 0}, 0), ({"tokens": 0}, 0), ({"tokens": 27}, 2)])
def test_a_conversation_is_trimmed_to_its_last_turns(limits, left):
    whole = Conversation()
    whole.turns += [TurnRecord(str(number), "q" * 20, status="done", pieces=["a" * 30]) for number in range(4)]
    trimmed = whole.trimmed(**limits)
    assert trimmed.turns == whole.turns[4 - left :]
    assert len(whole.turns) == 4


# -- the clock


def test_a_turn_without_any_sign_for_fifteen_seconds_is_asked_on_another_connection(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"), now=100.0)
    talk.take()
    assert talk.it.tick(114.9) == []
    (stuck,) = talk.it.tick(115.0)
    assert stuck.what == "stuck" and "15 s" in stuck.text
    assert talk.it.lost(ConnectionFailed(stuck.text), 115.0) == []
    assert talk.it.tick(115.1) == [Outcome("waits", turn)] and "nothing came" in turn.reason


def test_an_answer_that_was_begun_has_thirty_seconds_for_its_first_word(talk):
    talk.it.begin(TurnRecord("turn_1", "x"), now=0.0)
    talk.say(created("r"), now=10.0)
    assert talk.it.tick(39.9) == []
    assert talk.it.tick(40.0)[0].what == "stuck"


def test_an_answer_that_stops_for_thirty_seconds_is_partial_and_the_service_is_told(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"), now=0.0)
    talk.say(created("r"), now=10.0)
    talk.say(delta("r", "One. "), now=20.0)
    talk.take()
    assert talk.it.tick(49.9) == []
    assert talk.it.tick(50.0) == [Outcome("ended", turn)]
    assert (turn.status, turn.text, talk.types()) == ("partial", "One. ", ["response.cancel"])
    assert "30 s" in turn.reason


def test_each_delta_starts_the_thirty_seconds_anew(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.say(created("r"))
    for now in range(0, 300, 29):
        talk.say(delta("r", "."), now=now)
        assert talk.it.tick(now + 28.9) == []
    assert turn.status == "running"


def test_a_waiting_turn_has_its_own_fifteen_seconds_from_being_sent(running):
    running.it.begin(TurnRecord("turn_2", "y"), now=0.0)
    running.say(done("resp_1"), now=25.0)
    assert running.it.tick(39.9) == []
    assert running.it.tick(40.0)[0].what == "stuck"


def test_a_service_that_does_not_answer_a_cancel_within_five_seconds_is_given_up(running):
    running.it.cancel(running.turn, now=31.0)
    running.take()
    second = running.it.begin(TurnRecord("turn_2", "y"))
    assert running.it.tick(31.0) == running.it.tick(35.9) == []
    (stuck,) = running.it.tick(36.0)
    assert stuck.what == "stuck" and second.status == "running"
    assert running.it.lost(ConnectionFailed(stuck.text), 36.0) == []
    running.connect(37.0)
    assert running.types() == ["conversation.item.create", "response.create"]


def test_a_session_that_is_not_confirmed_within_ten_seconds_is_given_up(talk):
    talk.it.lost(ConnectionFailed("gone"))
    talk.it.open(100.0)
    assert talk.it.tick(110.0) == []
    assert talk.it.tick(110.1)[0].what == "stuck"


def test_without_a_turn_the_clock_says_nothing(talk):
    assert talk.it.tick(1e9) == []


def test_a_session_is_renewed_only_between_two_turns_and_once(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.it.renew_at = 10.0
    talk.say(created("r"), delta("r", "y"), now=20.0)
    assert talk.it.tick(21.0) == []
    talk.say(done("r"), now=22.0)
    assert talk.it.tick(23.0)[0].what == "stuck" and turn.status == "done"
    talk.it.lost(ConnectionFailed("renewed"), 23.0)
    assert talk.it.tick(60.0) == []


def test_a_late_answer_to_a_timed_out_question_is_not_given_to_the_next_one(talk):
    talk.it.begin(TurnRecord("turn_1", "x"), now=0.0)
    talk.say(created("resp_1"), delta("resp_1", "a"), now=1.0)
    talk.it.tick(31.0)
    second = talk.it.begin(TurnRecord("turn_2", "y"), now=32.0)
    talk.say(delta("resp_1", "late"), done("resp_1", "cancelled"), now=33.0)
    assert (second.status, second.text) == ("running", "")


# -- items, limits, the log


def test_items_are_kept_once_in_the_server_s_order(talk):
    talk.say(item("a"), item("b", "assistant"), item("a", kind="done"), item("b", "assistant", "done"))
    assert [(kept["id"], kept["role"]) for kept in talk.it.items] == [("a", "user"), ("b", "assistant")]


def test_items_are_those_of_the_session_that_lives(talk):
    talk.say(item("a"), item("a", kind="done"))
    talk.it.lost(ConnectionFailed("gone"))
    talk.connect()
    talk.say(item("c"), item("c", kind="done"))
    assert [kept["id"] for kept in talk.it.items] == ["c"]


def test_each_attempt_of_a_turn_belongs_to_it_in_the_log(talk):
    talk.it.begin(TurnRecord("turn_1", "x"))
    failed = done("r1", "failed", error={"type": "server_error", "code": None, "message": "Busy."})
    talk.say(created("r1"), failed)
    talk.it.tick(60.0)
    talk.say(created("r2"))
    assert talk.it.turn_of(parse(failed)) == talk.it.turn_of(parse(created("r2"))) == "turn_1"


def test_an_event_is_told_which_turn_it_belongs_to(running):
    assert running.it.turn_of(parse(delta("resp_1", "x"))) == "turn_1"
    running.say(done("resp_1"))
    running.it.begin(TurnRecord("turn_2", "y"))
    running.say(created("resp_2"))
    assert running.it.turn_of(parse(done("resp_2"))) == "turn_2"
    assert running.it.turn_of(parse(done("resp_1"))) == "turn_1"
    assert running.it.turn_of(parse(item("a"))) is None


def test_an_unknown_event_is_no_event(running):
    assert running.say(server("response.mcp_call.in_progress", response_id="resp_1"), {"type": "response.done", "response": 5}) == []
    assert running.turn.status == "running"


# -- any order


class Service:
    """The other side: one response at a time; keeps what it said for each response."""

    def __init__(self):
        self.asked, self.busy, self.said, self.answers = deque(), None, {}, {}

    def get(self, messages: list[dict]) -> list[dict]:
        events = []
        for message in messages:
            match message["type"]:
                case "session.update":
                    events.append(server("session.updated", session=message["session"]))
                case "conversation.item.create":
                    self.question = message["item"]["content"][0]["text"]
                    events.append(item(f"item_{next(counter)}"))
                case "response.create":
                    assert self.busy is None, "a second response.create while one runs"
                    self.busy = f"resp_{next(counter)}"
                    self.said[self.busy], self.answers[self.question] = "", self.busy
                    events.append(created(self.busy))
                case "response.cancel" if self.busy is None:
                    events.append(error(message["event_id"], "response_cancel_not_active"))
                case "response.cancel" if message.get("response_id") in (None, self.busy):
                    events.append(self.end("cancelled", "client_cancelled"))
        return events

    def more(self, text: str) -> list[dict]:
        if self.busy is None:
            return []
        self.said[self.busy] += text
        return [delta(self.busy, text)]

    def end(self, status: str, reason: str | None = None) -> dict:
        ended, self.busy = self.busy, None
        return done(ended, status, reason, {"type": "server_error", "code": "c", "message": "m"} if status == "failed" else None)


class Play:
    """Random steps of both sides; the server's events may be under way for a while."""

    def __init__(self):
        self.it, self.service, self.wire = Conversation(), Service(), deque()
        self.turns, self.ends, self.now = [], {}, 0.0
        self.connect()

    def connect(self) -> None:
        """A new connection is a new session; what was under way on the old one never arrives."""
        self.service.busy = None
        self.wire.clear()
        self.it.open(self.now)
        self.flush()
        self.arrive(99)

    def note(self, outcomes) -> None:
        for outcome in outcomes:
            if outcome.what == "ended":
                self.ends.setdefault(outcome.turn.id, []).append(outcome.turn.status)

    def flush(self) -> None:
        self.wire.extend(self.service.get([message for message, _ in self.it.outgoing()]))

    def cancel(self, turn) -> None:
        if self.it.cancel(turn, now=self.now):
            self.ends.setdefault(turn.id, []).append(turn.status)

    def arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            self.note(self.it.receive(parse(self.wire.popleft()), self.now))
            self.flush()

    def step(self, what: str, number: int, word: str) -> None:
        match what:
            case "begin":
                if self.turns and number % 3:  # two of three times as the agent does: what runs is cancelled first
                    self.cancel(self.turns[-1])
                self.turns.append(self.it.begin(TurnRecord(f"turn_{len(self.turns)}", f"question {len(self.turns)}"), self.now))
            case "cancel" if self.turns:
                self.cancel(self.turns[-1 - number % min(3, len(self.turns))])
            case "say":
                self.wire.extend(self.service.more(word))
            case "end" if self.service.busy:
                self.wire.append(self.service.end(("completed", "incomplete", "failed", "cancelled")[number % 4], word))
            case "arrive":
                self.arrive(number)
            case "refuse" if self.service.busy is None and self.turns and self.turns[-1].event_ids:
                self.wire.append(error(self.turns[-1].event_ids[number % 2], said=word))
            case "pass":  # what is under way arrives first: an answer later than that is a known bug with tests of its own
                self.arrive(len(self.wire))
                self.now += 31.0
                outcomes = self.it.tick(self.now)
                self.note(outcomes)
                if any(outcome.what == "stuck" for outcome in outcomes):
                    self.step("lose", number, word)
                self.flush()
                self.arrive(len(self.wire))
            case "lose":
                self.note(self.it.lost(ConnectionFailed(f"gone: {word}"), self.now))
                if number % 4 == 3:
                    self.note(self.it.lost(ConnectionFailed("nobody there", retryable=False), self.now))
                self.connect()
        self.flush()


steps = st.tuples(
    st.sampled_from(["begin", "cancel", "say", "say", "say", "end", "arrive", "arrive", "arrive", "pass", "lose"]),
    st.integers(0, 11),
    st.text(min_size=1, max_size=4),
)


@forall(st.lists(steps, max_size=40), st.booleans(), examples=2000)
def test_whatever_happens_every_turn_ends_once_and_its_text_is_what_the_service_said(script, breaks):
    play = Play()
    for what, number, word in script:
        before = [(turn.status, turn.text) for turn in play.turns]
        play.step(what, number, word)
        for turn, (status, text) in zip(play.turns, before, strict=False):
            assert status == "running" or (turn.status, turn.text) == (status, text), "a final turn changed"
    if breaks:
        play.note(play.it.lost(ConnectionFailed("gone")))
        play.note(play.it.lost(ConnectionFailed("nobody there", retryable=False)))
        assert all(turn.status != "running" for turn in play.turns)
    for _ in range(200):
        play.now += 1.0
        play.it.tick(play.now)
        play.step("end", 0, "x") if play.service.busy else None
        play.step("arrive", 99, "x")
    assert all(turn.attempts <= 3 for turn in play.turns)
    for turn in play.turns:
        said = play.service.said.get(play.service.answers.get(turn.user_text), "")
        assert turn.status in FINAL
        assert play.ends[turn.id] == [turn.status], "ended more than once, or silently"
        assert turn.text == said if turn.status == "done" else said.startswith(turn.text)
        assert (turn.reason is None) == (turn.status == "done")


@forall(st.lists(steps, max_size=30), st.lists(st.integers(0, 30), max_size=3), examples=500)
def test_refusals_at_any_moment_still_leave_every_turn_in_one_final_state(script, refusals):
    play = Play()
    for number, (what, count, word) in enumerate(script):
        play.step(what, count, word)
        if number in refusals:
            play.step("refuse", count, word)
    play.arrive(len(play.wire))
    for _ in range(200):
        if not any(turn.status == "running" for turn in play.turns):
            break
        play.step("pass", 0, "x")
    assert all(turn.status in FINAL for turn in play.turns)
    assert all(len(ends) == 1 for ends in play.ends.values())


def test_a_character_whose_halves_come_in_two_deltas_is_whole_and_a_half_alone_is_replaced(running):
    """JSON may carry half of a surrogate pair; a text with a lone one can't be printed, shown or saved."""
    running.say(delta("resp_1", "Yes \ud83d"))
    assert running.turn.text == "One. Yes "
    running.say(delta("resp_1", "\ude00!"), delta("resp_1", " No \ud83d here \udc00."), delta("resp_1", " End \ud83d"), done("resp_1"))
    assert running.turn.text == "One. Yes 😀! No \ufffd here \ufffd. End "
    running.turn.text.encode()
    following = running.it.begin(TurnRecord("turn_2", "again"))
    running.say(created("resp_2"), delta("resp_2", "\ude00 new"))
    assert following.text == "\ufffd new"
