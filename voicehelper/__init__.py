"""voicehelper: type a sentence in a notebook, watch the answer stream in, and hear it while it is still being written.

Read these five files in this order: `conversation` (who speaks), `sentences` (where to cut), `ssml` (how it sounds), `tts_queue` (when it sounds),
`agent` (how the stages are connected). Names (`names.json`) are resolved on first use, so that importing one costs only what it needs.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"


def table(name: str):
    """The content of one of the data files of this package: `table("prices")`."""
    return json.loads(Path(__file__).with_name(f"{name}.json").read_text("utf-8"))


_HOME = {name: module for module, names in table("names").items() for name in names.split()}  # each public name's module
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
