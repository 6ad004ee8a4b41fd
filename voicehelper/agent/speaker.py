"""The spoken half of a turn: units become utterances, utterances become sound, and one line says how it goes.

One sentence: `Speaker` owns the queue, the voice and the loudspeaker of an agent.
What it does not do: know the conversation. Its methods are called with the agent's lock held, but for `announce` and `close`.
"""

import threading
from collections.abc import Callable

from ..player import Player
from ..sentences import Unit
from ..settings import Settings
from ..speakable import speakable
from ..speech import AzureSpeech, Utterance
from ..ssml import Voice
from ..tts_queue import TTSQueue, guarded
from .turn import Turn

JOIN_S, JOIN_CHARS = 5.0, 300  # with so much speech waiting, short units share one request
LINES = {"speaking": "🔊 Speaking response…", "spoken": "🔊 Speech completed", "interrupted": "⏹ Speech interrupted"}


class Speaker:
    """Args: where to connect, the loudspeaker, and who tells the voice of the next utterance."""

    def __init__(self, settings: Settings, player: Player, voice: Callable[[], Voice]):
        self.player, self.voice = player, voice
        self.speech = AzureSpeech(settings)
        self.queue = TTSQueue(self.speech, player)
        self.queue.is_limited = settings.speech_tier == "F0"
        self._said: tuple[str, str] | None = None  # the last (turn, line) on the loudspeaker
        self._telling = threading.RLock()  # several threads see a turn move: the line that is told last must be the newest

    def speak(self, turn: Turn, units: list[Unit], last: bool = False) -> None:
        """Make utterances of units. While much speech waits, short ones are joined: the free tier allows 20 requests a minute."""
        for unit in units:
            turn.mark("first_unit")
            if turn.held and (self.queue.waiting_s < JOIN_S or len(" ".join([*turn.held, unit])) > JOIN_CHARS):
                self._utter(turn)
            turn.held.append(unit)
        if turn.held and (last or self.queue.waiting_s < JOIN_S):
            self._utter(turn)

    def _utter(self, turn: Turn) -> None:
        units, turn.held = turn.held, []
        voice, text = self.voice(), " ".join(units)
        spoken = " ".join(said for unit in units if (said := speakable(unit, voice.language)))
        utterance = Utterance(turn.id, len(turn.utterances), text, spoken=spoken, voice=voice, generation=turn.generation)
        turn.utterances.append(utterance)
        self.queue.put(utterance)

    def announce(self, turn: Turn, newest: bool) -> None:
        """One line of status on the loudspeaker, when that of the newest turn changes."""
        with self._telling:
            reason = next((item.reason for item in turn.utterances if item.status == "failed"), turn.reason or "Nothing to say")
            waits = turn.status == "running" and turn.reason
            line = f"⏳ {waits}" if waits else LINES.get("speaking" if turn.status == "running" else turn.speech, f"🔇 {reason}")
            if newest and line and (turn.id, line) != self._said and hasattr(self.player, "notice"):
                self._said = (turn.id, line)
                guarded(self.player.notice, line)

    def close(self) -> None:
        """Silence; end the threads of the queue, then the connections to the voice."""
        self.queue.close(1.5)
        self.speech.close()
