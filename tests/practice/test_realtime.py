"""The Realtime protocol: every event is checked strictly against openai's own types."""

from __future__ import annotations

import json
import random
import re
import string
import time
from typing import get_args

import pytest

from .conftest import Client, text_of, until

WORDS = random.Random()
ALLOWED_EXTRAS = {".session.id", ".session.object", ".session.expires_at"}  # sent by the service, missing from the models
TURN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]


def made_up() -> str:
    return "".join(WORDS.choice(string.ascii_lowercase) for _ in range(8)).capitalize()


def extras(value, path=""):
    """Fields an openai model does not declare."""
    import pydantic

    if isinstance(value, pydantic.BaseModel):
        for key in value.model_extra or {}:
            yield f"{path}.{key}"
        for key in type(value).model_fields:
            yield from extras(getattr(value, key), f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from extras(item, f"{path}[{index}]")


def faults(event: dict) -> list[str]:
    """What is wrong with a server event, by openai's model of its type."""
    module = pytest.importorskip("openai.types.realtime.realtime_server_event", reason="openai (a test extra) is not installed")
    import pydantic

    models = {get_args(m.model_fields["type"].annotation)[0]: m for m in get_args(get_args(module.RealtimeServerEvent)[0])}
    if event["type"] not in models:
        return [f"unknown type {event['type']}"]
    try:
        value = models[event["type"]].model_validate_json(json.dumps(event), strict=True)
    except pydantic.ValidationError as error:
        return [str(fault) for fault in error.errors()]
    return [extra for extra in extras(value) if extra not in ALLOWED_EXTRAS]


def test_every_event_of_a_session_is_valid_by_openais_own_types(client, slow_client):
    client.refused("session.update", session={"type": "realtime", "modalities": ["text"]})
    client.text_only(instructions="Be brief.", max_output_tokens=50, truncation={"type": "retention_ratio", "retention_ratio": 0.8})
    client.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}})
    client.until("session.updated")
    client.ask("Tell me a long story", response={"max_output_tokens": 5})
    client.ask("Tell me a joke")
    client.refused("nonsense")
    slow_client.say("Tell me a long story")
    slow_client.send("response.create")
    slow_client.until("response.output_text.delta")
    slow_client.send("response.cancel")
    slow_client.until("rate_limits.updated")
    assert len(client.seen) > 40
    for event in client.seen + slow_client.seen:
        assert faults(event) == [], event


def test_session_created_shows_the_services_defaults(client):
    session = client.seen[0]["session"]
    assert session["output_modalities"] == ["audio"]
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session["model"] == "practice"


def test_a_session_update_is_echoed_in_full_and_null_stays_null(client):
    session = client.text_only(instructions="Only rhymes.", max_output_tokens=800)
    assert session["instructions"] == "Only rhymes."
    assert session["max_output_tokens"] == 800
    assert session["audio"]["input"]["turn_detection"] is None
    assert session["audio"]["output"]["voice"] == "alloy"


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "realtime", "temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"type": "realtime", "audio": {"input": {"vad": 1}}}, "unknown_parameter", "session.audio.input.vad"),
        ({"instructions": "x"}, "missing_required_parameter", "session.type"),
        (None, "missing_required_parameter", "session.type"),
        ({"type": "session"}, "invalid_value", "session.type"),
        ({"type": "realtime", "output_modalities": ["text", "audio"]}, "invalid_value", "session.output_modalities"),
        ({"type": "realtime", "max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
        ({"type": "realtime", "max_output_tokens": True}, "invalid_value", "session.max_output_tokens"),
        ({"type": "realtime", "instructions": 5}, "invalid_value", "session.instructions"),
        ({"type": "realtime", "audio": {"output": {"speed": float("nan")}}}, "invalid_value", "session.audio.output.speed"),
    ],
)
def test_a_wrong_session_update_is_refused_and_nothing_of_it_is_applied(client, session, code, param):
    error = client.refused(
        "session.update", session={"instructions": "Applied?", **session} if session and "instructions" not in session else session
    )
    assert (error["code"], error["param"]) == (code, param) or (session == {"type": "session"} and error["code"] == code)
    assert client.text_only()["instructions"] == "You are a friendly practice tutor."


