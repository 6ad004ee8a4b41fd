"""events: what the server sent, as values; and a log of both directions without secrets."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
from typing import get_args

import pytest

from voicehelper.errors import InputError
from voicehelper.events import TYPES, Event, EventLog, ItemEvent, TextDelta, Unknown, parse, redact
from voicehelper.settings import Secret

from .scripted import Scripted, serving, settings_for
from .support import NO_OPENAI, forall, made_up, made_up_key, openai_faults, scaled, shows, st, wait_for

ITEM = {"id": "item_1", "object": "realtime.item", "type": "message", "status": "completed", "role": "user", "content": []}
RESPONSE = {"id": "resp_1", "object": "realtime.response", "status": "in_progress", "output": []}
PLACE = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
ITEM_PLACE = {"response_id": "resp_1", "output_index": 0}
SERVER = {
    "session.created": {"session": {"type": "realtime", "output_modalities": ["audio"]}},
    "session.updated": {"session": {"type": "realtime", "output_modalities": ["text"]}},
    "conversation.item.added": {"previous_item_id": "item_0", "item": ITEM},
    "conversation.item.done": {"previous_item_id": None, "item": ITEM},
    "conversation.item.created": {"previous_item_id": "item_0", "item": ITEM},
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
every_type = pytest.mark.parametrize("type", SERVER)
OLDER = {"response.text.delta": {**PLACE, "delta": "Hel"}, "conversation.item.created": {"previous_item_id": "item_0", "item": ITEM}}


def listed(dialect: str) -> list[str]:
    """The types of all server events in openai's own package; `dialect` is "" or "beta."."""
    module = pytest.importorskip(f"openai.types.{dialect}realtime.realtime_server_event", reason=NO_OPENAI)
    union = get_args(module.RealtimeServerEvent)[0]
    return [get_args(model.model_fields["type"].annotation)[0] for model in get_args(union)]


def event(type: str) -> dict:
    return {"type": type, "event_id": f"event_{made_up()}", **SERVER[type]}


def declared(cls) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.name not in ("type", "event_id", "raw")]


@every_type
def test_the_samples_of_this_file_are_events_by_openai_s_own_types(type):
    assert openai_faults(event(type), "server") == []


def test_every_kind_of_event_has_a_sample_in_this_file():
    assert {type for type, kind in TYPES.items() if kind is not Event} <= {*SERVER, *OLDER}


@pytest.mark.parametrize("dialect", ["", "beta."], ids=["GA", "the older dialect"])
def test_no_type_of_openai_s_own_list_is_unknown(dialect):
    types = listed(dialect)
    assert len(types) > 30
    for type in types:
        body = {"type": type, "event_id": f"event_{made_up()}", "more": [made_up()]}
        parsed = parse(json.dumps(body))
        assert not isinstance(parsed, Unknown), type
        assert (parsed.type, parsed.event_id, parsed.raw) == (type, body["event_id"], body)


def test_a_listed_type_without_a_kind_of_its_own_is_a_plain_event():
    assert parse({"type": "input_audio_buffer.speech_started", "audio_start_ms": 5}).__class__ is Event


@pytest.mark.parametrize(("type", "kind"), [("response.text.delta", TextDelta), ("conversation.item.created", ItemEvent)])
def test_the_older_dialect_s_spelling_of_a_kind_is_that_kind(type, kind):
    assert type in listed("beta.")
    parsed = parse({"type": type, "event_id": "e", **OLDER[type]})
    assert parsed.__class__ is kind
    assert {field.name: getattr(parsed, field.name) for field in declared(kind)} == {
        field.name: OLDER[type][field.name] for field in declared(kind)
    }


