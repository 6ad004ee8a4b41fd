"""The agent: a question goes out, deltas come back, become units, utterances, sound.

One sentence: `ConversationAgent` connects the stages and owns their lives.
What it does not do: any stage itself. Read it after `conversation` (who speaks) and `tts_queue` (what sounds).

One lock guards the conversation and the turns. It is held for microseconds, never while a handler of yours runs, and never across a wait.
"""

import dataclasses
import re
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..conversation import Conversation, SessionConfig
from ..costs import Cost
from ..errors import ConnectionFailed, InputError
from ..events import EventLog
from ..player import Player
from ..realtime import RealtimeConnection
from ..settings import Secret, Settings
from ..ssml import Voice, legal_text
from . import live
from .speaker import Speaker
from .turn import Stream, Turn
from .wire import Wire

MAX_CHARS = 32_000
KEEP_SOUND = 20  # turns whose PCM stays


class ConversationAgent(Wire, AbstractContextManager):
    """A voice conversation. Make one with `ConversationAgent.connect()`.

    Attributes:
        where: one sentence: where we are connected.
        player: the loudspeaker; `display(agent.player)` puts it on the page.
        conversation: the state of the session; its `turns` are all that the model remembers, also of an earlier session.
        events: the masked log of both directions.
        turns: all turns, oldest first.
        voice: may be set at any time; acts from the next utterance.
        session: what the service has confirmed.
    """

    def __init__(self, settings: Settings, session, voice, player: Player, conversation: Conversation | None = None, practice: Any = None):
        super().__init__()
        self._lock = threading.RLock()  # the reader, cells and callbacks all come here
        self.settings, self.player, self.voice = settings, player, voice or Voice()
        self.practice = practice  # the practice server's process, if this agent owns one
        self.conversation = Conversation(session, conversation.turns if conversation else ())
        self.first_number = 1 + max((int(re.search(r"\d{0,9}\Z", turn.id)[0] or 0) for turn in self.conversation.turns), default=0)
        self.events = EventLog(settings.mask)
        self.turns: list[Turn] = []
        self._closed = False
        listeners = {"event": self._receive, "tick": self._tick, "closed": self._lost, "failed": self._failed, "open": self._opened}
        self.connection = RealtimeConnection(settings, **listeners)
        self._speaker = Speaker(settings, player, lambda: self.voice)
        self.queue = self._speaker.queue
        self.queue.on_change = self._spoke

    @classmethod
    def connect(cls, settings=None, *, session=None, voice=None, player=None, conversation=None, replace=True) -> "ConversationAgent":
        """Connect, ask for the session, and return when the service has confirmed it.

        Args:
            settings: a `Settings`. None reads `.env` and the environment: keys mean Azure, nothing configured means the practice server.
            session: None is `SessionConfig()`.
            voice: None is `Voice()`.
            player: None is the loudspeaker of the notebook, or a silent one elsewhere.
            conversation: of `history.load()`, or of an earlier agent: the model is told what was said in its last turns, as far as it was heard.
            replace: close the agent that an earlier run of the cell made, and go on with its loudspeaker and its practice server.

        Raises:
            SettingsError: half-configured or wrong.
            KeyRefused, DeploymentNotFound, RateLimited, ServerRefused, ConnectionFailed: there is no session, and why.
        """
        from ..notebook import loudspeaker  # the one line that looks up to that room

        settings = settings or Settings.load()
        before = live.current() if replace else None
        with ExitStack() as unless_connected:
            practice = live.practice_server(settings, before, unless_connected)
            if practice is not None:
                settings = Settings.practice(practice.realtime_url, practice.speech_host, Secret(practice.key))
            if before is not None:
                before.close()
            player = player or loudspeaker(before and before.player)
            agent = unless_connected.enter_context(cls(settings, session, voice, player, conversation, practice))
            agent._ask_for()
            unless_connected.pop_all()
        live.agents()[agent] = replace
        return agent

    @property
    def where(self) -> str:
        return f"{self.settings.where}{' (closed)' if self._closed else ''}"

    @property
    def session(self) -> SessionConfig:
        return self.conversation.config

    # -- asking

    def start(self, text: str) -> Turn:
        """Ask, and return at once: what a widget's callback uses. A connection that was lost is opened again.

        Args:
            text: 1 to 32,000 characters; control characters and broken surrogates are repaired.

        Raises:
            InputError: the text is empty or too long. ConnectionFailed: the agent is closed.
        """
        try:
            with self._lock:
                turn = self._new_turn(_checked(text))
                self.conversation.begin(turn, time.monotonic())
                self._send()
        except KeyboardInterrupt:
            self.interrupt()
            raise
        return turn

    def ask(self, text: str) -> Turn:
        """Ask, and wait until the text is complete, whatever its status; speech goes on. Interrupting the kernel cancels the turn."""
        turn = self.start(text)
        turn.wait_text()
        return turn

    def stream(self, text: str) -> Stream:
        """Ask, and iterate over the deltas while they arrive. Breaking out of the loop interrupts.

        Raises:
            TurnFailed: from the iterator, when the turn failed; `.turn` has what had arrived.
        """
        return Stream(self.start(text))

    def speak_response(self, text: str) -> Turn:
        """Speak a given text, without the model and without adding to its history. Interrupts like `ask`."""
        text = _checked(text)
        with self._lock:
            turn = self._new_turn("")
            turn.pieces.append(text)
            self._speaker.speak(turn, turn.splitter.feed(text) + turn.splitter.flush(), last=True)
            turn.status = "done"
            turn.mark("text_done")
        self._speaker.announce(turn, turn is self.turns[-1])
        return turn

    def configure(self, **fields: Any) -> None:
        """Change the session while it lives; returns when the service has confirmed it.

        Args:
            fields: those of `SessionConfig`, such as `instructions="Answer in one sentence."`; the others stay as they are.

        Raises:
            InputError: a value the service would refuse.
            ServerRefused, ConnectionFailed: it is not confirmed, and why; the agent then goes on as before.
            KeyboardInterrupt: the service may still do it; `session` is what it has confirmed.
        """
        self._ask_for(dataclasses.replace(self.session, **fields))

    @property
    def cost(self) -> Cost:
        """What all turns cost so far: an estimate from list prices (see `costs`)."""
        return sum((turn.cost for turn in self.turns), Cost())

    def interrupt(self) -> None:
        """Stop: no more text and no more sound of what runs now. Waits for nothing; any time, any thread."""
        with self._lock:
            self._hush("interrupted")

    def close(self, *exc: object) -> None:
        """End everything this agent started, within 3 seconds. Twice is once, or does what an Interrupt left to do; also leaving `with` and
        ending the interpreter."""
        deadline = time.monotonic() + 3.0
        with self._lock:
            if not self._closed:
                self._closed = True
                self._hush("closed")
        self._speaker.close()
        self.connection.close(max(0.2, min(1.0, deadline - time.monotonic())))
        if self.practice is not None:
            self.practice.close(max(0.2, deadline - time.monotonic()))
            self.practice = None
        live.agents().pop(self, None)

    __exit__ = close

    def __repr__(self) -> str:
        return f"<ConversationAgent: {self.where}; {len(self.turns)} turns>"

    # -- inside

    def _new_turn(self, text: str) -> Turn:
        """End what runs, silence what sounds, and make the next turn. With the lock held, so that two askers get one order."""
        if self._closed:
            raise ConnectionFailed("the agent is closed", hint="Run the cell with connect() again.")
        if hasattr(self.player, "attend"):  # in the cell that asks: a loudspeaker that is not on the page says how to get there
            self.player.attend()
        turn = Turn(self, text, self._hush("a new message came"))
        self.turns.append(turn)
        for old in self.turns[-KEEP_SOUND - 1 : -KEEP_SOUND]:
            for utterance in old.utterances:
                utterance.clip = None
        return turn

    def _hush(self, reason: str) -> int:
        """Cancel what runs and silence what sounds, so that the last line on the loudspeaker says how it ended. With the lock held; returns the
        new generation of the queue."""
        if self.turns and self.conversation.cancel(self.turns[-1], reason, time.monotonic()):
            self.turns[-1].held.clear()
            self.turns[-1].mark("text_done")
            self._speaker.announce(self.turns[-1], True)  # nobody else does, where nothing was to be spoken yet
        self._send()
        return self.queue.interrupt(reason)


def _checked(text: str) -> str:
    text = legal_text(text)
    if not text.strip():
        raise InputError("the message is empty", hint="Type a sentence.")
    if len(text) > MAX_CHARS:
        raise InputError(f"the message has {len(text):,} characters", hint=f"Shorten it to {MAX_CHARS:,}, or send it in parts.")
    return text
