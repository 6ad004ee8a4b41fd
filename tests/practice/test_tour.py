"""A tour of everything the practice Realtime session does: each event by openai's own types, and all of them by the reference's rules of order."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
import uuid

import pytest

from voicehelper.practice.launcher import launch

from ..support import made_up, openai_faults
from .conftest import DEADLINE_S, Client, text_of, websocket

NO_OPENAI = "openai (a test extra) is not installed"
BYTES_PER_MS = 48
AUDIO_FORMAT = "raw-24khz-16bit-mono-pcm"


# --- what is independent of the server: openai's types, and the orders of the reference


class Witness:
    """Reads what the server sends, in order, and writes down what breaks a rule; it keeps its own copy of the conversation."""

    def __init__(self):
        self.faults: list[str] = []
        self.order: list[str] = []  # ids of the conversation's items, as they stand
        self.items: dict[str, dict] = {}
        self.responses: dict[str, dict] = {}
        self.speech: list[str] = []  # ids that the input buffer announced
        self._ids: set[str] = set()
        self._finished: set[str] = set()

    def read(self, events: list[dict]) -> list[str]:
        for event in events:
            self._expect(
                (event["type"] == "session.created") == (not self._ids), event, "session.created is the first event and comes once"
            )
            self._expect(event["event_id"] not in self._ids, event, "an event_id is used once")
            self._ids.add(event["event_id"])
            area, _, what = event["type"].partition(".")
            if area == "response":
                self._response(what, event)
            elif event["type"].startswith("conversation.item."):
                self._item(event["type"].removeprefix("conversation.item."), event)
            elif area == "input_audio_buffer":
                self._buffer(what, event)
        return self.faults

    def _expect(self, holds: bool, event: dict, rule: str) -> None:
        if not holds:
            self.faults.append(f"{rule}: {json.dumps(event)[:300]}")

    def _item(self, what: str, event: dict) -> None:
        item_id = event.get("item_id") or event["item"]["id"]
        self._expect(not self._beside(item_id), event, "an out-of-band response leaves no trace in the conversation")
        if what == "added":
            before = event["previous_item_id"]
            self._expect(item_id not in self.order, event, "an item is added once")
            self._expect(before is None or before in self.order, event, "an item stands after one that exists")
            self.order.insert(self.order.index(before) + 1 if before in self.order else 0, item_id)
            begun = any(answer["item"] == item_id and not answer["done"] for answer in self.responses.values())
            self._expect(
                begun == (event["item"]["status"] == "in_progress"), event, "an answer's item comes after response.output_item.added"
            )
            heard = event["item"]["role"] == "user" and event["item"]["content"][0]["type"] == "input_audio"
            self._expect(not heard or item_id in self.speech, event, "audio is committed before it is an item")
            self.items[item_id] = event["item"]
            return
        if item_id not in self.order:
            self._expect(False, event, "an item is added before anything else is said about it")
        elif what == "deleted":
            self.order.remove(item_id)
            self._finished.discard(item_id)  # its id may be used again
        elif what == "done":
            self._expect(item_id not in self._finished, event, "an item is done once")
            self._finished.add(item_id)
            place = self.order.index(item_id)
            self._expect(event["previous_item_id"] == (self.order[place - 1] if place else None), event, "an item is done where it stands")
            self.items[item_id] = event["item"]
        elif what == "retrieved":
            same = {**event["item"], "content": 0} == {**self.items[item_id], "content": 0}
            texts = [[part.get("text") for part in item["content"]] for item in (event["item"], self.items[item_id])]
            self._expect(same and texts[0] == texts[1], event, "an item is retrieved as it was announced")

    def _beside(self, item_id: str) -> bool:
        return any(answer["item"] == item_id and answer["created"]["conversation_id"] is None for answer in self.responses.values())

    def _response(self, what: str, event: dict) -> None:
        if what == "created":
            made = event["response"]
            self._expect(made["id"] not in self.responses, event, "a response is created once")
            running = [other for other in self.responses.values() if not other["done"] and other["created"]["conversation_id"]]
            self._expect(not (running and made["conversation_id"]), event, "one response at a time in the conversation")
            self._expect((made["status"], made["output"], made["usage"]) == ("in_progress", [], None), event, "a new response is empty")
            self.responses[made["id"]] = {"created": made, "item": None, "text": "", "stage": "created", "done": False}
            return
        answer = self.responses.get(event.get("response_id") or event["response"]["id"])
        if answer is None or answer["done"]:
            self._expect(False, event, "response.created is a response's first event, response.done its last")
            return
        stages = {
            "output_item.added": ("created",),
            "content_part.added": ("output_item.added",),
            "output_text.delta": ("content_part.added", "output_text.delta"),
            "output_text.done": ("content_part.added", "output_text.delta"),
            "content_part.done": ("output_text.done",),
            "output_item.done": ("content_part.done",),
            "done": ("created", "output_item.done"),
        }
        self._expect(answer["stage"] in stages[what], event, f"{what} does not come after {answer['stage']}")
        answer["stage"] = what
        if what == "done":
            self._over(answer, event)
            return
        self._content(answer, what, event)

    def _content(self, answer: dict, what: str, event: dict) -> None:
        item_id = event.get("item_id") or event["item"]["id"]
        if what == "output_item.added":
            answer["item"] = item_id
        if what == "content_part.added" and answer["created"]["conversation_id"]:
            self._expect(item_id in self.order, event, "conversation.item.added comes before the content")
        if what == "output_text.delta":
            answer["text"] += event["delta"]
        self._expect(item_id == answer["item"], event, "a response has one item")
        self._expect(event["output_index"] == event.get("content_index", 0) == 0, event, "a response has one part")
        whole = {"output_text.done": event.get("text"), "content_part.done": event.get("part", {}).get("text")}.get(what, answer["text"])
        if what == "output_item.done":
            whole = text_of({"output": [event["item"]]})
            answer["output"] = event["item"]
        self._expect(whole == answer["text"], event, "the text is the sum of its deltas")

    def _over(self, answer: dict, event: dict) -> None:
        made, ended = answer["created"], event["response"]
        answer |= {"done": True, "ended": ended}
        for name in ("conversation_id", "metadata", "max_output_tokens", "output_modalities"):
            self._expect(ended[name] == made[name], event, f"{name} stays what it was at the beginning")
        self._expect(ended["output"] == ([answer["output"]] if "output" in answer else []), event, "the output is the item that was sent")
        self._expect((ended["status"] == "completed") == (ended["status_details"] is None), event, "any other end has its details")
        known = self.items.get(answer["item"], ended)
        self._expect(known["status"] != "in_progress", event, "an item is done before its response")
        usage = ended["usage"]
        self._expect(usage is None or usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], event, "tokens add up")

    def _buffer(self, what: str, event: dict) -> None:
        if what == "speech_started":
            self.speech.append(event["item_id"])
        elif what == "speech_stopped":
            self._expect(event["item_id"] == self.speech[-1], event, "what stops is what has started")
        elif what == "committed":
            self._expect(event["previous_item_id"] == (self.order[-1] if self.order else None), event, "audio stands at the end")
            self.speech.append(event["item_id"])


def client_faults(event: dict) -> list[str]:
    """What openai's models have against a client event; references to items have a model of their own, outside the event's."""
    asked = event.get("response") or {}
    if asked.get("input"):
        reference = pytest.importorskip("openai.types.realtime", reason=NO_OPENAI).ResponseItemReference
        for item in asked["input"]:
            if item["type"] == "item_reference":
                reference.model_validate_json(json.dumps(item), strict=True)
        event = {**event, "response": {**asked, "input": [item for item in asked["input"] if item["type"] != "item_reference"]}}
    return openai_faults(event, "client")


class Visit(Client):
    """A client that also keeps what it said."""

    def __init__(self, server, name: str = ""):
        self.server, self.said = server, []
        super().__init__(server, name)

    def send(self, type: str, **fields) -> None:
        self.said.append({"type": type, **fields})
        super().send(type, **fields)

    def wrong(self, type: str, **fields) -> dict:
        """Send what openai's types refuse as well; the error."""
        error = self.refused(type, **fields)
        assert client_faults(self.said.pop()), fields
        return error

    def answers(self, text: str, **fields) -> str:
        return text_of(self.ask(text, **fields))

    def append(self, pcm: bytes, chunk_ms: int = 100) -> None:
        for at in range(0, len(pcm), chunk_ms * BYTES_PER_MS):
            self.send("input_audio_buffer.append", audio=base64.b64encode(pcm[at : at + chunk_ms * BYTES_PER_MS]).decode())

    def check(self) -> None:
        """Every event of both sides, and the order of the server's."""
        for event in self.seen:
            assert openai_faults(event, "server") == [], event
        for event in self.said:
            assert client_faults(event) == [], event
        assert Witness().read(self.seen) == []

    def conversation(self) -> list[str]:
        witness = Witness()
        witness.read(self.seen)
        return witness.order


