"""What a client may ask of the practice Realtime session.

One sentence: `checked()` holds a client's value against a rule of `checks.json` and returns it, or raises `Refused` with the service's wording.
What it does not do: send anything, or keep state; `session` does.

A rule is a name of another rule, or an object with these keys:

    or        values that are fine as they are
    unbuilt   values of the service that are refused as not part of the practice server; true: every value
    is        text, integer, number, boolean, list or object; without it only `or` is fine
    size      [least, most]: of a number, or the length of the others
    each      the rule of a list's elements, or of an object's values; then `keys` is the rule of its keys
    fields    the rules of an object's fields, of which some are `required`; `filled` are the values of those left out
    by        an object whose rule is chosen from `kinds` by the value of this field (`default`: where the field is left out)
"""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

TABLE: dict = json.loads(Path(__file__).with_name("checks.json").read_text("utf-8"))
KINDS: dict[str, Any] = {"text": str, "integer": int, "number": (int, float), "boolean": bool, "list": list, "object": dict}


class Refused(Exception):
    """What the service would answer with an `error` event; the session goes on.

    Args:
        name: of a row of the table's refusals; it is the error's code where the row has no other.
        param: the place in the client's event that is at fault.
        values: for the row's message.

    Attributes:
        error: the error as the client gets it, but for the id of its event.
    """

    def __init__(self, name: str, param: str | None = None, **values: Any):
        row = TABLE["refusals"][name]
        super().__init__(row["message"].format(param=param, **values))
        self.error = {"type": row.get("type", "invalid_request_error"), "code": row.get("code", name), "message": str(self)}
        self.error["param"] = param or row.get("param")


def shown(value: Any) -> str:
    """A client's value in an error message: short, however long it is or deeply nested."""
    if isinstance(value, (list, dict)):
        return reprlib.repr(value)
    return f"'{value[:80]}'" if isinstance(value, str) else json.dumps(value)[:80]


def checked(value: Any, rule: str | dict, path: str = "", told: dict | None = None) -> Any:
    """The value that becomes effective.

    Args:
        value: what the client sent.
        rule: a rule, or its name.
        path: where the value stands in the client's event, as "session.audio.input".
        told: fields of the object that have been looked at already, to choose this rule.

    Raises:
        Refused: the value, or something in it, breaks the rule.
    """
    rule = TABLE["rules"][rule] if isinstance(rule, str) else rule
    unbuilt = rule.get("unbuilt", [])
    if value in rule.get("or", []):
        return value
    if "by" in rule:
        return _object_of_a_kind(value, rule, path, told or {})
    if unbuilt is True or value in unbuilt:
        raise Refused("not_built", path, value=f"'{path}'" if unbuilt is True else shown(value))
    if "is" not in rule:
        *others, last = map(shown, [*rule["or"], *unbuilt])
        raise Refused("invalid_value", path, value=shown(value), why=f"Supported values are: {', '.join(others)} and {last}")
    kind, (name, unit) = KINDS[rule["is"]], TABLE["kinds"][rule["is"]]
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise Refused("invalid_value", path, value=shown(value), why=f"Expected {name}.")
    low, high = rule.get("size", (0, float("inf")))
    if not low <= (len(value) if unit else value) <= high:
        raise Refused("invalid_value", path, value=shown(value), why=f"Expected {name} between {low} and {high}{unit}.")
    if kind is list:
        return [checked(part, rule["each"], f"{path}[{index}]") for index, part in enumerate(value)]
    return _object(value, rule, path, told or {}) if kind is dict else value


def _object(value: dict, rule: dict, path: str, told: dict) -> dict:
    places = {key: f"{path}.{key[:80]}".lstrip(".") for key in [*value, *rule.get("required", ())]}
    if "each" in rule:
        return {checked(key, rule["keys"], path): checked(part, rule["each"], places[key]) for key, part in value.items()}
    for key, place in places.items():
        if key not in rule["fields"] and key not in told:
            raise Refused("unknown_parameter", place)
        if key not in value:
            raise Refused("missing_required_parameter", place)
    found = {key: checked(part, rule["fields"][key], places[key]) for key, part in value.items() if key not in told}
    return told | rule.get("filled", {}) | found


def _object_of_a_kind(value: Any, rule: dict, path: str, told: dict) -> dict:
    place, value = f"{path}.{rule['by']}".lstrip("."), {} if value is None else value
    if not isinstance(value, dict):
        raise Refused("invalid_value", path, value=shown(value), why="Expected an object.")
    kind = value.get(rule["by"], rule.get("default"))
    if kind is None:
        raise Refused("missing_required_parameter", place)
    checked(kind, {"or": list(rule["kinds"]), "unbuilt": rule.get("unbuilt", [])}, place)
    return checked(value, rule["kinds"][kind], path, told | {rule["by"]: kind})


def default_session(session_id: str, model: str, expires_at: int) -> dict:
    """What a fresh session is set to: audio output and server VAD, as in the service."""
    return TABLE["default_session"] | {"id": session_id, "model": model, "expires_at": expires_at}


def merged_session(effective: dict, asked: dict) -> dict:
    """The session after a checked update; an update is all or nothing, and changes no value in place."""
    if asked.get("model", effective["model"]) != effective["model"]:
        raise Refused("invalid_value", "session.model", value=shown(asked["model"]), why="The model of a session cannot be changed.")
    given = asked.get("audio", {})
    return effective | asked | {"audio": {side: fields | given.get(side, {}) for side, fields in effective["audio"].items()}}