@pytest.mark.parametrize(
    ("type", "fields"),
    [
        ("session.update", {"session": {"type": "realtime", "tools": [{"type": "function", "name": "f"}]}}),
        ("session.update", {"session": {"type": "transcription"}}),
        ("conversation.item.retrieve", {"item_id": "x"}),
        ("input_audio_buffer.append", {"audio": ""}),
        ("conversation.item.create", {"item": {"type": "function_call_output", "call_id": "c", "output": ""}}),
        ("conversation.item.create", {"item": {"type": "message", "role": "user", "content": [{"type": "input_image"}]}}),
        ("response.create", {"response": {"metadata": {"a": "b"}}}),
        ("response.create", {"response": {"conversation": "none"}}),
        ("response.create", {}),
    ],
)
def test_what_is_not_built_is_refused_in_those_words(client, type, fields):
    assert "not part of the practice server" in client.refused(type, **fields)["message"]


def test_an_unknown_event_type_is_answered_with_the_supported_ones(client):
    error = client.refused("foo.bar")
    assert error["code"] == "invalid_value"
    assert error["param"] == "type"
    assert error["message"].startswith("Invalid value: 'foo.bar'. Supported values are: 'session.update'")


@pytest.mark.parametrize("frame", ["", "{", "[1]", "null", "5", '"text"', "[" * 100_000, "\ud7ff"])
def test_a_frame_that_is_no_json_object_is_an_error_event_and_the_session_goes_on(client, frame):
    client.socket.send(frame)
    assert client.until("error")["error"]["type"] == "invalid_request_error"
    client.text_only()


def test_a_binary_frame_is_refused_and_the_session_goes_on(client):
    client.socket.send_binary(b"\x00\x01")
    assert "Binary" in client.until("error")["error"]["message"]
    client.text_only()


@pytest.mark.parametrize(
    ("role", "part", "code"),
    [
        ("user", {"type": "output_text", "text": "x"}, "invalid_value"),
        ("assistant", {"type": "input_text", "text": "x"}, "invalid_value"),
        ("assistant", {"type": "output_audio"}, "missing_required_parameter"),
        ("user", {"type": "input_text"}, "missing_required_parameter"),
        ("user", "x", "invalid_value"),
        ("robot", {"type": "input_text", "text": "x"}, "invalid_value"),
    ],
)
def test_an_item_with_wrong_content_is_refused(client, role, part, code):
    assert client.refused("conversation.item.create", item={"type": "message", "role": role, "content": [part]})["code"] == code


def test_items_keep_the_clients_ids_and_stand_where_they_were_asked_to(client):
    def create(item_id, **fields):
        content = [{"type": "input_text", "text": item_id}]
        client.send("conversation.item.create", item={"type": "message", "role": "user", "id": item_id, "content": content}, **fields)
        return client.until("conversation.item.done")

    assert create("first")["previous_item_id"] is None
    assert create("third")["previous_item_id"] == "first"
    assert create("second", previous_item_id="first")["previous_item_id"] == "first"
    assert create("zeroth", previous_item_id="root")["previous_item_id"] is None
    last = create("last", previous_item_id=None)
    assert last["previous_item_id"] == "third"
    assert last["item"]["id"] == "last"
    content = [{"type": "input_text", "text": "x"}]
    item = {"type": "message", "role": "user", "content": content}
    assert "does not exist" in client.refused("conversation.item.create", item=item, previous_item_id="nobody")["message"]
    assert "already exists" in client.refused("conversation.item.create", item={**item, "id": "first"})["message"]


def test_a_text_turn_has_the_services_order_and_its_deltas_are_its_text(client):
    client.text_only()
    client.say("Tell me a joke")
    start = len(client.seen)
    client.send("response.create", event_id="turn")
    client.until("rate_limits.updated")
    events = client.seen[start:]
    assert list(dict.fromkeys(event["type"] for event in events)) == TURN
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    response = events[-2]["response"]
    assert response["status"] == "completed"
    assert response["status_details"] is None
    assert deltas == text_of(response)
    assert len({event["event_id"] for event in client.seen}) == len(client.seen)


def test_the_second_response_while_one_runs_is_refused_and_the_first_goes_on(slow_client):
    slow_client.say("Tell me a joke")
    slow_client.send("response.create")
    slow_client.until("response.output_text.delta")
    assert slow_client.refused("response.create")["code"] == "conversation_already_has_active_response"
    assert slow_client.until("response.done")["response"]["status"] == "completed"