# --- sound


def silence(seconds: float) -> bytes:
    return bytes(2 * int(24_000 * seconds))


def tone(seconds: float, hertz: float = 300.0) -> bytes:
    count = int(24_000 * seconds)
    return struct.pack(f"<{count}h", *(int(9000 * math.sin(2 * math.pi * hertz * at / 24_000)) for at in range(count)))


def spoken(server, text: str) -> bytes:
    """What this server's own voice says (24 kHz, 16-bit mono), by the bare speech protocol."""
    url = f"{server.speech_host}/cognitiveservices/websocket/v1"
    socket = websocket.create_connection(url, timeout=DEADLINE_S, header=[f"api-key: {server.key}"], suppress_origin=True)
    options = json.dumps({"synthesis": {"audio": {"outputFormat": AUDIO_FORMAT, "metadataOptions": {}}}})
    names = 'xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US"'
    ssml = f'<speak version="1.0" {names}><voice name="en-US-AriaNeural">{text}</voice></speak>'
    request = uuid.uuid4().hex
    for path, kind, body in (("synthesis.context", "application/json", options), ("ssml", "application/ssml+xml", ssml)):
        socket.send(f"X-RequestId:{request}\r\nPath:{path}\r\nContent-Type:{kind}\r\n\r\n{body}")
    pcm = b""
    while True:
        frame = socket.recv()
        if isinstance(frame, bytes):
            pcm += frame[2 + int.from_bytes(frame[:2], "big") :]
        elif "Path:turn.end" in frame:
            socket.close(timeout=1)
            return pcm
        assert frame, "the speech socket was closed"


