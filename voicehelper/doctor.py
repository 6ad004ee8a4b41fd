"""Preflight in plain words: `python -m voicehelper.doctor`, or `from voicehelper.doctor import examine` and `examine()` in a cell.
`python -m voicehelper.doctor practice` (or azure) chooses the backend.

One sentence: `examine()` goes the way of one spoken answer, step by step and with the real parts, and says of each step whether it worked, how
long it took, and what to do if it did not.
What it does not do: change a setting, try anything twice, or listen to the sound.
"""

import os
import socket
import sys
import time
from contextlib import ExitStack, suppress
from multiprocessing.pool import ThreadPool

from websocket import _url  # private, but it reads an address as the library will

from . import agent, errors, player, realtime, settings, speech

STEP_S, LAST_S = 10.0, 30.0  # a step has so long (the voice its own limits: 18 s to the first sound, 28 in all), and none is begun later
# the names that are read; and the words that make a name one that was meant for us
READ, WORDS = (*settings.REQUIRED, "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_DEPLOYMENT", "AZURE_SPEECH_TIER"), {"AZURE", "OPENAI", "SPEECH"}
CHAT = ("names", "settings", "host", "network", "handshake", "deployment", "session", "answer")


class _Round(ExitStack):
    """One examination: the settings in force, and what it opened."""

    place = settings.Settings("azure")  # nowhere yet

    def chat(self, given: settings.Settings | None):
        """The steps of `CHAT`: yields what each saw, raises what is wrong."""
        names = {**settings._sealed(settings._read(None)), **settings._sealed(os.environ)}
        found = [name if name in READ else f"{name} (not read)" for name in names if names[name] and WORDS & {*name.upper().split("_")}]
        yield f"found: {', '.join(found) or 'none of the four'}"
        self.place = given or settings.Settings.load()
        if server := agent.live.practice_server(self.place, None, self):
            self.place = settings.Settings.practice(server.realtime_url, server.speech_host, settings.Secret(server.key))
        yield f"{self.place.where}; proxy: {', '.join(name for name in os.environ if name.lower().endswith('_proxy')) or 'none is set'}"
        host, port, _, _ = _url.parse_url(self.place.url)
        proxy, port, *_ = settings.proxy(self.place.url) or (None, port)
        lookup = self.enter_context(ThreadPool(1)).apply_async(socket.getaddrinfo, (proxy or host, port))
        yield f"{proxy or host} is {lookup.get(STEP_S)[0][4][0]}{', the proxy' if proxy else ''}"  # a name server that hangs is left behind
        socket.create_connection((proxy or host, port), STEP_S).close()
        yield "reached"
        # without a voice, which has its own step
        mute = settings.Settings("", self.place.realtime_url, self.place.openai_key, self.place.deployment)
        talk = self.enter_context(agent.ConversationAgent(mute, None, None, player.SilentPlayer()))
        talk.on_error(lambda error: None)  # what the service refuses is raised, too
        yield "accepted (101), and with it the key"
        yield f"{self.place.deployment} is a realtime deployment"
        talk.configure()  # with no field: asks for the session as it is
        yield f"session.update is confirmed, the model is {talk.conversation.session.get('model')}"
        turn = talk.start("What is 2 + 3? Answer with one word.")
        if not turn.wait_text(STEP_S) or turn.status != "done" or not turn.text:
            raise errors.TurnFailed(turn.reason or "no complete answer came", hint="All is well up to here: try again in a minute.")
        yield f"first delta after {turn.timings['first_delta']:.2f} s; the answer: {turn.text!r}"

    def speech(self):
        """One word from the voice; no step where there are no settings."""
        if self.place.realtime_url:
            with speech.AzureSpeech(self.place) as voice:
                clip = voice.synthesize(speech.Utterance("doctor", 0, "Hello."), lambda: False)
            yield f"{clip.utterance.voice.name} said 'Hello.' in {clip.duration_s:.1f} s of sound"


def examine(settings: settings.Settings | None = None, *, out=print) -> list[tuple[str, str, float, str]]:
    """Take every step and show one line of each.

    Args:
        settings: None reads `.env` and the environment.
        out: a function that takes each line as soon as there is one.

    Returns:
        Of each step its name; ✓, ✗ or – (skipped); the seconds it took; what was seen, or what is wrong and what to do about it.
    """
    checks = []
    with _Round() as steps:
        parts = dict.fromkeys(CHAT, steps.chat(settings)) | {"speech": steps.speech()}
        for name, part in parts.items():
            begun, sign = time.monotonic(), "✗"
            try:
                text = next(part, "skipped") if sum(check[2] for check in checks) < LAST_S else "skipped"
                sign = "–" if text == "skipped" else "✓"
            except Exception as error:
                text = str(error if isinstance(error, errors.VoiceHelperError) else realtime._in_words(error, steps.place))
            checks.append((name, sign, time.monotonic() - begun, " ".join(steps.place.mask(text).split())))
            out("{1} {0:<10} {2:5.2f} s  {3}".format(*checks[-1]))
    return checks


if __name__ == "__main__":
    if sys.argv[1:]:
        os.environ["VOICEHELPER_BACKEND"] = sys.argv[1]
    sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    with suppress(KeyboardInterrupt):
        sys.exit(any(sign != "✓" for _, sign, _, _ in examine()))
    sys.exit(130)
