"""The practice side of the Realtime API, GA dialect, text turns: `RealtimeSession`, one for each socket."""

from .session import Ids, RealtimeSession

__all__ = ["Ids", "RealtimeSession"]
