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


def remember(agent: Any, replace: bool) -> None:
    """Close this agent when the interpreter ends; with `replace` it is also the one that the next connect() closes."""
    slot = sys.modules.get(_SLOT)
    if slot is None:
        slot = sys.modules[_SLOT] = types.ModuleType(_SLOT)
        slot.agent, slot.all = None, []
        atexit.register(_close_all)
    slot.all.append(agent)
    if replace:
        slot.agent = agent


def forget(agent: Any) -> None:
    """The agent is closed."""
    slot = sys.modules.get(_SLOT)
    if slot is not None:
        slot.all = [other for other in slot.all if other is not agent]
        slot.agent = None if slot.agent is agent else slot.agent


def _close_all() -> None:
    for agent in list(sys.modules[_SLOT].all):
        agent.close()


def loudspeaker(previous: Any = None) -> Any:
    """A player for this place: the one already on the page, else a `NotebookPlayer` in a Jupyter kernel, else a `SilentPlayer`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if os.environ.get("VOICEHELPER_SOUND", "").lower() == "silent" or not hasattr(shell, "kernel"):
        return SilentPlayer()
    from ..notebook.player import NotebookPlayer

    return previous if isinstance(previous, NotebookPlayer) else NotebookPlayer()
