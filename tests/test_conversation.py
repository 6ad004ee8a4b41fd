"""conversation: the heart without I/O, played against a small model of the service."""

from __future__ import annotations

import itertools
from collections import deque

import pytest

from voicehelper.conversation import Conversation, Delta, Ended, SessionConfig, SessionReady, SessionRefused, TurnRecord
from voicehelper.errors import InputError
from voicehelper.events import parse

from .support import forall, made_up, openai_faults, st

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


@pytest.fixture
def talk():
    return Talk()


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
    session = effective(talk.it.config)
    assert talk.say(server("session.created", session={"type": "realtime"})) == []
    assert talk.say(server("session.updated", session=session)) == [SessionReady()]
    assert talk.it.session == session


@pytest.mark.parametrize(
    ("field", "value"), [("instructions", "other"), ("max_output_tokens", 7), ("output_modalities", ["audio"]), ("type", "transcription")]
)
def test_a_session_that_is_not_as_asked_is_refused_by_the_name_of_the_field(talk, field, value):
    (outcome,) = talk.say(server("session.updated", session=effective(talk.it.config, **{field: value})))
    assert isinstance(outcome, SessionRefused)
    assert f"session.{field}" in outcome.reason


def test_a_turn_detection_that_was_not_turned_off_is_noticed(talk):
    session = effective(talk.it.config)
    session["audio"]["input"]["turn_detection"] = {"type": "server_vad", "create_response": True}
    (outcome,) = talk.say(server("session.updated", session=session))
    assert "session.audio.input.turn_detection" in outcome.reason


def test_what_the_service_adds_to_a_turn_detection_is_no_difference():
    config = SessionConfig(turn_detection={"type": "server_vad"})
    session = effective(config)
    session["audio"]["input"]["turn_detection"] = {"type": "server_vad", "threshold": 0.5}
    assert config.differences(session) == []


def test_an_empty_session_differs_in_everything_that_is_not_off():
    names = SessionConfig().differences({})
    assert {"session.instructions", "session.max_output_tokens", "session.output_modalities"} <= set(names)


def test_an_error_that_names_our_session_update_refuses_the_session(talk):
    talk.it.open()
    (update,) = talk.take()
    said = made_up()
    assert talk.say(error(update["event_id"], said=said)) == [SessionRefused(said)]


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
    assert outcomes[:-1] == [Delta(running.turn, word) for word in words]
    assert outcomes[-1] == Ended(running.turn)
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
    assert ended.code == reason