def test_an_answer_of_a_server_with_the_older_names_is_received_whole():
    from voicehelper.agent import ConversationAgent
    from voicehelper.player import SilentPlayer

    words = [made_up() + " " for _ in range(5)]

    def answer(server, number):
        server.say({"type": "conversation.item.created", "item": {**ITEM, "id": "item_7"}})
        server.say({"type": "response.created", "response": RESPONSE})
        for word in words:
            server.say({"type": "response.text.delta", **PLACE, "delta": word})
        server.say({"type": "response.text.done", **PLACE, "text": "".join(words)})
        server.say({"type": "response.done", "response": {**RESPONSE, "status": "completed"}})

    with serving(Scripted, on_ask=answer) as port:
        agent = ConversationAgent.connect(settings_for(port), player=SilentPlayer(), replace=False)
        with agent:
            turn = agent.ask(made_up())
            assert "item_7" in [item["id"] for item in agent.conversation.items]
        assert (turn.status, turn.text) == ("done", "".join(words))
        assert agent.events.unknown == {}


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


def test_the_log_counts_what_is_unknown_by_type_also_what_has_fallen_out():
    log, news = EventLog(maxlen=2), [f"{made_up()}.news" for _ in range(3)]
    came = random.choices([*news, "response.done", "input_audio_buffer.committed"], k=50)
    for type in came:
        log.add("received", {"type": type})
        log.add("sent", {"type": type})
    assert log.unknown == {type: came.count(type) for type in news if type in came}
    assert len(log) == 2


def test_a_malformed_event_and_a_frame_that_is_none_count_as_unknown():
    log = EventLog()
    for frame in ('{"type": "response.created", "response": 5}', "{", "[]"):
        log.add("received", parse(frame).raw)
    assert log.unknown == {"response.created": 1, "": 2}


def test_a_key_in_the_place_of_a_type_is_masked_there_too():
    key = made_up_key()
    log = EventLog(mask=Secret(key).mask)
    entry = log.add("received", {"type": key})
    assert not shows(repr(log.unknown) + repr(entry), key)


def test_the_log_is_saved_as_json_lines_that_hold_every_field_of_every_entry(tmp_path):
    key, texts = made_up_key(), [made_up(), "日本 🎈 é", "\ud83d", "a\nb\r\u2028\u0085c", '"\\']
    log = EventLog(mask=Secret(key).mask)
    for number, text in enumerate(texts):
        log.add(("sent", "received")[number % 2], {"type": "x.y", "text": text, "key": key}, (None, "turn_1")[number % 2])
    path = log.save(str(tmp_path / "events.jsonl"))
    assert path == tmp_path / "events.jsonl"
    content = path.read_bytes()
    assert not shows(content.decode(), key)
    lines = content.decode("utf-8").splitlines()
    assert [json.loads(line)["body"]["text"] for line in lines] == texts
    assert [json.loads(line) for line in lines] == [
        {"at": entry.at, "direction": entry.direction, "type": entry.type, "turn": entry.turn, "body": entry.body} for entry in log
    ]
    assert list(json.loads(lines[0])) == ["at", "direction", "type", "turn", "body"]


def test_an_empty_log_is_saved_as_an_empty_file_with_the_usual_mode(tmp_path):
    (tmp_path / "other").touch()
    path = EventLog().save(tmp_path / "none.jsonl")
    assert path.read_bytes() == b""
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["none.jsonl", "other"]


@pytest.mark.parametrize("place", ["nowhere/log.jsonl", "folder"])
def test_a_log_that_cannot_be_saved_is_an_input_error_and_leaves_nothing_behind(tmp_path, place):
    (tmp_path / "folder").mkdir()
    log = EventLog()
    log.add("sent", {"type": "x"})
    with pytest.raises(InputError, match=place) as caught:
        log.save(tmp_path / place)
    assert caught.value.hint
    assert [entry.name for entry in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="no RLIMIT_FSIZE on Windows")
def test_on_a_full_disk_the_file_of_the_last_save_stays_as_it_was(tmp_path):
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    log, path = EventLog(), tmp_path / "log.jsonl"
    log.add("sent", {"type": made_up()})
    before = log.save(path).read_bytes()
    log.add("sent", {"type": "x", "text": "y" * 100_000})
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError):
            log.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]


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