# --- the flows; each opens its own visits


def a_session_is_configured_and_a_refused_update_changes_nothing(visit):
    here = visit()
    assert here.seen[0]["session"]["output_modalities"] == ["audio"]
    wish = " ".join(made_up() for _ in range(3))
    session = here.text_only(instructions=wish, max_output_tokens=300, truncation={"type": "retention_ratio", "retention_ratio": 0.8})
    assert (session["instructions"], session["max_output_tokens"], session["output_modalities"]) == (wish, 300, ["text"])
    name = made_up().lower()
    for wrong, code, param in [
        ({"type": "realtime", "temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"type": "realtime", "modalities": ["text"]}, "unknown_parameter", "session.modalities"),
        ({"type": "realtime", "instructions": "No.", name: 1}, "unknown_parameter", f"session.{name}"),
        ({"type": "realtime", "audio": {"output": {"voice": 5}}}, "invalid_value", "session.audio.output.voice"),
        ({"instructions": "No."}, "missing_required_parameter", "session.type"),
        ({"type": "session", "instructions": "No."}, "invalid_value", "session.type"),
    ]:
        error = here.wrong("session.update", session=wrong)
        assert (error["code"], error["param"]) == (code, param), wrong
    assert here.text_only(max_output_tokens="inf") == {**session, "max_output_tokens": "inf"}
    vad = {"type": "semantic_vad", "eagerness": "low", "create_response": False, "interrupt_response": True}
    here.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": vad}}})
    answer = here.until("session.updated", "error")
    assert answer["type"] == "error" or answer["session"]["audio"]["input"]["turn_detection"]["eagerness"] == "low"


def items_stand_where_they_were_asked_to_and_are_retrieved_and_deleted(visit):
    here = visit()
    here.text_only()
    first, second, third, zeroth, last = ids = [f"{made_up()}_{number}" for number in range(5)]
    texts = {item_id: f"{made_up()} & <{made_up()}> é 😀" for item_id in ids}

    def create(item_id, role="user", **fields):
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "id": item_id, "content": [{"type": kind, "text": texts[item_id]}]}
        here.send("conversation.item.create", item=item, **fields)
        return here.until("conversation.item.done")["item"]

    assert create(first)["id"] == first
    create(third, "assistant")
    create(second, "system", previous_item_id=first)
    create(zeroth, previous_item_id="root")
    create(last, previous_item_id=None)
    assert here.conversation() == [zeroth, first, second, third, last]
    for item_id in ids:
        here.send("conversation.item.retrieve", item_id=item_id)
        assert here.until("conversation.item.retrieved", "error")["item"]["content"][0]["text"] == texts[item_id]
    here.send("conversation.item.delete", item_id=second)
    assert here.until("conversation.item.deleted", "error")["item_id"] == second
    assert here.conversation() == [zeroth, first, third, last]
    for what in ("delete", "retrieve", "truncate"):
        more = {"content_index": 0, "audio_end_ms": 100} if what == "truncate" else {}
        for item_id in (second, made_up()):
            error = here.refused(f"conversation.item.{what}", item_id=item_id, **more)
            assert error["code"] == f"item_{what}_invalid_item_id"
    error = here.refused("conversation.item.truncate", item_id=third, content_index=0, audio_end_ms=0)
    assert "Only model output audio messages can be truncated" in error["message"]
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": made_up()}]}
    assert "does not exist" in here.refused("conversation.item.create", item=item, previous_item_id=second)["message"]
    here.refused("conversation.item.create", item={**item, "id": first})
    wrong = {"type": "message", "role": "assistant", "content": [{"type": "output_audio"}]}
    error = here.refused("conversation.item.create", item=wrong)
    assert (error["code"], error["param"]) == ("missing_required_parameter", "item.content[0].text")
    here.wrong("conversation.item.create", item={"type": "message", "role": made_up(), "content": []})
    create_again = {"type": "message", "role": "user", "id": second, "content": [{"type": "input_text", "text": texts[second]}]}
    here.send("conversation.item.create", item=create_again)
    here.until("conversation.item.done")


def a_conversation_remembers_and_each_turn_costs_more_with_its_beginning_cached(visit):
    here = visit()
    here.text_only()
    name = made_up()
    usages = [here.ask(f"My name is {name}")["usage"]]
    usages += [here.ask(f"Tell me about AI and {made_up()}")["usage"] for _ in range(4)]
    assert name in here.answers("What is my name?")
    given = [usage["input_tokens"] for usage in usages]
    cached = [usage["input_token_details"]["cached_tokens"] for usage in usages]
    assert given == sorted(set(given))
    assert cached == sorted(cached)
    assert cached[0] == 0 < cached[-1] < given[-1]
    assert [usage["input_token_details"]["cached_tokens_details"]["text_tokens"] for usage in usages] == cached
    limits = [event["rate_limits"] for event in here.seen if event["type"] == "rate_limits.updated"]
    assert len(limits) == 6
    assert all(row["remaining"] <= row["limit"] for rows in limits for row in rows)


def an_answer_beside_the_conversation_echoes_its_metadata_and_leaves_no_item(visit):
    here = visit()
    here.text_only()
    name, other = made_up(), made_up()
    item_id = here.say(f"My name is {name}")["item"]["id"]
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]}
    naming = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"My name is {other}"}]}
    before = here.conversation()

    def aside(*inputs, **options) -> dict:
        tag = {made_up(): made_up(), "purpose": made_up()}
        here.send("response.create", event_id=made_up(), response={"conversation": "none", "metadata": tag, "input": inputs, **options})
        created = here.until("response.created", "error")
        assert created["type"] == "response.created", created
        response = here.until("response.done")["response"]
        assert (response["metadata"], response["conversation_id"], response["status"]) == (tag, None, "completed")
        return response

    assert name in text_of(aside({"type": "item_reference", "id": item_id}, question))
    assert other in text_of(aside(naming, question))
    assert name not in text_of(aside(question))
    assert text_of(aside(instructions="Talk like a pirate.")) != ""
    assert here.conversation() == before
    lost = {"conversation": "none", "input": [{"type": "item_reference", "id": made_up()}]}
    here.refused("response.create", response=lost)
    here.wrong("response.create", response={"metadata": {"depth": {"of": "an object"}}})
    assert name in here.answers("What is my name?", response={"conversation": "auto", "metadata": {"turn": "2"}})
    assert name not in here.answers("What is my name?", response={"input": []})


