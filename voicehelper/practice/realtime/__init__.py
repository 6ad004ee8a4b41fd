"""The practice side of the Realtime API, GA dialect, text out, text and audio in: `RealtimeSession`, one for each socket."""

from .items import Ids
from .session import RealtimeSession

__all__ = ["Ids", "RealtimeSession"]