def test_cancel_stops_at_once_and_the_partial_text_stays_in_the_conversation(slow_client):
    slow_client.say("Tell me a long story")
    slow_client.send("response.create")
    created = slow_client.until("response.created")
    for _ in range(4):
        slow_client.until("response.output_text.delta")
    slow_client.send("response.cancel", response_id=created["response"]["id"])
    response = slow_client.until("response.done")["response"]
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert response["output"][0]["status"] == "incomplete"
    deltas = [event["delta"] for event in slow_client.seen if event["type"] == "response.output_text.delta"]
    assert text_of(response) == "".join(deltas)
    assert 4 <= len(deltas) < 20
    slow_client.until("rate_limits.updated")
    slow_client.send("response.create")
    assert slow_client.until("response.created")["response"]["status"] == "in_progress"


@pytest.mark.parametrize("fields", [{}, {"response_id": "resp_unknown"}])
def test_cancel_with_nothing_active_is_the_harmless_error(client, fields):
    assert client.refused("response.cancel", **fields)["code"] == "response_cancel_not_active"


def test_the_token_limit_ends_a_response_as_incomplete(client):
    client.text_only(max_output_tokens=7)
    response = client.ask("Tell me a joke")
    assert response["status"] == "incomplete"
    assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert response["usage"]["output_tokens"] == 7
    whole = client.ask("Tell me a joke", response={"max_output_tokens": "inf"})
    assert whole["status"] == "completed"


def test_usage_grows_with_the_conversation_and_its_prefix_is_cached(client):
    client.text_only()
    usages = [client.ask("Tell me about AI")["usage"] for _ in range(4)]
    given = [usage["input_tokens"] for usage in usages]
    assert given == sorted(set(given))
    assert usages[0]["input_token_details"]["cached_tokens"] == 0
    for usage in usages:
        cached = usage["input_token_details"]["cached_tokens"]
        assert cached % 64 == 0
        assert cached <= usage["input_tokens"]
    assert usages[-1]["input_token_details"]["cached_tokens"] > 0
    assert all(usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] for usage in usages)


def test_instructions_of_one_response_hold_for_this_one_only(client):
    client.text_only()
    assert text_of(client.ask("Tell me a joke", response={"instructions": "Talk like a pirate."})).startswith("Arr,")
    assert not text_of(client.ask("Tell me a joke")).startswith("Arr,")


def test_names_made_up_now_are_remembered_over_the_socket_and_not_by_another_session(client, server):
    client.text_only()
    name = made_up()
    client.ask(f"My name is {name}")
    assert name in text_of(client.ask("What is my name?"))
    other = Client(server)
    other.text_only()
    assert name not in text_of(other.ask("What is my name?"))
    other.socket.close(timeout=1)


def test_an_answer_can_be_replayed_into_a_new_session(client):
    client.text_only()
    name = made_up()
    client.say(f"Call me {name}")
    client.say("I will.", role="assistant")
    client.say("The tutor is patient.", role="system")
    assert name in text_of(client.ask("What is my name?"))


def test_a_client_that_leaves_in_the_middle_does_no_harm(slow_server):
    client = Client(slow_server)
    client.text_only()
    client.say("Tell me a long story")
    client.send("response.create")
    client.until("response.output_text.delta")
    client.socket.shutdown()
    other = Client(slow_server)
    other.text_only()
    other.socket.close(timeout=1)
    assert until(slow_server.alive)
    assert "Traceback" not in slow_server.tail()


def test_the_pace_is_the_tokens_per_second(slow_client):
    slow_client.say("count to 4")
    slow_client.send("response.create")
    slow_client.until("response.created")
    start = time.monotonic()
    slow_client.until("response.output_text.done")
    count = sum(event["type"] == "response.output_text.delta" for event in slow_client.seen)
    assert count / 20 - 0.2 < time.monotonic() - start < count / 20 + 1.0


def test_openais_own_client_completes_a_text_turn(server):
    openai = pytest.importorskip("openai", reason="openai (a test extra) is not installed")
    pytest.importorskip("websockets", reason="websockets (of openai[realtime], a test extra) is not installed")
    base = server.realtime_url.removesuffix("/realtime")
    with openai.OpenAI(api_key=server.key, websocket_base_url=base).realtime.connect(model="practice") as connection:
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        content = [{"type": "input_text", "text": "Tell me a joke about programmers"}]
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        connection.response.create()
        text = ""
        for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            if event.type == "response.done":
                break
    assert event.response.status == "completed"
    assert event.response.output[0].content[0].text == text
    assert len(re.findall(r"[.!?]", text)) >= 2