def several_answers_run_beside_the_conversations_own(visit):
    here = visit(slow=True)
    here.text_only()
    here.say("Tell me a joke")
    here.send("response.create")
    here.until("response.output_text.delta")
    tags = [made_up() for _ in range(3)]
    for tag in tags:
        here.send("response.create", response={"conversation": "none", "metadata": {"tag": tag}, "max_output_tokens": 6, "input": []})
        assert here.until("response.created", "error")["response"]["metadata"] == {"tag": tag}
    ended = [here.until("response.done")["response"] for _ in range(4)]
    assert sorted(str((response["metadata"] or {}).get("tag")) for response in ended) == sorted([*tags, "None"])
    here.until("rate_limits.updated")


def wishes_for_one_response_hold_for_this_one_only(visit):
    here = visit()
    here.text_only()
    assert here.answers("Tell me a joke", response={"instructions": "Talk like a pirate."}).startswith("Arr")
    assert not here.answers("Tell me a joke").startswith("Arr")
    short = here.ask("Tell me a long story", response={"max_output_tokens": 9})
    assert (short["status"], short["status_details"]) == ("incomplete", {"type": "incomplete", "reason": "max_output_tokens"})
    assert (short["usage"]["output_tokens"], short["output"][0]["status"]) == (9, "incomplete")
    assert here.ask("Tell me a long story")["status"] == "completed"
    here.wrong("response.create", response={"max_output_tokens": made_up()})


