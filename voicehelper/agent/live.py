"""The one live agent of a kernel, and what the next one takes over.

One sentence: a slot outside the module remembers the agent, so that a cell that is run again, or a module that is reloaded, finds and closes it.
It also finds the practice server and the loudspeaker to use. What it does not do: connect.
"""

import atexit
import sys
from contextlib import ExitStack
from typing import Any

from ..errors import ConnectionFailed
from ..settings import Settings


def agents() -> dict[Any, bool]:
    """The live agents, oldest first, each with whether the next connect() replaces it. All are closed when the interpreter ends."""
    return vars(sys).setdefault("_voicehelper_live", {})  # survives a reload of voicehelper, which a module global does not


def current() -> Any:
    """The live agent, or None."""
    return next((agent for agent, replaced in reversed(list(agents().items())) if replaced), None)


@atexit.register  # once more by a module that is loaded again: closing twice is once
def _close_all() -> None:
    for agent in list(agents()):
        agent.close()


def practice_server(settings: Settings, before: Any, unless_connected: ExitStack) -> Any:
    """The practice server to use: none with keys or when one is named, that of the agent before, else a new one."""
    if settings.backend != "practice" or settings.realtime_url:
        return None
    if before is not None and before.practice is not None and before.practice.alive():
        practice, before.practice = before.practice, None  # it is not the one before who closes it
        unless_connected.callback(agents().__setitem__, before, True)  # but the next connect() finds it there
        unless_connected.callback(setattr, before, "practice", practice)
        return practice
    from ..practice.launcher import LaunchFailed, launch  # nobody with keys needs it

    try:
        practice = launch()
    except LaunchFailed as error:
        raise ConnectionFailed(f"the practice server did not start: {error}", hint="Restart the kernel and run the cell again.") from None
    unless_connected.callback(practice.close)
    return practice
