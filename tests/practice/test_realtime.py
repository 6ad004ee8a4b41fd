"""The Realtime protocol: every event is checked strictly against openai's own types."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import threading
import time
from pathlib import Path

import pytest
import websocket

from voicehelper.practice.faults import TABLE
from voicehelper.practice.launcher import launch
from voicehelper.practice.realtime.metering import Meter

from ..support import Clock, openai_faults
from .conftest import Client, arm, named_key, spoken, suffix, text_of, until, wire_log

WORDS = random.Random()
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
        assert openai_faults(event, "server") == [], event


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
        ("session.update", {"session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}}),
        ("session.update", {"session": {"type": "realtime", "audio": {"input": {"transcription": {"model": "m", "languages": ["en"]}}}}}),
        ("output_audio_buffer.clear", {}),
        ("conversation.item.create", {"item": {"type": "mcp_call", "name": "f"}}),
        ("conversation.item.create", {"item": {"type": "function_call_output", "call_id": "c", "output": ""}}),
        ("conversation.item.create", {"item": {"type": "message", "role": "user", "content": [{"type": "input_image"}]}}),
        ("response.create", {"response": {"tools": [{"type": "function", "name": "f"}]}}),
        ("response.create", {"response": {"output_modalities": ["audio"]}}),
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


@pytest.mark.parametrize("frame", ["", "{", "[1]", "null", "5", '"text"', "[" * 100_000, "\ud7ff", "\0", '{"type": ' + "9" * 5000 + "}"])
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


# --- items


def test_an_item_can_be_retrieved_and_deleted_and_is_then_unknown(client):
    client.text_only()
    name = made_up()
    item = client.say(f"My name is {name}")["item"]
    client.send("conversation.item.retrieve", item_id=item["id"])
    assert client.until("conversation.item.retrieved")["item"] == item
    client.send("conversation.item.delete", item_id=item["id"])
    assert client.until("conversation.item.deleted")["item_id"] == item["id"]
    for verb, gerund in {"retrieve": "retrieving", "delete": "deleting"}.items():
        error = client.refused(f"conversation.item.{verb}", item_id=item["id"])
        assert error["code"] == f"item_{verb}_invalid_item_id"
        assert error["message"] == f"Error {gerund} item: the item with id '{item['id']}' does not exist."
    assert name not in text_of(client.ask("What is my name?"))


def test_only_audio_of_the_model_can_be_truncated_and_there_is_none(client):
    client.text_only()
    item = client.ask("Tell me a joke")["output"][0]
    place = {"content_index": 0, "audio_end_ms": 1500}
    error = client.refused("conversation.item.truncate", item_id=item["id"], **place)
    assert error["message"] == "Only model output audio messages can be truncated"
    assert client.refused("conversation.item.truncate", item_id=made_up(), **place)["code"] == "item_truncate_invalid_item_id"


def test_an_answer_deleted_while_it_is_written_is_finished_without_its_item(slow_client):
    slow_client.say("Tell me a long story")
    slow_client.send("response.create")
    delta = slow_client.until("response.output_text.delta")
    slow_client.send("conversation.item.delete", item_id=delta["item_id"])
    slow_client.until("conversation.item.deleted")
    slow_client.send("response.cancel")
    start = len(slow_client.seen)
    assert slow_client.until("response.done")["response"]["status"] == "cancelled"
    assert "conversation.item.done" not in [event["type"] for event in slow_client.seen[start:]]


def test_a_conversation_is_full_in_the_end_and_a_deleted_item_makes_room(client):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 1_000_000}]}
    for _ in range(3):
        client.send("conversation.item.create", item=item)
        kept = client.until("conversation.item.done")["item"]["id"]
    client.say("y" * 999_999)
    assert "at most" in client.refused("conversation.item.create", item=item)["message"]
    client.send("conversation.item.delete", item_id=kept)
    client.until("conversation.item.deleted")
    assert client.say("z")["type"] == "conversation.item.done"


# --- responses


def test_a_response_outside_the_conversation_leaves_no_trace_in_it_and_echoes_its_metadata(client):
    client.text_only()
    name, purpose = made_up(), {made_up(): made_up() for _ in range(16)}
    client.say(f"My name is {name}")
    start = len(client.seen)
    client.send("response.create", response={"conversation": "none", "metadata": purpose, "instructions": "Answer with a title."})
    done = client.until("response.done")["response"]
    client.until("rate_limits.updated")
    events = client.seen[start:]
    assert [event["type"] for event in events if event["type"].startswith("conversation.")] == []
    assert {json.dumps(event["response"]["metadata"]) for event in events if "response" in event} == {json.dumps(purpose)}
    assert {event["response"]["conversation_id"] for event in events if "response" in event} == {None}
    assert client.refused("conversation.item.retrieve", item_id=done["output"][0]["id"])["code"] == "item_retrieve_invalid_item_id"
    assert name in text_of(client.ask("What is my name?"))


def test_a_response_answers_to_the_input_it_is_given_and_to_nothing_else(client):
    client.text_only()
    said, given = made_up(), made_up()
    item = client.say(f"My name is {said}")["item"]
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]}
    told = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": f"The user is called {given}."}]}

    def answer(*items) -> str:
        client.send("response.create", response={"conversation": "none", "input": list(items)})
        return text_of(client.until("response.done")["response"])

    assert said not in answer(question)
    assert given in answer(told, question)
    assert said in answer({"type": "item_reference", "id": item["id"]}, question)
    assert said not in answer()
    unknown = {"conversation": "none", "input": [{"type": "item_reference", "id": made_up()}]}
    assert "does not exist" in client.refused("response.create", response=unknown)["message"]


def test_responses_outside_the_conversation_run_beside_it_and_each_other_up_to_eight(slow_client):
    slow_client.say("Tell me a long story")
    for number in range(8):
        aside = {"conversation": "none", "metadata": {"number": str(number)}} if number else {}
        slow_client.send("response.create", response=aside)
    created = [slow_client.until("response.created")["response"] for _ in range(8)]
    assert [response["metadata"] and response["metadata"]["number"] for response in created] == [None, *"1234567"]
    assert "at most 8" in slow_client.refused("response.create", response={"conversation": "none"})["message"]
    assert slow_client.refused("response.create")["code"] == "conversation_already_has_active_response"
    heard: set[str] = set()
    while len(heard) < 8:
        heard.add(slow_client.until("response.output_text.delta")["response_id"])
    slow_client.send("response.cancel", response_id=created[5]["id"])
    assert slow_client.until("response.done")["response"]["id"] == created[5]["id"]
    slow_client.send("response.cancel")
    assert slow_client.until("response.done")["response"]["id"] == created[0]["id"]
    assert slow_client.refused("response.cancel")["code"] == "response_cancel_not_active"
    assert slow_client.refused("response.cancel", response_id=created[5]["id"])["code"] == "response_cancel_not_active"
    slow_client.send("response.cancel", response_id=created[7]["id"])
    assert slow_client.until("response.done")["response"]["metadata"] == {"number": "7"}


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"metadata": {str(number): "" for number in range(17)}}, "response.metadata"),
        ({"metadata": {"k" * 65: ""}}, "response.metadata"),
        ({"metadata": {"key": "v" * 513}}, "response.metadata.key"),
        ({"metadata": {"key": 5}}, "response.metadata.key"),
        ({"conversation": "some"}, "response.conversation"),
        ({"max_output_tokens": 4097}, "response.max_output_tokens"),
        ({"input": "text"}, "response.input"),
        ({"input": [5]}, "response.input[0]"),
        ({"input": [{"type": "message", "role": "user", "content": []}]}, "response.input[0].content"),
        (5, "response"),
    ],
)
def test_a_wrong_value_in_response_create_is_refused_by_its_place(client, response, param):
    client.text_only()
    error = client.refused("response.create", response=response)
    assert (error["code"], error["param"]) == ("invalid_value", param)


def test_rate_limits_sink_with_each_response(client):
    client.text_only()
    used = client.ask("Tell me a long story")["usage"]["total_tokens"]
    limits = {limit["name"]: limit for limit in client.seen[-1]["rate_limits"]}
    assert limits["requests"]["remaining"] == limits["requests"]["limit"] - 1
    assert limits["tokens"]["limit"] - limits["tokens"]["remaining"] in (used, used + 1)  # rounded down
    assert 0 < limits["tokens"]["reset_seconds"] < 60


def test_rate_limits_rise_again_within_a_minute_and_never_sink_below_nothing():
    clock = Clock()
    meter = Meter(clock)

    def left(tokens: int = 0) -> list[tuple[int, float]]:
        return [(limit["remaining"], limit["reset_seconds"]) for limit in meter.rate_limits(tokens)]

    assert left(50_000) == [(999, 0.06), (50_000, 30.0)]
    assert left(10_000) == [(998, 0.12), (40_000, 36.0)]
    clock.advance(30)
    assert left() == [(999, 0.06), (90_000, 6.0)]
    clock.advance(60)
    assert left() == [(999, 0.06), (100_000, 0.0)]
    assert left(200_000)[1] == (0, 60.0)


def test_what_falls_out_of_the_models_context_is_forgotten_without_an_error(client):
    client.text_only()
    name = made_up()
    client.say(f"My name is {name}")
    client.say("so " * 50_000)
    assert name not in text_of(client.ask("What is my name?"))


# --- the session's length


def test_a_session_ends_at_its_longest_duration_in_the_services_words(tmp_path):
    server = launch(extra=("--session-seconds", "2.5", "--tokens-per-second", "5"))
    try:
        client = Client(server)
        session = client.seen[0]["session"]
        assert session["expires_at"] - time.time() <= 2.5
        client.text_only()
        client.say("Tell me a long story")
        client.send("response.create")
        texts, end = client.frames()
        events = [json.loads(text) for text in texts]
        assert events[-1]["type"] == "error"
        assert events[-1]["error"]["code"] == "session_expired"
        assert events[-1]["error"]["event_id"] is None
        assert "response.done" not in [event["type"] for event in events]
        assert end == (1001, "Your session hit the maximum duration of 2.5 seconds.") == (1001, events[-1]["error"]["message"])
        assert all(openai_faults(event, "server") == [] for event in events)
        assert "Traceback" not in server.tail()
    finally:
        server.close()


def test_an_ordinary_session_may_last_an_hour(client):
    assert 3500 < client.seen[0]["session"]["expires_at"] - time.time() <= 3600


# --- audio input


@pytest.fixture(scope="module")
def clip(server):
    """A sentence of words nobody said before, and its sound."""
    text = f"{made_up()} likes the {made_up().lower()} of {made_up()}"
    return text, spoken(server, text)


def manual(client, **audio_in) -> None:
    audio = {"input": {"turn_detection": None, **audio_in}}
    client.send("session.update", session={"type": "realtime", "output_modalities": ["text"], "audio": audio})
    client.until("session.updated")


def test_sound_that_was_spoken_here_is_committed_by_hand_transcribed_and_answered(client, clip):
    text, pcm = clip
    manual(client, transcription={"model": "whisper-1"})
    client.hear(bytes(9600) + pcm + bytes(4800), chunk=3334)
    start = len(client.seen)
    client.send("input_audio_buffer.commit")
    completed = client.until("conversation.item.input_audio_transcription.completed")
    types = [event["type"] for event in client.seen[start:]]
    assert types[:3] == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    deltas = [event["delta"] for event in client.seen[start:] if event["type"].endswith("transcription.delta")]
    assert "".join(deltas) == completed["transcript"] == text
    assert len(deltas) == len(text.split())
    assert completed["usage"] == {"type": "duration", "seconds": pytest.approx((len(pcm) + 14400) / 48000)}
    item = client.seen[start + 1]["item"]
    assert item["content"] == [{"type": "input_audio", "transcript": None}]
    assert {event["item_id"] for event in client.seen[start:] if "item_id" in event} == {item["id"]}
    client.send("conversation.item.retrieve", item_id=item["id"])
    assert client.until("conversation.item.retrieved")["item"]["content"][0]["transcript"] == text


def test_the_model_hears_what_was_said_without_any_transcription(client, server):
    name = made_up()
    manual(client)
    client.hear(spoken(server, f"My name is {name}"))
    client.send("input_audio_buffer.commit")
    client.until("conversation.item.done")
    assert name in text_of(client.ask("What is my name?"))
    assert not [event for event in client.seen if "transcription" in event["type"]]


def test_a_sound_from_elsewhere_fails_to_be_transcribed_in_a_plain_sentence(client):
    manual(client, transcription={"model": "whisper-1"})
    client.hear(random.randbytes(48_000))
    client.send("input_audio_buffer.commit")
    error = client.until("conversation.item.input_audio_transcription.failed")["error"]
    assert "only audio that this practice server spoke" in error["message"]
    client.send("response.create")
    assert client.until("response.done")["response"]["status"] == "completed"


@pytest.mark.parametrize("held_ms", [0, 50, 99])
def test_less_than_a_tenth_of_a_second_can_not_be_committed(client, held_ms):
    manual(client)
    client.hear(random.randbytes(48 * held_ms))
    error = client.refused("input_audio_buffer.commit")
    assert error["code"] == "input_audio_buffer_commit_empty"
    expected = "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
    assert error["message"] == expected + f"but buffer only has {held_ms}.00ms of audio."


def test_a_cleared_buffer_is_empty(client):
    manual(client)
    client.hear(random.randbytes(9600))
    client.send("input_audio_buffer.clear")
    client.until("input_audio_buffer.cleared")
    assert "only has 0.00ms" in client.refused("input_audio_buffer.commit")["message"]


@pytest.mark.parametrize("audio", ["not base64!", "AAA", "AA==", "AAAA", "\u00e4\u00e4\u00e4\u00e4", "\ud800", 5, None])
def test_what_is_no_base64_of_whole_samples_is_refused(client, audio):
    error = client.refused("input_audio_buffer.append", audio=audio)
    assert (error["code"], error["param"]) == ("invalid_value", "audio")


def test_the_buffer_holds_ten_minutes_and_no_more(client):
    manual(client)
    minute = base64.b64encode(bytes(60 * 48_000)).decode()
    for _ in range(10):
        client.send("input_audio_buffer.append", audio=minute)
    assert "10 minutes" in client.refused("input_audio_buffer.append", audio=minute)["message"]
    client.send("input_audio_buffer.commit")
    client.until("conversation.item.done")


def test_server_vad_finds_where_speech_starts_and_stops_commits_it_and_answers(client, clip):
    text, pcm = clip
    vad = {"type": "server_vad", "silence_duration_ms": 700, "prefix_padding_ms": 100}
    manual(client, turn_detection=vad, transcription={"model": "whisper-1"})
    client.hear(bytes(48_000) + pcm + bytes(48_000))
    started = client.until("input_audio_buffer.speech_started")
    stopped = client.until("input_audio_buffer.speech_stopped")
    assert 850 < started["audio_start_ms"] < 1200
    assert stopped["audio_end_ms"] == pytest.approx(1000 + len(pcm) / 48 + 700, abs=250)
    start = len(client.seen)
    done = client.until("response.done")["response"]
    types = [event["type"] for event in client.seen[start:]]
    assert types[:3] == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert types.index("conversation.item.input_audio_transcription.completed") < types.index("response.created")
    transcripts = [event["transcript"] for event in client.seen if event["type"].endswith("transcription.completed")]
    assert transcripts == [text]
    assert {started["item_id"]} == {stopped["item_id"], client.seen[start]["item_id"], client.seen[start + 1]["item"]["id"]}
    assert done["status"] == "completed"


def test_speech_cancels_a_running_response_as_turn_detected_unless_told_not_to(slow_client):
    noise = random.randbytes(9600)
    for interrupt in (True, False):
        manual(slow_client, turn_detection={"type": "server_vad", "create_response": False, "interrupt_response": interrupt})
        slow_client.say("Tell me a long story")
        slow_client.send("response.create")
        slow_client.until("response.output_text.delta")
        slow_client.hear(noise)
        slow_client.until("input_audio_buffer.speech_started")
        if interrupt:
            response = slow_client.until("response.done")["response"]
            assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        else:
            slow_client.until("response.output_text.delta")
            slow_client.send("response.cancel")
            assert slow_client.until("response.done")["response"]["status_details"]["reason"] == "client_cancelled"
        slow_client.hear(bytes(48_000))
        slow_client.until("input_audio_buffer.committed")


def test_silence_is_no_speech_however_long_and_can_be_committed_by_hand(client):
    assert client.seen[0]["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    minute = base64.b64encode(bytes(60 * 48_000)).decode()
    for _ in range(12):
        client.send("input_audio_buffer.append", audio=minute)
    client.send("input_audio_buffer.commit")
    client.until("conversation.item.done")
    assert {event["type"] for event in client.seen[1:]} <= {
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    }


def test_the_log_keeps_a_hash_instead_of_the_sound(server):
    name = suffix()
    client = Client(server, name)
    audio = base64.b64encode(random.randbytes(4800)).decode()
    client.send("input_audio_buffer.append", audio=audio)
    client.text_only()
    client.socket.close(timeout=1)
    (entry,) = wire_log(server, name, type="input_audio_buffer.append")
    assert audio[:40] not in json.dumps(entry)
    assert "sha256" in entry["body"]["audio"]


# --- faults, each as a bare client sees it

DELTA, DONE = "response.output_text.delta", "response.done"


class Faulty:
    """A client with one fault armed, and what its next answer looked like on the wire."""

    def __init__(self, server, fault: str):
        self.server, self.name = server, suffix()
        self.client = Client(server, self.name)
        self.client.text_only()
        arm(server, fault, name=self.name)

    def answer(self, quiet_s: float = 1.0) -> None:
        """Ask, and take every frame up to the rate limits, the end, or a silence."""
        self.client.say("Tell me a long story")
        self.client.send("response.create", event_id="turn")
        self.texts, self.end = self.client.frames(quiet_s)
        self.events = [json.loads(text) for text in self.texts if text.startswith("{") and text.endswith("}")]
        self.types = [event["type"] for event in self.events]
        self.deltas = [event["delta"] for event in self.events if event["type"] == DELTA]

    @property
    def done(self) -> dict:
        return next(event["response"] for event in self.events if event["type"] == DONE)

    def goes_on(self) -> None:
        """The session still answers, and the fault is used up."""
        assert self.client.ask("Tell me a joke")["status"] == "completed"


@pytest.fixture
def faulty(server):
    made = []

    def make(fault: str) -> Faulty:
        made.append(Faulty(server, fault))
        made[-1].answer()
        return made[-1]

    yield make
    for fault in made:
        fault.client.socket.shutdown()


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        ("bad_key", 401, "401", None),
        ("no_deployment", 404, "DeploymentNotFound", None),
        ("not_realtime_model", 400, "OpperationNotSupported", None),
        ("rate_limit_handshake", 429, "429", "2"),
    ],
)
def test_a_fault_of_the_handshake_is_an_http_status_with_its_code_and_the_next_client_is_served(server, fault, status, code, retry_after):
    name = suffix()
    arm(server, fault, name=name)
    url, header = f"{server.realtime_url}?model=practice", [f"api-key: {named_key(server, name)}"]
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        websocket.create_connection(url, timeout=5, header=header, suppress_origin=True)
    assert refusal.value.status_code == status
    assert json.loads(refusal.value.resp_body)["error"]["code"] == code
    headers = {key.lower(): value for key, value in refusal.value.resp_headers.items()}
    assert headers.get("retry-after") == retry_after
    Client(server, name).socket.close(timeout=1)


def test_one_bad_field_refuses_the_update_and_nothing_of_it_is_applied(server):
    name = suffix()
    client = Client(server, name)
    arm(server, "one_bad_field", name=name)
    session = {"type": "realtime", "instructions": made_up(), "output_modalities": ["text"]}
    error = client.refused("session.update", session=session)
    assert (error["code"], error["param"]) == ("unknown_parameter", "session.practice_fault")
    assert error["message"] == "Unknown parameter: 'session.practice_fault'."
    unchanged = client.text_only()
    assert unchanged["instructions"] == client.seen[0]["session"]["instructions"]
    client.judged()
    client.socket.close(timeout=1)


@pytest.mark.parametrize(
    ("fault", "kind", "code", "says"),
    [
        ("rate_limit_response", "invalid_request_error", "rate_limit_exceeded", "try again in 1s"),
        ("server_error", "server_error", None, "The server had an error"),
    ],
)
def test_a_failed_response_has_neither_output_nor_usage_and_the_session_goes_on(faulty, fault, kind, code, says):
    wire = faulty(fault)
    assert wire.types == ["response.created", DONE]
    assert (wire.done["status"], wire.done["output"], wire.done["usage"]) == ("failed", [], None)
    error = wire.done["status_details"]["error"]
    assert (error["type"], error["code"]) == (kind, code)
    assert says in error["message"]
    assert openai_faults(wire.events[-1], "server") == []
    wire.goes_on()


@pytest.mark.parametrize(("fault", "reason", "count"), [("content_filter", "content_filter", 6), ("max_tokens", "max_output_tokens", 12)])
def test_an_incomplete_response_stops_after_its_deltas_and_says_why(faulty, fault, reason, count):
    wire = faulty(fault)
    assert len(wire.deltas) == count
    assert wire.done["status_details"] == {"type": "incomplete", "reason": reason}
    assert text_of(wire.done) == "".join(wire.deltas)
    wire.goes_on()


def test_an_empty_answer_is_complete_and_has_no_delta(faulty):
    wire = faulty("empty_answer")
    assert wire.deltas == []
    assert (wire.done["status"], text_of(wire.done)) == ("completed", "")
    wire.goes_on()


def test_a_session_that_expires_in_an_answer_ends_with_its_error_and_1001(faulty):
    wire = faulty("session_expired")
    assert len(wire.deltas) == 4
    assert wire.types[-1] == "error"
    assert DONE not in wire.types
    error = wire.events[-1]["error"]
    assert (error["code"], error["event_id"]) == ("session_expired", None)
    assert wire.end == (1001, "Your session hit the maximum duration of 60 minutes.") == (1001, error["message"])


@pytest.mark.parametrize(
    ("fault", "end", "half"), [("drop_mid_answer", "end", False), ("reset_mid_frame", "reset", True), ("half_frame", "silence", True)]
)
def test_a_broken_network_breaks_after_six_deltas(faulty, fault, end, half):
    wire = faulty(fault)
    assert len(wire.deltas) == 6
    assert wire.types[-1] == DELTA
    assert wire.end == end
    assert (wire.client.socket.frame_buffer.header is not None) == half  # the client is still inside a frame


def test_a_stalled_answer_sends_no_more_and_can_still_be_cancelled(faulty):
    wire = faulty("stall")
    assert (len(wire.deltas), wire.types[-1], wire.end) == (6, DELTA, "silence")
    wire.client.send("response.cancel")
    response = wire.client.until(DONE)["response"]
    assert response["status"] == "cancelled"
    assert text_of(response) == "".join(wire.deltas)
    wire.client.until("rate_limits.updated")
    wire.goes_on()


def test_a_slow_first_token_comes_after_its_seconds_and_so_does_the_latency():
    server = launch(env={"VOICEHELPER_TIME_SCALE": "20"}, extra=("--tokens-per-second", "5000"))
    try:
        for fault, latency_ms, least_s in (("slow_first_token", 0, 0.25), ("duplicate_done", 6000, 0.3)):
            name = suffix()
            client = Client(server, name)
            client.text_only()
            arm(server, fault, name=name, latency_ms=latency_ms)
            client.say("Tell me a joke")
            client.send("response.create")
            client.until("response.content_part.added")
            start = time.monotonic()
            client.until(DELTA)
            assert least_s - 0.02 < time.monotonic() - start < 5
            assert client.until(DONE)["response"]["status"] == "completed"
            client.socket.close(timeout=1)
    finally:
        server.close()


def test_a_garbage_frame_is_no_json_and_the_answer_goes_on(faulty):
    wire = faulty("garbage_frame")
    (garbage,) = (text for text in wire.texts if not text.endswith("}"))
    with pytest.raises(ValueError):
        json.loads(garbage)
    assert wire.texts.index(garbage) == wire.types.index(DELTA) + 3
    assert (wire.done["status"], text_of(wire.done)) == ("completed", "".join(wire.deltas))


def test_an_unknown_event_comes_after_three_deltas_and_the_answer_goes_on(faulty):
    wire = faulty("unknown_event")
    assert wire.types.index("response.practice.unheard_of") == wire.types.index(DELTA) + 3
    assert (wire.done["status"], text_of(wire.done)) == ("completed", "".join(wire.deltas))


def test_a_late_delta_names_the_response_before_and_an_invented_one_where_there_was_none(server):
    wire = Faulty(server, "late_delta_of_old_response:2")
    earlier = None
    for _ in range(2):
        wire.answer()
        (late,) = (event for event in wire.events if event["type"] == DELTA and event["response_id"] != wire.done["id"])
        assert wire.events.index(late) == wire.types.index(DELTA) + 3
        assert earlier in (None, late["response_id"])
        own = [event["delta"] for event in wire.events if event["type"] == DELTA and event is not late]
        assert (wire.done["status"], text_of(wire.done)) == ("completed", "".join(own))
        earlier = wire.done["id"]
    wire.client.socket.close(timeout=1)


def test_a_duplicate_done_is_the_same_response_with_an_id_of_its_own(faulty):
    wire = faulty("duplicate_done")
    first, second = (event for event in wire.events if event["type"] == DONE)
    assert first["response"] == second["response"]
    assert first["event_id"] != second["event_id"]
    wire.goes_on()


def test_every_fault_of_the_realtime_side_is_shown_in_this_file():
    here = Path(__file__).read_text("utf-8")
    names = {name for name, row in TABLE.items() if row["where"] in ("handshake", "update", "response")}
    assert [name for name in sorted(names) if f'"{name}"' not in here and f'"{name}:' not in here] == []


# --- robustness


@pytest.mark.parametrize("value", ["\0", "\U0001f600" * 50, '"' * 3000, "\u202e<b>{x}{0}%s"])
def test_odd_characters_travel_unchanged(client, value):
    client.text_only()
    assert client.say(value)["item"]["content"][0]["text"] == value
    assert value[:80] in client.refused(value)["message"]
    assert client.ask(value)["status"] == "completed"


def test_half_a_character_harms_nothing_and_is_replaced(client):
    client.text_only()
    text = made_up()
    assert client.say(text + "\ud83d")["item"]["content"][0]["text"] == text + "?"
    assert text in client.refused(text + "\udc00")["message"]
    assert client.ask(text + "\ud83d")["status"] == "completed"


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "1" * 400, "0.5", "-1", "true", "[]", '{"a": [[[[]]]]}', '"inf "'])
def test_no_odd_number_is_a_token_limit(client, number):
    client.text_only()
    client.socket.send('{"type": "response.create", "response": {"max_output_tokens": ' + number + "}}")
    error = client.until("error")["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "response.max_output_tokens")


def test_a_value_nested_deeply_is_refused_wherever_it_stands(client):
    deep = "[" * 900 + "]" * 900
    frames = [
        '{"type": %s}',
        '{"event_id": %s, "type": "response.create"}',
        '{"type": "session.update", "session": %s}',
        '{"type": "conversation.item.create", "item": %s}',
        '{"type": "response.create", "response": {"metadata": %s}}',
        '{"type": "input_audio_buffer.append", "audio": %s}',
        '{"type": "response.cancel", "unknown": {"a": %s}}',
    ]
    for frame in frames:
        client.socket.send(frame % deep)
        assert client.until("error")["error"]["type"] == "invalid_request_error"
    client.text_only()


def test_many_clients_stream_at_once_and_each_gets_its_own_whole_answer(server):
    def turn(found: list, name: str) -> None:
        client = Client(server)
        client.text_only()
        client.ask(f"My name is {name}")
        found.append(name in text_of(client.ask("What is my name?")))
        client.socket.close(timeout=1)

    found: list[bool] = []
    threads = [threading.Thread(target=turn, args=(found, made_up())) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 30