def a_cancelled_answer_keeps_what_was_said_and_a_second_one_has_to_wait(visit):
    here = visit(slow=True)
    here.text_only()
    assert here.refused("response.cancel")["code"] == "response_cancel_not_active"
    for named in (True, False):
        here.say("Tell me a long story")
        here.send("response.create")
        created = here.until("response.created")["response"]
        here.until("response.output_text.delta")
        assert here.refused("response.create")["code"] == "conversation_already_has_active_response"
        assert here.refused("response.cancel", response_id=made_up())["code"] == "response_cancel_not_active"
        here.send("response.cancel", **({"response_id": created["id"]} if named else {}))
        response = here.until("response.done")["response"]
        assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        item = response["output"][0]
        here.send("conversation.item.retrieve", item_id=item["id"])
        assert here.until("conversation.item.retrieved", "error")["item"] == item
        assert (item["status"], item["content"][0]["text"] != "") == ("incomplete", True)
    here.send("response.create", response={"conversation": "none", "input": [], "metadata": {"a": "b"}})
    beside = here.until("response.created", "error")["response"]
    here.until("response.output_text.delta")
    here.send("response.cancel", response_id=beside["id"])
    assert here.until("response.done", "error")["response"]["status"] == "cancelled"
    assert here.refused("response.cancel", response_id=beside["id"])["code"] == "response_cancel_not_active"


def spoken_audio_is_committed_by_hand_and_its_words_are_transcribed(visit):
    here = visit()
    here.text_only(audio={"input": {"turn_detection": None, "transcription": {"model": "whisper-1", "language": "en"}}})
    here.append(silence(0.05))
    assert here.refused("input_audio_buffer.commit")["code"] == "input_audio_buffer_commit_empty"
    here.send("input_audio_buffer.clear")
    here.until("input_audio_buffer.cleared", "error")
    name = made_up()
    text = f"My name is {name}"
    pcm = spoken(here.server, text)
    here.append(silence(0.3) + pcm + silence(0.4))
    here.send("input_audio_buffer.commit")
    item_id = here.until("input_audio_buffer.committed", "error")["item_id"]
    heard = here.until("conversation.item.input_audio_transcription.completed", "conversation.item.input_audio_transcription.failed")
    assert (heard["type"].rpartition(".")[2], heard["item_id"]) == ("completed", item_id), heard
    assert heard["transcript"].strip(" .") == text
    words = [event["delta"] for event in here.seen if event["type"] == "conversation.item.input_audio_transcription.delta"]
    assert "".join(words).strip() == heard["transcript"].strip()
    assert abs(heard["usage"]["seconds"] - len(pcm) / 48_000 - 0.7) < 0.1
    here.send("response.create")
    here.until("rate_limits.updated")
    assert name in here.answers("What is my name?")
    here.append(tone(0.5))
    here.send("input_audio_buffer.commit")
    failed = here.until("conversation.item.input_audio_transcription.completed", "conversation.item.input_audio_transcription.failed")
    assert failed["type"].endswith("failed")
    assert "practice" in failed["error"]["message"]
    here.wrong("input_audio_buffer.append", audio=5)
    here.refused("input_audio_buffer.append", audio="?" + made_up())


