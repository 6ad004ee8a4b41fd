"""events: what the server sent, as values; and a log of both directions without secrets."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest

from voicehelper.events import TYPES, EventLog, TextDelta, Unknown, parse, redact
from voicehelper.settings import Secret

from .support import forall, made_up, made_up_key, openai_faults, scaled, shows, st, wait_for

ITEM = {"id": "item_1", "object": "realtime.item", "type": "message", "status": "completed", "role": "user", "content": []}
RESPONSE = {"id": "resp_1", "object": "realtime.response", "status": "in_progress", "output": []}
PLACE = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
ITEM_PLACE = {"response_id": "resp_1", "output_index": 0}
SERVER = {
    "session.created": {"session": {"type": "realtime", "output_modalities": ["audio"]}},
    "session.updated": {"session": {"type": "realtime", "output_modalities": ["text"]}},
    "conversation.item.added": {"previous_item_id": "item_0", "item": ITEM},
    "conversation.item.done": {"previous_item_id": None, "item": ITEM},
    "response.created": {"response": RESPONSE},
    "response.output_item.added": {**ITEM_PLACE, "item": {**ITEM, "role": "assistant"}},
    "response.output_item.done": {**ITEM_PLACE, "item": {**ITEM, "role": "assistant"}},
    "response.content_part.added": {**PLACE, "part": {"type": "text", "text": ""}},
    "response.content_part.done": {**PLACE, "part": {"type": "text", "text": "Hello."}},
    "response.output_text.delta": {**PLACE, "delta": "Hel"},
    "response.output_text.done": {**PLACE, "text": "Hello."},
    "response.done": {"response": {**RESPONSE, "status": "completed"}},
    "rate_limits.updated": {"rate_limits": [{"name": "tokens", "limit": 100, "remaining": 99, "reset_seconds": 0.5}]},
    "error": {"error": {"type": "invalid_request_error", "message": "no", "event_id": "ask_1"}},
}
every_type = pytest.mark.parametrize("type", TYPES)


def event(type: str) -> dict:
    return {"type": type, "event_id": f"event_{made_up()}", **SERVER[type]}


def declared(cls) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.name not in ("type", "event_id", "raw")]


@every_type
def test_the_samples_of_this_file_are_events_by_openai_s_own_types(type):
    assert openai_faults(event(type), "server") == []


@every_type
@pytest.mark.parametrize("spelling", [json.dumps, lambda body: json.dumps(body).encode(), dict], ids=["text", "bytes", "dict"])
def test_each_known_type_becomes_its_dataclass_with_its_fields(type, spelling):
    body = event(type)
    parsed = parse(spelling(body))
    assert parsed.__class__ is TYPES[type]
    assert (parsed.type, parsed.event_id, dict(parsed.raw)) == (type, body["event_id"], body)
    assert {field.name: getattr(parsed, field.name) for field in declared(TYPES[type])} == {
        field.name: body[field.name] for field in declared(TYPES[type])
    }


@every_type
def test_an_event_is_frozen(type):
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(event(type)).type = "other"


@every_type
@pytest.mark.parametrize("wrong", [5, True, 1.5])
def test_a_field_with_the_wrong_kind_of_value_makes_the_event_unknown(type, wrong):
    for field in declared(TYPES[type]):
        parsed = parse({**event(type), field.name: wrong})
        assert parsed.__class__ is Unknown
        assert parsed.type == type
        assert parsed.raw[field.name] is wrong


@every_type
def test_missing_and_null_fields_get_a_default(type):
    body = event(type)
    for field in declared(TYPES[type]):
        assert parse({**body, field.name: None}).__class__ is TYPES[type]
    assert parse({"type": type}).__class__ is TYPES[type]


def test_an_error_event_may_have_no_id_of_its_own():
    assert parse({**event("error"), "event_id": None}).event_id is None


def test_another_type_is_unknown_and_keeps_everything():
    body = {"type": f"response.{made_up().lower()}", "event_id": "e", "news": [1, {"a": None}]}
    parsed = parse(json.dumps(body))
    assert parsed.__class__ is Unknown
    assert parsed.raw == body


@pytest.mark.parametrize(
    "frame",
    ["", "[]", "null", "7", '"text"', "{", b"\xff\xfe\x00", '{"type": 5}', '{"no": "type"}', "[" * 100_000, "1" * 5000, '{"type":[]}'],
)
def test_a_frame_that_is_no_event_is_unknown_without_a_type(frame):
    parsed = parse(frame)
    assert (parsed.__class__, parsed.type) == (Unknown, "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@forall(st.one_of(st.binary(), st.text(), json_values.map(json.dumps)))
def test_parse_never_raises_whatever_a_frame_holds(frame):
    assert parse(frame).raw is not None


@forall(
    st.sampled_from(sorted(TYPES)),
    st.dictionaries(st.sampled_from(["session", "item", "response", "response_id", "part", "delta", "text", "error"]), json_values),
)
def test_parse_never_raises_whatever_a_known_event_holds(type, fields):
    parsed = parse(json.dumps({"type": type, **fields}))
    assert parsed.type == type
    assert parsed.__class__ in (TYPES[type], Unknown)
    if parsed.__class__ is TextDelta:
        assert isinstance(parsed.delta, str)


# -- the log


def test_the_log_keeps_order_direction_type_turn_and_time():
    times = iter([10.0, 11.0])
    log = EventLog(clock=lambda: next(times))
    log.add("sent", {"type": "response.create"}, "turn_1")
    log.add("received", {"type": "response.done"})
    assert [(entry.at, entry.direction, entry.type, entry.turn) for entry in log] == [
        (10.0, "sent", "response.create", "turn_1"),
        (11.0, "received", "response.done", None),
    ]


def test_the_log_is_masked_in_values_names_and_depth_before_anything_is_kept():
    key = made_up_key()
    log = EventLog(mask=Secret(key).mask)
    body = {"type": "error", "a": [{"b": f"key {key}", f"name-{key}": (key, 1, None)}], "number": 5}
    log.add("received", body)
    assert not shows(repr([(entry, entry.body) for entry in log]) + json.dumps([entry.body for entry in log]), key)
    assert next(iter(log)).body["number"] == 5
    assert key in repr(body)


def test_the_log_is_bounded_and_the_oldest_fall_out():
    log = EventLog(maxlen=3)
    for number in range(10):
        log.add("sent", {"type": str(number)})
    assert [entry.type for entry in log] == ["7", "8", "9"]
    assert len(log) == 3


def test_a_later_change_of_a_message_does_not_change_the_log():
    log, body = EventLog(), {"type": "x", "item": {"list": [1]}}
    log.add("sent", body)
    body["item"]["list"].append(2)
    assert next(iter(log)).body == {"type": "x", "item": {"list": [1]}}


def test_select_combines_the_start_of_the_type_the_direction_and_the_turn():
    log = EventLog()
    for type in ("response.done", "response.output_text.delta", "session.updated"):
        for direction in ("sent", "received"):
            for turn in ("1", "2", None):
                log.add(direction, {"type": type}, turn)
    assert len(log.select()) == 18
    assert len(log.select("response.")) == 12
    assert len(log.select("response.", "sent")) == 6
    assert [entry.type for entry in log.select("response.", "sent", "2")] == ["response.done", "response.output_text.delta"]
    assert log.select(turn="3") == []


def test_the_log_is_read_safely_while_other_threads_write():
    log, stop, faults = EventLog(maxlen=200), threading.Event(), []

    def write():
        while not stop.is_set():
            log.add("sent", {"type": "response.create", "n": 1}, "turn")

    def guarded(work):
        try:
            work()
        except Exception as error:
            faults.append(error)

    writers = [threading.Thread(target=guarded, args=(write,), daemon=True) for _ in range(2)]
    for writer in writers:
        writer.start()
    wait_for(lambda: len(log) == 200)
    for _ in range(scaled(1000)):
        assert len(log.select("response.", "sent", "turn")) == 200
    stop.set()
    for writer in writers:
        writer.join(5)
    assert faults == []


@forall(json_values, examples=200)
def test_redacting_with_nothing_to_hide_changes_nothing_but_tuples(value):
    assert json.dumps(redact(value, str)) == json.dumps(value)


def test_a_deeply_nested_event_that_was_parsed_can_be_logged():
    parsed = parse('{"type":"x","a":' + "[" * 700 + "]" * 700 + "}")
    assert EventLog().add("received", parsed.raw).type in ("x", "")