def test_a_failed_answer_without_text_is_failed_and_says_why(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    problem = {"type": "server_error", "code": "rate_limit_exceeded", "message": "Please try again in 7.2s."}
    (ended,) = talk.say(created("r"), done("r", "failed", error=problem))
    assert (turn.status, turn.reason, ended.code) == ("failed", "Please try again in 7.2s.", "rate_limit_exceeded")


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
    assert (turn.status, turn.reason, ended.code) == ("failed", said, "invalid_value")


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


def test_a_lost_connection_ends_what_ran_as_partial_and_what_waited_as_failed(running):
    second, third = running.it.begin(TurnRecord("turn_2", "y")), running.it.begin(TurnRecord("turn_3", "z"))
    outcomes = running.it.lost("the wire broke")
    assert {outcome.record.id for outcome in outcomes} == {"turn_1", "turn_2", "turn_3"}
    assert [(turn.status, turn.text, turn.reason) for turn in (running.turn, second, third)] == [
        ("partial", "One. ", "the wire broke"),
        ("failed", "", "the wire broke"),
        ("failed", "", "the wire broke"),
    ]


def test_after_a_lost_connection_a_new_turn_is_sent_at_once(running):
    running.it.lost("gone")
    running.it.begin(TurnRecord("turn_2", "y"))
    assert running.types() == ["conversation.item.create", "response.create"]


def test_a_lost_connection_ends_the_running_turn_also_behind_a_cancelled_one(running):
    second = running.it.begin(TurnRecord("turn_2", "y"))
    running.it.begin(TurnRecord("turn_3", "z"))
    running.it.cancel(second)
    running.it.lost("gone")
    assert running.turn.status == "partial"


def test_what_was_not_sent_before_the_loss_is_not_sent_after_it(talk):
    talk.it.begin(TurnRecord("turn_1", "x"))
    talk.it.lost("gone")
    assert talk.types() == []


# -- the clock


def test_a_turn_without_any_sign_for_fifteen_seconds_fails_and_the_service_is_told(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"), now=100.0)
    talk.take()
    assert talk.it.tick(114.9) == []
    (ended,) = talk.it.tick(115.0)
    assert ended.record is turn
    assert (turn.status, talk.types()) == ("failed", ["response.cancel"])
    assert "15 s" in turn.reason


def test_an_answer_that_stops_for_thirty_seconds_is_partial(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"), now=0.0)
    talk.say(created("r"), now=10.0)
    talk.say(delta("r", "One. "), now=20.0)
    assert talk.it.tick(49.9) == []
    assert len(talk.it.tick(50.0)) == 1
    assert (turn.status, turn.text) == ("partial", "One. ")
    assert "30 s" in turn.reason


def test_each_delta_starts_the_thirty_seconds_anew(talk):
    turn = talk.it.begin(TurnRecord("turn_1", "x"))
    talk.say(created("r"))
    for now in range(0, 300, 29):
        talk.say(delta("r", "."), now=now)
        assert talk.it.tick(now + 28.9) == []
    assert turn.status == "running"


def test_a_waiting_turn_has_its_own_fifteen_seconds_from_being_sent(running):
    second = running.it.begin(TurnRecord("turn_2", "y"), now=0.0)
    running.say(done("resp_1"), now=25.0)
    assert running.it.tick(39.9) == []
    assert len(running.it.tick(40.0)) == 1
    assert second.status == "failed"


def test_a_cancelled_response_that_never_ends_does_not_hold_the_next_turn_for_ever(running):
    running.it.cancel(running.turn)
    running.take()
    second = running.it.begin(TurnRecord("turn_2", "y"))
    assert running.it.tick(31.0) == []
    assert running.types() == ["conversation.item.create", "response.create"]
    assert second.status == "running"


def test_without_a_turn_the_clock_says_nothing(talk):
    assert talk.it.tick(1e9) == []


def test_a_late_answer_to_a_timed_out_question_is_not_given_to_the_next_one(talk):
    talk.it.begin(TurnRecord("turn_1", "x"), now=0.0)
    talk.say(created("resp_1"), delta("resp_1", "a"), now=1.0)
    talk.it.tick(31.0)
    second = talk.it.begin(TurnRecord("turn_2", "y"), now=32.0)
    talk.it.tick(61.0)
    talk.say(delta("resp_1", "late"), done("resp_1", "cancelled"), now=62.0)
    assert (second.status, second.text) == ("running", "")


# -- items, limits, the log


def test_items_are_kept_once_in_the_server_s_order(talk):
    talk.say(item("a"), item("b", "assistant"), item("a", kind="done"), item("b", "assistant", "done"))
    assert [(kept["id"], kept["role"]) for kept in talk.it.items] == [("a", "user"), ("b", "assistant")]


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

    def note(self, outcomes) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Ended):
                self.ends.setdefault(outcome.record.id, []).append(outcome.record.status)

    def flush(self) -> None:
        self.wire.extend(self.service.get([message for message, _ in self.it.outgoing()]))

    def cancel(self, turn) -> None:
        if self.it.cancel(turn):
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
                self.note(self.it.tick(self.now))
                self.flush()
                self.arrive(len(self.wire))
        self.flush()


steps = st.tuples(
    st.sampled_from(["begin", "cancel", "say", "say", "say", "end", "arrive", "arrive", "arrive", "pass"]),
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
        for turn in play.turns:  # a loss behind a cancelled waiting turn: see the test of its own above
            if turn.status == "running" and turn is not play.turns[-1]:
                play.cancel(turn)
        play.note(play.it.lost("gone"))
        assert all(turn.status != "running" for turn in play.turns)
    while any(turn.status == "running" for turn in play.turns):
        play.step("end", 0, "x") if play.service.busy else None
        play.step("arrive", 99, "x")
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
