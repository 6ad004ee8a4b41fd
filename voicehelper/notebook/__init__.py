"""What one sees and hears in a notebook.

One sentence: `loudspeaker()` picks the player that fits where we run. What it does not do: load a widget where there is no notebook.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ..player import SilentPlayer


def loudspeaker(previous: Any = None) -> Any:
    """A player for this place: the one already on the page, else a `NotebookPlayer` in a Jupyter kernel, else a `SilentPlayer`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if os.environ.get("VOICEHELPER_SOUND", "").lower() == "silent" or not hasattr(shell, "kernel"):
        return SilentPlayer()
    from .player import NotebookPlayer

    return previous if isinstance(previous, NotebookPlayer) else NotebookPlayer()
