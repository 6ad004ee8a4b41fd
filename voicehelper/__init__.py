"""voicehelper: type a sentence in a notebook, watch the answer stream in, and hear it while it is still being written.

Read these five files in this order: `conversation` (who speaks), `sentences` (where to cut), `ssml` (how it sounds), `tts_queue` (when it sounds),
`agent` (how the stages are connected). Names are resolved on first use, so that importing one costs only what it needs.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "ConversationAgent": "agent",
    "Turn": "agent",
    "SessionConfig": "conversation",
    "EventLog": "events",
    "Settings": "settings",
    "Secret": "settings",
    "SentenceSplitter": "sentences",
    "Unit": "sentences",
    "speakable": "speakable",
    "Voice": "ssml",
    "create_response_ssml": "ssml",
    "AudioClip": "speech",
    "AzureSpeech": "speech",
    "Utterance": "speech",
    "Word": "speech",
    "SilentPlayer": "player",
    "TTSQueue": "tts_queue",
    **dict.fromkeys(
        (
            "VoiceHelperError",
            "SettingsError",
            "InputError",
            "ConnectionFailed",
            "KeyRefused",
            "DeploymentNotFound",
            "ServerRefused",
            "RateLimited",
            "TurnFailed",
            "SpeechFailed",
            "SpeechCancelled",
        ),
        "errors",
    ),
    "NotebookPlayer": "notebook.player",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__():
    return sorted([*globals(), *_HOME])
