"""The one live agent of a kernel, and the loudspeaker that fits where we run.

One sentence: a slot outside the module remembers the agent, so that a cell that is run again, or a module that is reloaded, finds and closes it.
What it does not do: connect.
"""

from __future__ import annotations

import atexit
import os
import sys
import types
from typing import Any

from ..player import SilentPlayer

_SLOT = "_voicehelper_live"  # in sys.modules: survives a reload of voicehelper, which a module global does not


def current() -> Any:
    """The live agent, or None."""
    return getattr(sys.modules.get(_SLOT), "agent", None)


def remember(agent: Any) -> None:
    """Make this the live agent; it is closed when the interpreter ends."""
    slot = sys.modules.get(_SLOT)
    if slot is None:
        slot = sys.modules[_SLOT] = types.ModuleType(_SLOT)
        atexit.register(_close_last)
    slot.agent = agent


def forget(agent: Any) -> None:
    """The agent is closed."""
    if current() is agent:
        sys.modules[_SLOT].agent = None


def _close_last() -> None:
    if (agent := current()) is not None:
        agent.close()


def loudspeaker(previous: Any = None) -> Any:
    """A player for this place: the one already on the page, else a `NotebookPlayer` in a Jupyter kernel, else a `SilentPlayer`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if os.environ.get("VOICEHELPER_SOUND", "").lower() == "silent" or not hasattr(shell, "kernel"):
        return SilentPlayer()
    from ..notebook.player import NotebookPlayer

    return previous if isinstance(previous, NotebookPlayer) else NotebookPlayer()
