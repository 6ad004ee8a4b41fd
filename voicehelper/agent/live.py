"""The one live agent of a kernel, and what the next one takes over.

One sentence: a slot outside the module remembers the agent, so that a cell that is run again, or a module that is reloaded, finds and closes it.
It also finds the practice server and the loudspeaker to use. What it does not do: connect.
"""

import atexit
import sys
from typing import Any

from ..errors import ConnectionFailed
from ..settings import Settings

_SLOT = "_voicehelper_live"  # of `sys`: survives a reload of voicehelper, which a module global does not


def agents() -> dict[Any, bool]:
    """The live agents, oldest first, each with whether the next connect() replaces it. All are closed when the interpreter ends."""
    if not hasattr(sys, _SLOT):
        setattr(sys, _SLOT, {})
        atexit.register(_close_all)
    return getattr(sys, _SLOT)


def current() -> Any:
    """The live agent, or None."""
    return next((agent for agent, replaced in reversed(list(agents().items())) if replaced), None)


def _close_all() -> None:
    for agent in list(agents()):
        agent.close()


def practice_server(settings: Settings, before: Any) -> Any:
    """The practice server to use: none with keys or when one is named, that of the agent before, else a new one."""
    if settings.backend != "practice" or settings.realtime_url:
        return None
    if before is not None and before.practice is not None and before.practice.alive():
        practice, before.practice = before.practice, None  # it is not the one before who closes it
        return practice
    from ..practice.launcher import LaunchFailed, launch  # nobody with keys needs it

    try:
        return launch()
    except LaunchFailed as error:
        raise ConnectionFailed(f"the practice server did not start: {error}", hint="Restart the kernel and run the cell again.") from None
