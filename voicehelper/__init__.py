"""voicehelper: type a sentence in a notebook, watch the answer stream in, and hear it while it is still being written.

Read these five files in this order: `conversation` (who speaks), `sentences` (where to cut), `ssml` (how it sounds), `tts_queue` (when it sounds),
`agent` (how the stages are connected). Names are resolved on first use, so that importing one costs only what it needs.
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_NAMES = {
    "agent": "ConversationAgent Turn",
    "conversation": "SessionConfig",
    "errors": "VoiceHelperError SettingsError InputError ConnectionFailed KeyRefused DeploymentNotFound ServerRefused RateLimited "
    "TurnFailed SpeechFailed SpeechCancelled",
    "events": "EventLog",
    "notebook.player": "NotebookPlayer",
    "player": "SilentPlayer WavPlayer",
    "sentences": "SentenceSplitter Unit",
    "settings": "Settings Secret",
    "speakable": "speakable",
    "speech": "AudioClip AzureSpeech Utterance Word",
    "ssml": "Voice create_response_ssml check_ssml billed_characters",
    "tts_queue": "TTSQueue",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)


class _Face(ModuleType):
    """Importing `voicehelper.speakable` would put the module in the place of the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, getattr(value, name) if name in _HOME and isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Face


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *_HOME])
