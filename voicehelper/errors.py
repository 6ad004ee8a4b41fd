"""Every failure of voicehelper, in one tree, each with a `hint` in plain words.

One sentence: whoever catches `VoiceHelperError` catches all of ours, can show `.hint` to a learner and can read `.retryable`.
What it does not do: print, log, or retry anything.
"""

import re

from . import table


class VoiceHelperError(Exception):
    """The root of the tree.

    Args:
        message: what happened, one sentence, never with a key in it.
        hint: what to do about it, plain words; each class has one of its own.
        retryable: whether doing the same again may help.
        turn: the turn that it ended, if it ended one; it holds what had arrived.
    """

    hint = "Run the cell again; if it happens again, restart the kernel."
    retryable = False

    def __init__(self, message: str, *, hint: str | None = None, retryable: bool | None = None, turn=None):
        message, _, said = message.partition(" → ")  # a reason may bring its own hint
        super().__init__(message)
        self.message, self.turn, self.hint = message, turn, hint or said or self.hint
        self.retryable = self.retryable if retryable is None else retryable

    def __str__(self) -> str:
        return f"{self.message} → {self.hint}"

    def _render_traceback_(self) -> list[str]:
        """What a notebook cell shows instead of a stack of frames: what happened, and what to do."""
        return [f"\x1b[31m{type(self).__name__}\x1b[0m: {self.message}", f"→ {self.hint}"]


class SettingsError(VoiceHelperError):
    """The settings are incomplete or wrong."""

    hint = "Fill in .env (see .env.example), or remove all four variables to use the practice server."


class InputError(VoiceHelperError, ValueError):
    """What was passed in can't be used."""

    hint = "Change the value and call again."


class ConnectionFailed(VoiceHelperError):
    """There is no working connection to the service."""

    hint = "Check the network and the endpoint, then run the cell with connect() again."
    retryable = True


class KeyRefused(VoiceHelperError):
    """The service did not accept the key."""

    hint = "Check AZURE_OPENAI_KEY: copy it again from the Azure portal, 'Keys and Endpoint'."


class DeploymentNotFound(VoiceHelperError):
    """There is no such deployment behind the endpoint."""

    hint = "Set AZURE_OPENAI_DEPLOYMENT to the name of *your* deployment, as Azure lists it; it must be a realtime model."


class ServerRefused(VoiceHelperError):
    """The service understood the request and said no."""

    hint = "Read the reason: it names the field or the rule."


class RateLimited(VoiceHelperError):
    """Too many requests or tokens for this quota."""

    hint = "Wait a little, then ask again; a class needs a larger quota, or the practice server."
    retryable = True


class TurnFailed(VoiceHelperError):
    """An answer ended in failure; `.turn` holds what had arrived."""

    hint = "Ask again; turn.text holds what had arrived."


class SpeechFailed(VoiceHelperError):
    """A sentence could not be turned into sound; the text is not affected."""

    hint = "The text is complete; check AZURE_SPEECH_KEY and AZURE_SPEECH_REGION if no sentence is spoken."


class SpeechCancelled(VoiceHelperError):
    """Synthesis was stopped because nobody wants to hear it any more."""

    hint = "Nothing to do: an interrupt or a new question stopped it."


def refusal(signs: str, **words: object) -> VoiceHelperError:
    """The error for what a service or a library says: the first row of refusals.json that fits.

    Args:
        signs: a status and a body, or a name and a message.
        words: what the sentences of the table ask for, and perhaps a better `hint`.
    """
    row = next(row for row in table("refusals") if re.match(row["when"], signs, re.IGNORECASE | re.DOTALL))
    return globals()[row["error"]](row["words"].format(**words), hint=words.get("hint") or row.get("hint"), retryable=row.get("retryable"))
