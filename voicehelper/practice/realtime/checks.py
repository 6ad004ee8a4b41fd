"""What a client may ask of the practice Realtime session.

One sentence: pure checks that return the value which becomes effective, or raise `Refused` with the service's code and wording.
What it does not do: send anything, or keep state; `session` does.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

NOT_BUILT = "is not part of the practice server"
SUPPORTED = ("session.update", "conversation.item.create", "response.create", "response.cancel")
KNOWN_ELSEWHERE = {
    *("conversation.item.delete", "conversation.item.retrieve", "conversation.item.truncate", "input_audio_buffer.append"),
    *("input_audio_buffer.commit", "input_audio_buffer.clear", "output_audio_buffer.clear"),
}
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
PCM = {"type": "audio/pcm", "rate": 24000}
SERVER_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
SEMANTIC_VAD = {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
CONTENT = {"user": "input_text", "system": "input_text", "assistant": "output_text"}
SESSION_S = 3600


class Refused(Exception):
    """What the service would answer with an `error` event; the session goes on."""

    def __init__(self, code: str | None, message: str, param: str | None = None):
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def invalid(param: str, value: Any, wanted: str) -> Refused:
    return Refused("invalid_value", f"Invalid value: {json.dumps(value)[:80]}. {wanted}", param)


def not_built(param: str, what: str) -> Refused:
    return Refused("invalid_value", f"Invalid value: {what} {NOT_BUILT}.", param)


# --- session configuration: one check for each field; a check returns the value that becomes effective, or raises


def _one_of(*values: Any) -> Callable:
    def check(value: Any, path: str) -> Any:
        if isinstance(value, (dict, list)) or value not in values:
            raise invalid(path, value, "Supported values are: " + ", ".join(f"'{item}'" for item in values) + ".")
        return value

    return check


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise invalid(path, value, "Expected a string.")
    return value


def _number(low: float, high: float, kind: tuple = (int, float)) -> Callable:
    def check(value: Any, path: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            raise invalid(path, value, f"Expected a number between {low} and {high}.")
        return value

    return check


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise invalid(path, value, "Expected true or false.")
    return value


def _or_null(check: Callable) -> Callable:
    return lambda value, path: None if value is None else check(value, path)


def _only(empty: Any) -> Callable:
    def check(value: Any, path: str) -> Any:
        if value != empty:
            raise not_built(path, f"'{path}'")
        return value

    return check


def an_object(fields: dict[str, Callable], required: tuple[str, ...] = ()) -> Callable:
    def check(value: Any, path: str) -> dict:
        if not isinstance(value, dict):
            raise invalid(path, value, "Expected an object.")
        for key in value:
            if key not in fields:
                raise Refused("unknown_parameter", f"Unknown parameter: '{path}.{key}'.", f"{path}.{key}")
        for key in required:
            if key not in value:
                raise Refused("missing_required_parameter", f"Missing required parameter: '{path}.{key}'.", f"{path}.{key}")
        return {key: fields[key](item, f"{path}.{key}") for key, item in value.items()}

    return check


def _modalities(value: Any, path: str) -> list:
    if value not in (["text"], ["audio"]):
        raise invalid(path, value, "Supported values are: ['text'] and ['audio'].")
    return value


def _max_tokens(value: Any, path: str) -> int | str:
    return value if value == "inf" else _number(1, 4096, (int,))(value, path)


def _turn_detection(value: Any, path: str) -> dict:
    kind = _one_of("server_vad", "semantic_vad")(value.get("type", "server_vad") if isinstance(value, dict) else value, f"{path}.type")
    flags = {"create_response": _boolean, "interrupt_response": _boolean, "type": _text}
    if kind == "semantic_vad":
        return SEMANTIC_VAD | an_object(flags | {"eagerness": _one_of("low", "medium", "high", "auto")})(value, path)
    times = {"prefix_padding_ms": _number(0, 10_000, (int,)), "silence_duration_ms": _number(0, 10_000, (int,))}
    times["idle_timeout_ms"] = _or_null(_number(5000, 30_000, (int,)))
    return SERVER_VAD | an_object(flags | times | {"threshold": _number(0, 1)})(value, path)


def _truncation(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        return _one_of("auto", "disabled")(value, path)
    limits = an_object({"post_instructions": _number(0, 1_000_000, (int,))})
    fields = {"type": _one_of("retention_ratio"), "retention_ratio": _number(0, 1), "token_limits": limits}
    return an_object(fields, ("type", "retention_ratio"))(value, path)


_FORMAT = an_object({"type": _one_of("audio/pcm", "audio/pcmu", "audio/pcma"), "rate": _one_of(24000)}, ("type",))
_AUDIO_IN = {
    "format": _FORMAT,
    "transcription": _or_null(an_object({"model": _text, "language": _text, "prompt": _text})),
    "noise_reduction": _or_null(an_object({"type": _one_of("near_field", "far_field")}, ("type",))),
    "turn_detection": _or_null(_turn_detection),
}
_AUDIO_OUT = {"format": _FORMAT, "voice": _one_of(*VOICES), "speed": _number(0.25, 1.5)}
SESSION = {
    "type": _text,
    "model": _text,
    "instructions": _text,
    "output_modalities": _modalities,
    "max_output_tokens": _max_tokens,
    "tools": _only([]),
    "tool_choice": _one_of("auto", "none", "required"),
    "truncation": _truncation,
    "tracing": _only(None),
    "prompt": _only(None),
    "include": _only(None),
    "audio": an_object({"input": an_object(_AUDIO_IN), "output": an_object(_AUDIO_OUT)}),
}
RESPONSE = {"instructions": _text, "max_output_tokens": _max_tokens, "output_modalities": _modalities}


def default_session(session_id: str, model: str) -> dict:
    """What a fresh session is set to: audio output and server VAD, as in the service."""
    audio_in = {"format": dict(PCM), "transcription": None, "noise_reduction": None, "turn_detection": dict(SERVER_VAD)}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "You are a friendly practice tutor.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "include": None,
        "expires_at": int(time.time()) + SESSION_S,
        "audio": {"input": audio_in, "output": {"format": dict(PCM), "voice": "alloy", "speed": 1.0}},
    }


def merged_session(effective: dict, asked: Any) -> dict:
    """The session after an update; raises before anything is changed: an update is all or nothing."""
    if not isinstance(asked, dict) or "type" not in asked:
        raise Refused("missing_required_parameter", "Missing required parameter: 'session.type'.", "session.type")
    if asked["type"] == "transcription":
        raise not_built("session.type", "'transcription'")
    if asked["type"] != "realtime":
        message = f"Invalid value: '{asked['type']}'. Supported values are: 'realtime' and 'transcription'"
        raise Refused("invalid_value", message, "session.type")
    checked = an_object(SESSION)(asked, "session")
    if checked.get("model", effective["model"]) != effective["model"]:
        raise invalid("session.model", checked["model"], "The model of a session cannot be changed.")
    result = copy.deepcopy(effective)
    for side, fields in checked.pop("audio", {}).items():
        result["audio"][side] |= fields
    return result | checked


# --- conversation items


def new_item(item: Any) -> dict:
    """A checked message item, without id, as the service stores it."""
    if not isinstance(item, dict) or "type" not in item:
        raise Refused("missing_required_parameter", "Missing required parameter: 'item.type'.", "item.type")
    if item["type"] != "message":
        raise not_built("item.type", f"{json.dumps(item['type'])[:60]}")
    role = _one_of(*CONTENT)(item.get("role"), "item.role")
    fields = {"type": _text, "role": _text, "id": _text, "object": _text, "status": _text}
    an_object(fields | {"content": lambda value, path: value}, ("role", "content"))(item, "item")
    if not isinstance(item["content"], list) or not item["content"]:
        raise invalid("item.content", item["content"], "Expected an array with at least one part.")
    parts = [_part(part, role, f"item.content[{index}]") for index, part in enumerate(item["content"])]
    return {"object": "realtime.item", "type": "message", "status": "completed", "role": role, "content": parts}


def _part(part: Any, role: str, path: str) -> dict:
    kind = part.get("type") if isinstance(part, dict) else None
    if (role, kind) in (("user", "input_audio"), ("user", "input_image")):
        raise not_built(f"{path}.type", f"'{kind}'")
    if (role, kind) == ("assistant", "output_audio"):
        raise Refused("missing_required_parameter", f"Missing required parameter: '{path}.text'.", f"{path}.text")
    _one_of(CONTENT[role])(kind, f"{path}.type")
    return an_object({"type": _text, "text": _text}, ("text",))(part, path)


def text_of(item: dict) -> str:
    return " ".join(part["text"] for part in item["content"])
