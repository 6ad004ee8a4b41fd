"""The agent: a question goes out, deltas come back, become units, utterances, sound.

One sentence: `ConversationAgent` connects the stages and owns their lives.
What it does not do: any stage itself. Read it after `conversation` (who speaks) and `tts_queue` (what sounds).

One lock guards the conversation and the turns. It is held for microseconds, never while a handler of yours runs, and never across a wait.
"""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..conversation import Conversation, Delta, Ended, Outcome, SessionConfig, SessionReady, SessionRefused, Stuck
from ..costs import Cost
from ..errors import ConnectionFailed, InputError, ServerRefused, VoiceHelperError
from ..events import ErrorEvent, Event, EventLog
from ..player import Player
from ..realtime import RealtimeConnection
from ..settings import Secret, Settings
from ..speech import Utterance
from ..ssml import Voice, legal_text
from . import live
from .handlers import Handlers
from .speaker import Speaker
from .turn import Stream, Turn

MAX_CHARS = 32_000
CONFIRM_S = 10.0
CONNECT_AGAIN = "Run the cell with connect() again."
KEEP_SOUND = 20  # turns whose PCM stays


class ConversationAgent(AbstractContextManager):
    """A voice conversation. Make one with `ConversationAgent.connect()`.

    Attributes:
        where: one sentence: where we are connected.
        player: the loudspeaker; `display(agent.player)` puts it on the page.
        conversation: the state of the session.
        events: the masked log of both directions.
        turns: all turns, oldest first.
        voice: may be set at any time; acts from the next utterance.
        session: what was asked of the session.
    """

    def __init__(self, settings: Settings, *, session: SessionConfig | None, voice: Voice | None, player: Player, practice: Any = None):
        self.settings, self.player, self.voice = settings, player, voice or Voice()
        self.practice = practice  # the practice server's process, if this agent owns one
        self.session = session or SessionConfig()
        self.conversation = Conversation(self.session)
        self.events = EventLog(settings.mask)
        self.turns: list[Turn] = []
        self._lock = threading.RLock()  # guards conversation and turns: the reader, cells and callbacks all come here
        self._handlers = Handlers(settings.mask)
        self._answers: queue.SimpleQueue[VoiceHelperError | None] = queue.SimpleQueue()  # to our session.update: None is yes
        self._closed = False
        self.connection = RealtimeConnection(settings, on_event=self._receive, on_tick=self._tick, on_closed=self._lost)
        self._speaker = Speaker(settings, player, lambda: self.voice)
        self.queue = self._speaker.queue
        self.queue.on_change = self._spoke

    @classmethod
    def connect(
        cls,
        settings: Settings | None = None,
        *,
        session: SessionConfig | None = None,
        voice: Voice | None = None,
        player: Player | None = None,
        replace: bool = True,
    ) -> "ConversationAgent":
        """Connect, ask for the session, and return when the service has confirmed it.

        Args:
            settings: None reads `.env` and the environment: keys mean Azure, nothing configured means the practice server.
            session: None is `SessionConfig()`.
            voice: None is `Voice()`.
            player: None is the loudspeaker of the notebook, or a silent one elsewhere.
            replace: close the agent that an earlier run of the cell made, and go on with its loudspeaker and its practice server.

        Raises:
            SettingsError: half-configured or wrong.
            KeyRefused, DeploymentNotFound, RateLimited, ServerRefused, ConnectionFailed: there is no session, and why.
        """
        from ..notebook import loudspeaker  # the one line that looks up to that room

        settings = settings or Settings.load()
        before = live.current() if replace else None
        with ExitStack() as unless_connected:
            practice = live.practice_server(settings, before)
            if practice is not None:
                unless_connected.callback(practice.close)
                settings = Settings.practice(practice.realtime_url, practice.speech_host, Secret(practice.key))
            if before is not None:
                before.close()
            player = player or loudspeaker(before and before.player)
            agent = unless_connected.enter_context(cls(settings, session=session, voice=voice, player=player, practice=practice))
            agent._ask_for(agent.session)
            unless_connected.pop_all()
        live.agents()[agent] = replace
        return agent

    @property
    def where(self) -> str:
        return f"{self.settings.where}{' (closed)' if self._closed else ''}"

    # -- asking

    def start(self, text: str) -> Turn:
        """Ask, and return at once: what a widget's callback uses.

        Args:
            text: 1 to 32,000 characters; control characters and broken surrogates are repaired.

        Raises:
            InputError: the text is empty or too long. ConnectionFailed: the agent is closed or the connection is lost.
        """
        text = _checked(text)
        try:
            with self._lock:
                if not self._closed and not self.connection.is_open:
                    raise ConnectionFailed("the connection is lost", hint=CONNECT_AGAIN)
                turn = self._new_turn(text)
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
        """
        wanted = dataclasses.replace(self.session, **fields)
        if self._closed or not self.connection.is_open:
            raise ConnectionFailed("there is no connection", hint=CONNECT_AGAIN)
        try:
            self._ask_for(wanted)
        except BaseException:
            self.conversation.config = self.session
            raise
        self.session = wanted

    @property
    def cost(self) -> Cost:
        """What all turns cost so far: an estimate from list prices (see `costs`)."""
        return sum((turn.cost for turn in self.turns), Cost())

    def interrupt(self) -> None:
        """Stop: no more text and no more sound of what runs now. Waits for nothing; any time, any thread."""
        with self._lock:
            self._hush("interrupted")

    def close(self) -> None:
        """End everything this agent started, within 3 seconds. Twice is once; also leaving `with` and ending the interpreter."""
        deadline = time.monotonic() + 3.0
        with self._lock:
            if self._closed:
                return
            self._closed = True
            practice, self.practice = self.practice, None  # from here on nobody takes it over
            self._hush("closed")
        self._speaker.close()
        self.connection.close(max(0.2, min(1.0, deadline - time.monotonic())))
        if practice is not None:
            practice.close(max(0.2, deadline - time.monotonic()))
        live.agents().pop(self, None)

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ConversationAgent: {self.where}; {len(self.turns)} turns>"

    # -- handlers: plain functions, run on the reader thread

    def on_open(self, function: Callable[[], None]) -> Callable[[], None]:
        """Call `function()` when the connection is open; at the next tick if it is open already. Usable as a decorator, like the other three."""
        self.connection.call_soon(lambda: self._handlers.call([function]))
        return function

    def on_message(self, function: Callable[[Event], None]) -> Callable[[Event], None]:
        """Call `function(event)` for every server event, on the reader thread: be quick, never wait."""
        self._handlers.message.append(function)
        return function

    def on_error(self, function: Callable[[Exception], None]) -> Callable[[Exception], None]:
        """Call `function(error)` for errors the service reports, for a lost connection, and for exceptions in your other handlers."""
        self._handlers.error.append(function)
        return function

    def on_close(self, function: Callable[[int | None, str], None]) -> Callable[[int | None, str], None]:
        """Call `function(code, reason)` once, when the connection is over."""
        self._handlers.close.append(function)
        return function

    # -- from the reader thread

    def _receive(self, event: Event) -> None:
        with self._lock:
            outcomes = self.conversation.receive(event, time.monotonic())
            self.events.add("received", event.raw, self.conversation.turn_of(event))
            self._apply(outcomes)
            self._send()
        if isinstance(event, ErrorEvent) and event.error.get("code") != "response_cancel_not_active":
            self._handlers.report(ServerRefused(str(event.error.get("message") or event.error.get("code"))))
        self._handlers.call(self._handlers.message, event)

    def _tick(self) -> None:
        with self._lock:
            self._apply(self.conversation.tick(time.monotonic()))
            self._send()
            if self.turns and self.turns[-1].held:
                self._speaker.speak(self.turns[-1], [])

    def _lost(self, code: int | None, reason: str) -> None:
        error = ConnectionFailed(f"the connection was lost ({reason})")
        with self._lock:
            self._apply(self.conversation.lost(error.message))
        self._answers.put(error)
        if not self._closed:
            self._handlers.report(error)
        self._handlers.call(self._handlers.close, code, reason)

    def _apply(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case SessionReady():
                    self._answers.put(None)
                case SessionRefused(reason):
                    self._answers.put(ServerRefused(f"the session was refused: {reason}"))
                case Delta(turn, text):
                    turn.mark("first_delta")
                    self._speaker.speak(turn, turn.splitter.feed(text))
                case Stuck():
                    self.connection.abort("the service does not answer any more")
                case Ended(turn):
                    self._speaker.speak(turn, turn.splitter.flush(), last=True)
                    turn.mark("text_done")
                    self._speaker.announce(turn, turn is self.turns[-1])

    def _spoke(self, utterance: Utterance) -> None:
        """The queue says that an utterance moved."""
        turn = next((turn for turn in reversed(self.turns) if turn.id == utterance.turn_id), None)
        if turn is not None:
            turn.mark("moved")
            turn.heard_chars = len(turn.heard_text)
            self._speaker.announce(turn, turn is self.turns[-1])

    # -- inside

    def _ask_for(self, session: SessionConfig) -> None:
        """Ask for a session, and return when the service has confirmed it; raises what it says instead."""
        with self._lock:
            while not self._answers.empty():
                self._answers.get()
            self.conversation.config = session
            self.conversation.open()
            self._send()
        try:
            refusal = self._answers.get(timeout=CONFIRM_S)
        except queue.Empty:
            refusal = ConnectionFailed(f"the service did not confirm the session within {CONFIRM_S:.0f} s")
        if refusal is not None:
            raise refusal

    def _new_turn(self, text: str) -> Turn:
        """End what runs, silence what sounds, and make the next turn. With the lock held, so that two askers get one order."""
        if self._closed:
            raise ConnectionFailed("the agent is closed", hint=CONNECT_AGAIN)
        if hasattr(self.player, "attend"):  # in the cell that asks: a loudspeaker that is not on the page says how to get there
            self.player.attend()
        turn = Turn(self, text, self._hush("a new message came"))
        self.turns.append(turn)
        for old in self.turns[-KEEP_SOUND - 1 : -KEEP_SOUND]:
            for utterance in old.utterances:
                utterance.clip = None
        return turn

    def _hush(self, reason: str) -> int:
        """Silence what sounds and cancel what runs. With the lock held; returns the new generation of the queue."""
        generation = self.queue.interrupt(reason)
        for turn in self.turns[-1:]:
            if self.conversation.cancel(turn, reason):
                turn.held.clear()
                turn.mark("text_done")
        self._send()
        return generation

    def _send(self) -> None:
        for message, turn in self.conversation.outgoing():
            self.events.add("sent", message, turn and turn.id)
            self.connection.send(message)
            if message["type"] == "response.create":
                turn.mark("sent")


def _checked(text: str) -> str:
    text = legal_text(text)
    if not text.strip():
        raise InputError("the message is empty", hint="Type a sentence.")
    if len(text) > MAX_CHARS:
        raise InputError(f"the message has {len(text):,} characters", hint=f"Shorten it to {MAX_CHARS:,}, or send it in parts.")
    return text