def the_server_hears_where_speech_begins_and_ends_answers_and_is_interrupted(visit):
    here = visit(slow=True)
    vad = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 100, "silence_duration_ms": 900}
    here.text_only(
        audio={
            "input": {
                "turn_detection": {**vad, "create_response": True, "interrupt_response": True},
                "transcription": {"model": "whisper-1"},
            }
        }
    )
    pcm = spoken(here.server, "Tell me a long story")
    here.append(silence(1) + pcm + silence(1.5))
    began = here.until("input_audio_buffer.speech_started", "error")
    ended = here.until("input_audio_buffer.speech_stopped")
    assert 500 <= began["audio_start_ms"] <= 1500
    assert abs(ended["audio_end_ms"] - 1000 - len(pcm) / BYTES_PER_MS) < 1200
    here.until("conversation.item.input_audio_transcription.completed")
    here.until("response.output_text.delta")
    here.append(tone(0.5) + silence(1.5))
    cancelled = here.until("response.done")["response"]
    assert cancelled["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    here.until("response.output_text.delta")
    here.send("response.cancel")
    here.until("rate_limits.updated")


def unknown_events_and_unreadable_frames_are_refused_and_the_session_goes_on(visit):
    here = visit()
    here.text_only()
    name = f"{made_up()}.{made_up()}".lower()
    error = here.wrong(name)
    assert (error["code"], error["param"]) == ("invalid_value", "type")
    assert error["message"].startswith(f"Invalid value: '{name}'. Supported values are: 'session.update'")
    for frame in (made_up(), "{", "[]", "null", json.dumps({made_up(): 1})):
        here.socket.send(frame)
        assert here.until("error")["error"]["type"] == "invalid_request_error"
    assert here.ask("Tell me a joke")["status"] == "completed"


FLOWS = [
    a_session_is_configured_and_a_refused_update_changes_nothing,
    items_stand_where_they_were_asked_to_and_are_retrieved_and_deleted,
    a_conversation_remembers_and_each_turn_costs_more_with_its_beginning_cached,
    an_answer_beside_the_conversation_echoes_its_metadata_and_leaves_no_item,
    several_answers_run_beside_the_conversations_own,
    wishes_for_one_response_hold_for_this_one_only,
    a_cancelled_answer_keeps_what_was_said_and_a_second_one_has_to_wait,
    spoken_audio_is_committed_by_hand_and_its_words_are_transcribed,
    the_server_hears_where_speech_begins_and_ends_answers_and_is_interrupted,
    unknown_events_and_unreadable_frames_are_refused_and_the_session_goes_on,
]
SHOWN = {
    *("session.created", "session.updated", "error", "rate_limits.updated"),
    *(f"conversation.item.{what}" for what in ("added", "done", "retrieved", "deleted")),
    *(f"conversation.item.input_audio_transcription.{what}" for what in ("delta", "completed", "failed")),
    *(f"input_audio_buffer.{what}" for what in ("committed", "cleared", "speech_started", "speech_stopped")),
    *(f"response.{what}" for what in ("created", "output_item.added", "content_part.added", "output_text.delta")),
    *(f"response.{what}" for what in ("output_text.done", "content_part.done", "output_item.done", "done")),
}


@pytest.fixture
def visit(server, slow_server):
    """`visit(slow=False)` opens a session; `visit.opened` lists them all."""

    def open_one(slow: bool = False) -> Visit:
        here = Visit(slow_server if slow else server)
        open_one.opened.append(here)
        return here

    open_one.opened = []
    yield open_one
    for here in open_one.opened:
        here.socket.close(timeout=1)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_in_a_session(flow, visit):
    flow(visit)
    for here in visit.opened:
        here.check()


def test_the_whole_tour_shows_every_type_of_event_and_120_that_are_no_deltas_all_valid(visit):
    for flow in FLOWS:
        flow(visit)
    for here in visit.opened:
        here.check()
    types = [event["type"] for here in visit.opened for event in here.seen]
    assert set(types) == SHOWN
    assert sum(not kind.endswith(".delta") for kind in types) >= 120


def test_the_witness_misses_no_event_that_is_lost_doubled_or_out_of_place(visit):
    """The oracle of order has an oracle: a valid text turn, spoilt in every way."""
    here = visit()
    here.text_only()
    here.ask("count to 4", response={"max_output_tokens": 6})
    seen = here.seen[:-1]  # without the rate limits, which may come anywhere
    begin = next(number for number, event in enumerate(seen) if event["type"] == "response.created")
    assert Witness().read(seen) == []
    for number in range(begin, len(seen)):
        event, rest = seen[number], seen[:number] + seen[number + 1 :]
        assert Witness().read([*seen, {**event, "event_id": made_up(20)}]), f"doubled: {event}"
        assert event["type"] == "response.done" or Witness().read(rest), f"lost: {event}"
        assert number == begin or Witness().read([*rest[:begin], event, *rest[begin:]]), f"too early: {event}"


def test_a_session_ends_at_the_time_it_told_with_an_error_and_close_1001():
    brief = launch(extra=("--session-seconds", "2", "--tokens-per-second", "20"))
    here = Visit(brief)
    try:
        length = here.seen[0]["session"]["expires_at"] - time.time()
        assert 0 < length < 3.5
        here.text_only()
        here.say("Tell me a long story")
        here.send("response.create")
        expired = here.until("error")
        assert (expired["error"]["code"], expired["error"]["event_id"]) == ("session_expired", None)
        assert expired["error"]["message"].startswith("Your session hit the maximum duration of ")
        opcode, body = here.socket.recv_data(control_frame=True)
        assert (opcode, int.from_bytes(body[:2], "big"), body[2:].decode()) == (8, 1001, expired["error"]["message"])
        here.check()
        assert "response.done" not in {event["type"] for event in here.seen}
        again = Visit(brief)
        again.text_only()
        again.socket.close(timeout=1)
        assert "Traceback" not in brief.tail()
    finally:
        brief.close()


def test_openais_own_client_completes_a_text_turn_an_answer_beside_it_and_a_cancelled_one(slow_server):
    openai = pytest.importorskip("openai", reason=NO_OPENAI)
    pytest.importorskip("websockets", reason="websockets (of openai[realtime], a test extra) is not installed")
    base = slow_server.realtime_url.removesuffix("/realtime")
    seen, name = [], made_up()

    with openai.OpenAI(api_key=slow_server.key, websocket_base_url=base).realtime.connect(model="practice") as connection:

        def until(kind: str):
            for event in connection:
                seen.append(event.to_dict())
                assert event.type != "error" or kind == "error", event
                if event.type == kind:
                    return event
            raise AssertionError(f"the connection ended before {kind}")

        def say(text: str) -> None:
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
            connection.conversation.item.create(item=item)
            until("conversation.item.done")

        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        until("session.updated")
        say(f"My name is {name}")
        connection.response.create(response={"max_output_tokens": 40})
        turn = until("response.done").response
        say("Tell me a long story")
        connection.response.create()
        until("response.output_text.delta")
        naming = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]}
        tag = {"purpose": made_up()}
        connection.response.create(response={"conversation": "none", "metadata": tag, "input": [naming], "max_output_tokens": 5})
        beside = until("response.done").response
        connection.response.cancel()
        cancelled = until("response.done").response
        until("rate_limits.updated")

    assert (turn.status in ("completed", "incomplete"), turn.metadata) == (True, None)
    assert (beside.metadata, beside.conversation_id, beside.status) == (tag, None, "incomplete")
    assert (cancelled.status, cancelled.status_details.reason) == ("cancelled", "client_cancelled")
    for event in seen:
        assert openai_faults(event, "server") == [], event
    assert Witness().read(seen) == []
