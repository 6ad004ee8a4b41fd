"""What we ask of a session, and whether we got it.

One sentence: `SessionConfig` is checked here, in plain words, before a service sees it, and compared with what the service says is in force.
What it does not do: send anything.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any

from .. import table
from ..errors import InputError


@dataclass(frozen=True)
class SessionConfig:
    """What we ask of a session.

    Args:
        instructions: how the model should behave; counts as input tokens in every turn.
        max_output_tokens: 1 to 4096, or "inf"; the answer is cut there.
        output_modalities: ("text",) or ("audio",), never both.
        transcription: such as {"model": "whisper-1", "language": "es"}; None leaves it off.
        turn_detection: such as {"type": "server_vad"}; None turns it off.

    Raises:
        InputError: a value the service would refuse, with the reason.

    Source: Realtime GA reference, `session.update`.
    """

    instructions: str = "You are a friendly voice assistant. Answer in a few short sentences that are pleasant to listen to."
    max_output_tokens: int | str = 800
    output_modalities: tuple[str, ...] = ("text",)
    transcription: Mapping[str, Any] | None = None
    turn_detection: Mapping[str, Any] | None = None
    temperature: InitVar[float | None] = None

    def __post_init__(self, temperature: float | None) -> None:
        object.__setattr__(self, "output_modalities", tuple(self.output_modalities))
        tokens, modalities = self.max_output_tokens, self.output_modalities
        is_limit = tokens == "inf" or (type(tokens) is int and 1 <= tokens <= 4096)
        rules = (
            (temperature is None, "the Realtime API has no temperature any more", "Say in `instructions` how free the answers should be."),
            (modalities in (("text",), ("audio",)), f"output_modalities is {modalities!r}", 'Ask for ("text",) or ("audio",), never both.'),
            (is_limit, f"max_output_tokens is {tokens!r}", 'Give a whole number from 1 to 4096, or "inf".'),
            (isinstance(self.instructions, str), "instructions is not a string", "Write the instructions as one string."),
        )
        for is_kept, problem, hint in rules:
            if not is_kept:
                raise InputError(problem, hint=hint)

    @classmethod
    def preset(cls, name: str, **fields: Any) -> "SessionConfig":
        """A configuration for one of the uses in presets.json.

        Args:
            name: "voice assistant", "accessibility reader", "teacher" or "customer service".
            fields: of `SessionConfig`, instead of the preset's.

        Raises:
            InputError: there is no such preset, or a value the service would refuse.
        """
        presets = table("presets")
        if name not in presets:
            raise InputError(f"there is no preset {name!r}", hint=f"Choose one of: {', '.join(presets)}.")
        return cls(**{**presets[name], **fields})

    def to_event(self) -> dict[str, Any]:
        """The `session.update` that asks for it, ready for the wire."""
        answer = {"instructions": self.instructions, "max_output_tokens": self.max_output_tokens}
        hearing = {"transcription": dict(self.transcription or {}) or None, "turn_detection": dict(self.turn_detection or {}) or None}
        session = {"type": "realtime", **answer, "output_modalities": list(self.output_modalities), "audio": {"input": hearing}}
        return {"type": "session.update", "session": session}

    def differences(self, effective: Mapping[str, Any]) -> list[str]:
        """The dotted names of what the server's effective session does not have as asked; [] when all was applied."""
        return _differences(self.to_event()["session"], effective, "session")


def _differences(asked: Any, got: Any, path: str) -> list[str]:
    if not isinstance(asked, Mapping):
        return [] if asked == got else [path]
    return [wrong for name in asked for wrong in _differences(asked[name], mapping(got).get(name), f"{path}.{name}")]


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: what a service sends may lack anything."""
    return value if isinstance(value, Mapping) else {}
