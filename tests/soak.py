"""A long conversation in bad weather, and its judge.

One sentence: `run()` asks a practice server many questions, with the real clients of both services, while faults happen on the wire; `judge()`
compares what the client ended with to what the *server* has logged, and says in words which promise (design, section 11) was broken.
What it does not do: assert anything (test_soak does), or break our own code on purpose (mutants does).

    python -m tests.soak --turns 300 --seed 7

The first half is the judge. It gets plain data and knows nothing of voicehelper: only json, xml.etree and hashlib. The second half is the run.
It has a process of its own, because it makes the limits of our code short (`LIMITS`) and counts threads and files of the whole process.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import json
import logging
import os
import random
import re
import string
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

FINAL = ("done", "partial", "cancelled", "failed")
SHOWN = 8  # so many characters of a key in a row are as good as the key
VOICE = "{http://www.w3.org/2001/10/synthesis}voice"
SILENCE_S = 0.05  # after an interrupt, at the latest
ATTEMPTS, PAUSE_S, MEMORY_TURNS = 3, 0.5, 18  # of a question; before the second; so many turns a new session is told at least


# -- the judge: what the server has logged


class Wire:
    """What one client did, as the server's log tells it.

    Attributes:
        attempts: each `response.create`: of which question, in which session, and the answer that was sent to it.
        sessions: by id: when it began, the messages that the client put into it, each (role, text), and those of them before its first question.
        sounds: each SSML, its words, how it ended, and the hash of its sound.
        handshakes: when each was, and the fault that refused it, if one did.
    """

    def __init__(self, log: list[dict], places: dict[str, str]):
        self.attempts: list[dict] = []
        self.sessions: dict[str, dict] = {}
        self.sounds: list[dict] = []
        self.handshakes: list[tuple[float, str]] = []
        self.faults = Counter(entry["type"] for entry in log if entry["direction"] == "fault")
        self._places, self._responses = places, {}
        for entry in log:
            if entry["direction"] == "fault":
                self._fault(entry)
            elif entry["service"] == "speech":
                self._sound(entry["body"])
            else:
                session = self.sessions.setdefault(entry["session"], {"at": entry["at"], "items": [], "told": None, "open": None})
                getattr(self, f"_{entry['direction']}")(session, entry)

    def of(self, question: str) -> list[dict]:
        """The attempts at a question, oldest first."""
        return [attempt for attempt in self.attempts if attempt["question"] == question]

    def _fault(self, entry: dict) -> None:
        if self._places[entry["type"]] == "handshake":
            self.handshakes.append((entry["at"], entry["type"]))

    def _sound(self, body: dict) -> None:
        whole = 0 < body["pcm_bytes"] == body["bytes_sent"]
        self.sounds.append({"ssml": body["ssml"], "sha": body["sha256"], "outcome": body["outcome"], "whole": whole})
        try:
            self.sounds[-1]["said"] = "".join(ET.fromstring(body["ssml"]).itertext())
        except ET.ParseError:
            self.sounds[-1]["said"] = None

    def _received(self, session: dict, entry: dict) -> None:
        body = entry["body"]
        if entry["type"] == "conversation.item.create":
            session["items"].append((body["item"]["role"], "".join(part["text"] for part in body["item"]["content"])))
        elif entry["type"] == "response.create":
            question = next((text for role, text in reversed(session["items"]) if role == "user"), None)
            attempt = {"question": question, "session": entry["session"], "at": entry["at"]}
            attempt |= {"id": None, "deltas": [], "status": None, "ended": None, "said": ""}
            self.attempts.append(attempt)
            session["open"] = attempt
            if session["told"] is None:
                session["told"] = session["items"][:-1]

    def _sent(self, session: dict, entry: dict) -> None:
        body, kind = entry["body"], entry["type"]
        named = body.get("response_id") or (body.get("response") or {}).get("id")
        attempt = self._responses.get(named)
        if kind == "session.created":
            self.handshakes.append((entry["at"], ""))
        elif kind == "response.created" and session["open"]:
            session["open"]["id"] = named
            self._responses[named], session["open"] = session["open"], None
        elif kind == "response.output_text.delta" and attempt and attempt["status"] is None:  # later ones are strays
            attempt["deltas"].append(body["delta"])
        elif kind == "response.done" and attempt and attempt["status"] is None:
            attempt["status"], attempt["ended"] = body["response"]["status"], entry["at"]
            attempt["said"] = json.dumps(body["response"].get("status_details"))


# -- the judge: one function for each promise


def judge(evidence: dict, key: str) -> tuple[list[str], Counter]:
    """Args: what `run` returns, read from JSON; and the server's key.

    Returns:
        The violations, each in words and beginning with the name of the promise; and how often each promise was looked at.
    """
    violations, looked = [], Counter()
    for agent in evidence["agents"]:
        wire = Wire(agent["log"], evidence["places"])
        for name, promise in PROMISES.items():
            for subject, wrong in promise(agent, wire, evidence):
                looked[name] += 1
                violations += [f"{name} {agent['name']} {subject}: {problem}" for problem in wrong]
    for subject, text in evidence["texts"]:
        looked["I5"] += 1
        shown = next((key[at : at + SHOWN] for at in range(len(key) - SHOWN + 1) if key[at : at + SHOWN] in text), None)
        if shown:
            violations.append(f"I5 {subject}: shows {SHOWN} characters of the key")
    return violations, looked


Looks = Iterator[tuple[str, list[str]]]  # what was looked at, and what is wrong with it


def text_is_what_was_sent(agent: dict, wire: Wire, evidence: dict) -> Looks:
    """I1: done means all deltas of that response, once, in order; anything else has a prefix of them; never text of another response."""
    for turn in agent["turns"]:
        if not turn["question"]:  # spoken as given
            yield turn["id"], [] if turn["text"] == turn["given"] else [f"says {turn['text'][:80]!r} instead of what was given"]
            continue
        wrong, attempts = [], wire.of(turn["question"])
        sent = ["".join(attempt["deltas"]) for attempt in attempts]
        if turn["status"] == "done":
            if not attempts or (turn["text"], "completed") != (sent[-1], attempts[-1]["status"]):
                wrong.append(
                    f"done with {turn['text'][-80:]!r}, the server sent {sent[-1][-80:] if sent else None!r} ({len(turn['text'])} characters)"
                )
        elif turn["text"] and not any(text.startswith(turn["text"]) for text in sent):
            wrong.append(f"{turn['status']} with {turn['text'][-80:]!r}, which is no beginning of what was sent")
        told = [attempt for attempt in attempts if attempt["status"] == "completed" and ["response.done", attempt["id"]] in agent["shown"]]
        if told and turn["status"] not in ("done", "cancelled"):
            wrong.append(f"{turn['status']} ({turn['reason']}), but the client was told that the answer is complete")
        if turn["text"] != turn["again"]["text"]:
            wrong.append("its text changed after its end")
        if "".join(turn["pieces"]) != turn["text"]:
            wrong.append("its pieces are not its text")
        yield turn["id"], wrong


def every_ask_ends_once(agent: dict, wire: Wire, evidence: dict) -> Looks:
    """I2: exactly one status, with a reason unless done, in time; after the storm a question is answered."""
    for turn in agent["turns"]:
        wrong = []
        if turn["status"] not in FINAL:
            wrong.append(f"is still {turn['status']} after {turn['seconds']:.1f} s")
        elif turn["seconds"] > evidence["limit_s"]:
            wrong.append(f"ended as {turn['status']} only after {turn['seconds']:.1f} s, the limit is {evidence['limit_s']:.0f} s")
        if turn["status"] != turn["again"]["status"] or turn["reason"] != turn["again"]["reason"]:
            wrong.append(f"was {turn['status']} ({turn['reason']}) and then {turn['again']['status']} ({turn['again']['reason']})")
        if turn["status"] != "done" and not turn["reason"]:
            wrong.append(f"{turn['status']} without a reason")
        if turn["status"] == "done" and turn["reason"]:
            wrong.append(f"done, and still with the reason {turn['reason']!r}")
        if turn["overdue"]:
            wrong.append("the call did not return: it had to be interrupted")
        if turn["calm"] and (turn["status"], turn["speech"]) != ("done", "spoken"):
            wrong.append(f"asked when all faults were over, but {turn['status']} ({turn['reason']}), speech {turn['speech']}")
        yield turn["id"], wrong + turn["problems"]
    yield "the agent", agent["problems"]


def every_utterance_ends_once(agent: dict, wire: Wire, evidence: dict) -> Looks:
    """I3: spoken, cancelled or failed with a reason; in order, one at a time; together they are the text; their sound is the server's."""
    for turn in agent["turns"]:
        said, text = "".join("".join(item["text"] for item in turn["utterances"]).split()), "".join(turn["text"].split())
        wrong = []
        if said != text if turn["status"] == "done" else not text.startswith(said):
            wrong.append(f"{turn['status']}: its utterances say {said[-60:]!r}, its text is {text[-60:]!r}")
        if not turn["text"].startswith(turn["heard"]):
            wrong.append(f"heard {turn['heard'][-60:]!r}, which is no beginning of its text")
        if len(turn["heard"]) != turn["heard_chars"]:
            wrong.append(f"{len(turn['heard'])} characters of it were heard, history keeps {turn['heard_chars']}")
        yield turn["id"], wrong
        for item in turn["utterances"]:
            yield f"{turn['id']}.{item['index']}", list(_utterance(item, turn, agent, wire))
    yield "the loudspeaker", list(_order(agent))
    yield "the speech faults", list(_unnoticed(agent, wire))


def _utterance(item: dict, turn: dict, agent: dict, wire: Wire) -> Iterator[str]:
    sounds = [sound for sound in agent["sounds"] if (sound["turn"], sound["index"]) == (turn["id"], item["index"])]
    if item["status"] not in ("spoken", "cancelled", "failed"):
        yield f"is still {item['status']}"
    if item["status"] in ("cancelled", "failed") and not item["reason"]:
        yield f"{item['status']} without a reason"
    if len(sounds) > 1:
        yield f"sounded {len(sounds)} times"
    if item["status"] == "cancelled" and sounds and "cancelled" in item["times"]:
        late_s = (sounds[0]["begin"] + sounds[0]["heard_s"]) / agent["speed"] - item["times"]["cancelled"]
        if late_s > SILENCE_S and sounds[0]["heard_s"] == sounds[0]["duration_s"]:  # to its end: nobody stopped it
            yield f"went on sounding for {late_s:.2f} s after it was cancelled"
    if item["status"] == "spoken" and item["spoken"].strip():
        whole = [
            sound["sha"] for sound in wire.sounds if sound["said"] == item["spoken"] and sound["whole"] and sound["outcome"] == "completed"
        ]
        if not sounds or sounds[0]["heard_s"] < sounds[0]["duration_s"] - 0.01:
            yield f"spoken, but the loudspeaker had {sounds}"
        elif sounds[0]["sha"] not in whole:
            yield "spoken with another sound than the server made for these words"


def _order(agent: dict) -> Iterator[str]:
    """The order of the sound is the order of the text, and nothing sounds twice at a time, whether one asks the loudspeaker or the queue."""
    place = {turn["id"]: number for number, turn in enumerate(agent["turns"])}
    order = [(place[sound["turn"]], sound["index"]) for sound in agent["sounds"]]
    if order != sorted(order):
        yield f"sounded in the order {order}"
    spans = [
        (item["times"].get("playing", item["times"]["spoken"]), item["times"]["spoken"], f"{turn['id']}.{item['index']}")
        for turn in agent["turns"]
        for item in turn["utterances"]
        if item["status"] == "spoken" and item["spoken"].strip() and "spoken" in item["times"]
    ]
    for (_, end, one), (begin, _, other) in zip(spans, spans[1:], strict=False):
        if begin < end:
            yield f"{one} and {other} were spoken at once"
    for one, other in zip(agent["sounds"], agent["sounds"][1:], strict=False):
        if other["begin"] < one["begin"] + one["heard_s"] - 1e-6:
            yield f"{one['turn']}.{one['index']} and {other['turn']}.{other['index']} sounded at once"


def _unnoticed(agent: dict, wire: Wire) -> Iterator[str]:
    """A fault of speech is told in the reason of an utterance, or made good by another request for the same words."""
    words = [sound["said"] for sound in wire.sounds]
    for sound in wire.sounds:
        if sound["outcome"] == "completed" and sound["whole"]:
            continue
        meant = [item for turn in agent["turns"] for item in turn["utterances"] if item["spoken"] == sound["said"]]
        told = any(item["status"] in ("failed", "cancelled") and item["reason"] for item in meant)
        if not told and words.count(sound["said"]) < 2:
            yield f"nobody was told that {str(sound['said'])[:60]!r} ended as {sound['outcome']}"


def nothing_is_left(agent: dict, wire: Wire, evidence: dict) -> Looks:
    """I4: after close() there is what there was after a warm-up agent."""
    left, warm, found = agent["left"], evidence["warm"], agent["found"]
    grown = [what for what in warm if left[what] > max(warm[what], found[what])]
    wrong = [f"{left[what]} {what} after close(), {found[what]} before connect(), {warm[what]} after the first agent" for what in grown]
    yield "after close()", wrong + [f"the thread {name} still runs when close() returns" for name in agent["threads"]]


def nothing_is_asked_twice(agent: dict, wire: Wire, evidence: dict) -> Looks:
    """I7: no question again once a word of its answer was shown; at most three times; not before the server allows it; nothing else in between."""
    questions = Counter(turn["question"] for turn in agent["turns"] if turn["question"])
    for attempt in wire.attempts:
        if attempt["question"] not in questions:
            yield "a question", [f"nobody asked {str(attempt['question'])[:80]!r}"]
    shown, over = set(), set()
    for kind, named in agent["shown"]:  # a delta after the end of its response is not shown
        if kind == "response.done":
            over.add(named)
        elif named not in over:
            shown.add(named)
    for turn in agent["turns"]:
        attempts = wire.of(turn["question"]) if turn["question"] else []
        wrong = [f"asked {len(attempts)} times"] if len(attempts) > ATTEMPTS else []
        wrong += ["asked again after words of its answer were shown" for attempt in attempts[:-1] if attempt["id"] in shown]
        for one, other in zip(attempts, attempts[1:], strict=False):
            if one["session"] == other["session"] and not one["ended"]:
                wrong.append("asked again while its answer ran")
            elif one["session"] == other["session"]:
                wait = re.search(r"again in ([\d.]+) ?s", one["said"])
                wait, paused = float(wait[1]) if wait else PAUSE_S, other["at"] - one["ended"]
                wrong += [f"asked again after {paused:.2f} s, not {wait} s"] if paused < wait - 0.05 else []
        for session in wire.sessions.values():
            count = session["items"].count(("user", turn["question"]))
            wrong += [f"its question stands {count} times in a session"] if turn["question"] and count > 1 else []
        yield turn["id"], wrong
    for (at, fault), (after, _) in zip(wire.handshakes, wire.handshakes[1:], strict=False):
        wait = evidence["retry_after_s"].get(fault, 0)
        yield "a handshake", [f"{after - at:.2f} s after {fault}, which says {wait} s"] if after - at < wait - 0.05 else []
    for number, session in enumerate(wire.sessions.values()):
        yield f"session {number + 1}", list(_told(session, agent))


def _told(session: dict, agent: dict) -> Iterator[str]:
    """A new session is told the history: the last turns that were over when it began, in order, each answer as far as it was heard, and a mark."""
    told = session["items"] if session["told"] is None else session["told"]
    past = [*agent["before"], *(turn for turn in agent["turns"] if turn["question"] and turn["begun"] < session["at"])]
    place, last = {turn["question"]: number for number, turn in enumerate(past)}, -1
    asked = session["told"] is not None  # else the session was over before it began, and was perhaps not told all
    needed = {turn["question"] for turn in past[-MEMORY_TURNS:] if asked and turn["over"] < session["at"]}
    for missing in needed - {text for role, text in told if role == "user"}:
        yield f"is not told {missing[:60]!r}"
    for role, text in told:
        if role == "user":
            if place.get(text, -1) <= last:
                yield f"is told {text[:60]!r}, which is not what comes then"
            last = place.get(text, last)
        elif last < 0:
            yield f"is told an answer {text[:60]!r} without its question"
        else:
            yield from _heard(text, past[last], session, agent)


def _heard(told: str, turn: dict, session: dict, agent: dict) -> Iterator[str]:
    """An answer of the past is told as far as it had been heard then; what was heard at the last loss, and in the end, are its bounds."""
    heard, mark = told, ""
    if found := re.fullmatch(r"(.*?)( \[[^\[\]]{10,60}\])", told, re.DOTALL):
        heard, mark = found.groups()
    snapshots = [closing["heard"] for closing in agent["closings"] if closing["at"] <= session["at"]]
    least, most = snapshots[-1].get(turn["id"], 0) if snapshots else 0, turn["heard_chars"]
    least = most if turn in agent["before"] else least
    if not turn["text"].startswith(heard):
        yield f"is told {heard[-60:]!r}, which was not the answer to {turn['question'][:60]!r}"
    elif not least <= len(heard) <= most:
        yield f"is told {len(heard)} characters of {turn['id']}, between {least} and {most} were heard"
    elif bool(turn["text"][len(heard) :].strip()) != bool(mark):
        yield f"is told {told[-80:]!r}: marked or not, it is not so"


def every_ssml_is_one_voice(agent: dict, wire: Wire, evidence: dict) -> Looks:
    """I8: it parses, has one voice, is smaller than 64 KB."""
    for sound in wire.sounds:
        try:
            voices = len(list(ET.fromstring(sound["ssml"]).iter(VOICE)))
            wrong = [] if voices == 1 else [f"{voices} voices"]
        except ET.ParseError as error:
            wrong = [f"does not parse ({error})"]
        if len(sound["ssml"].encode()) >= 64 * 1024:
            wrong.append("64 KB or more")
        yield f"SSML {sound['ssml'][-100:]!r}", wrong


PROMISES: dict[str, Callable[[dict, Wire, dict], Looks]] = {
    "I1": text_is_what_was_sent,
    "I2": every_ask_ends_once,
    "I3": every_utterance_ends_once,
    "I4": nothing_is_left,
    "I7": nothing_is_asked_twice,
    "I8": every_ssml_is_one_voice,
}


# -- the run: its own short limits, a loudspeaker, the weather

SPEED = 60.0  # of the loudspeaker's clock
AGENT_TURNS = 20  # then comes another agent, which is told the last of them
TOLD_TURNS = 6
LIMIT_S = 20.0  # for the text of one turn: three attempts, each of FIRST_EVENT_S at most, and the pauses between them, twice
SERVER = ("--tokens-per-second", "40", "--session-seconds", "124")  # a session is renewed 120 s before its end: every 4 s, between turns
TIME_SCALE = "20"  # of the server: 800 tokens a second, and the fault that waits five seconds waits a quarter of one
LIMITS = {  # the patience of our code, in seconds; the real ones, up to a minute, would make a soak of an hour
    "conversation": {"FIRST_EVENT_S": 2.5, "DELTA_GAP_S": 1.5, "CONFIRM_S": 2.5, "CANCEL_S": 1.5},
    "speech": {"FIRST_BYTE_S": 2.5, "WHOLE_S": 3.5},
    "tts_queue": {"PERIOD_S": 0.5},  # of the free tier: after the first 429 the queue makes 18 requests in this time
}
SLOW = {
    "half_frame": 0.004,
    "stall": 0.006,
    "speech_silent": 0.003,
    "speech_closed_1000": 0.003,
    "speech_stall_mid_audio": 0.003,
    "rate_limit_handshake": 0.02,
}
USUAL = {"handshake": 0.04, "update": 0.03, "response": 0.02, "speech_handshake": 0.04, "speech": 0.008}
WAYS = {"ask": 9, "stream": 4, "break_off": 1, "interrupt": 2, "barge_in": 2, "speak": 1, "cut": 2}  # to ask, and how often each
LATENCY_MS = 2000  # of the server, before a first word that is to be cut off; a twentieth of it with TIME_SCALE
# what makes a place be reached again
LATE = {"handshake": "drop_mid_answer", "update": "reset_mid_frame", "speech_handshake": "speech_close"}
FOREIGN = ["🎉", "👩‍👩‍👧", "日本語", "你好，世界。", "é", "\u05e9\u05dc\u05d5\u05dd"]
SIGNS = ["R&D", "a < b", "<b>bold</b>", "&amp;", "**stars**", "`x <y && z`", "[link](http://x.invalid)", "\"'", "|"]
VALUES = {"speech_status": (200, 403, 429, 500, 503), "speech_close": (1001, 1007, 1008, 1011, 4429)}


class Loudspeaker:
    """A loudspeaker with a fast clock: takes clips as a page does, and notes what sounded from when to when."""

    def __init__(self):
        self._lock, self._end = threading.Lock(), 0.0
        self.sounds: list[dict] = []
        self.notices: list[str] = []

    def enqueue(self, clip) -> None:
        with self._lock:
            if clip.utterance.status == "cancelled":
                return
            begin = max(self._end, time.monotonic() * SPEED)
            self._end = begin + clip.duration_s
            sound = {"turn": clip.utterance.turn_id, "index": clip.utterance.index, "sha": hashlib.sha256(clip.pcm).hexdigest()}
            self.sounds.append({**sound, "begin": begin, "duration_s": clip.duration_s, "heard_s": clip.duration_s})

    def stop(self) -> None:
        with self._lock:
            at, self._end = time.monotonic() * SPEED, 0.0
            for sound in self.sounds[-3:]:
                sound["heard_s"] = min(sound["heard_s"], max(0.0, at - sound["begin"]))

    @property
    def pending_s(self) -> float:
        return max(0.0, self._end - time.monotonic() * SPEED)

    def notice(self, line: str) -> None:
        self.notices.append(line)


class Server:
    """The practice server's two paths for the curious: its log, and its faults. Args: its addresses and its key."""

    def __init__(self, host: str, key: str):
        self.host, self.key = host, key
        self.table = self._http("/practice/faults", key)["faults"]

    def log(self, name: str) -> list[dict]:
        return self._http("/practice/log", f"{self.key}~{name}")["entries"]

    def arm(self, name: str, faults: list[str], seed: int = 0, latency_ms: float = 0) -> None:
        body = {"faults": faults, "seed": seed, "latency_ms": latency_ms}
        self._http("/practice/faults", f"{self.key}~{name}", json.dumps(body).encode())

    def _http(self, path: str, key: str, body: bytes | None = None) -> dict:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.host + path, body, {"api-key": key}), timeout=10) as answer:
            return json.load(answer)


class Weather:
    """Which faults are armed for the next turn: all of them at their rates, and before them one that was not met yet."""

    def __init__(self, server: Server, dice: random.Random):
        self._server, self._dice = server, dice
        self.unmet, self._kept = sorted(server.table), []
        dice.shuffle(self.unmet)

    def next(self) -> list[str]:
        rates = [f"{self._text(name)}@{SLOW.get(name, USUAL[row['where']]):g}" for name, row in self._server.table.items()]
        self._dice.shuffle(rates)
        certain, self._kept = self._kept, []
        for is_speech in (False, True):  # of each service one, and what leads there
            found = [name for name in self.unmet if name.startswith("speech") == is_speech][:1]
            late = [name for name in found if self._server.table[name]["where"] in LATE]
            certain = certain + [LATE[self._server.table[name]["where"]] for name in late] + found
            self._kept += late  # the connection is opened again when somebody asks again
            self.unmet = [name for name in self.unmet if name not in found] + found  # the next one first, then this one again
        return [self._text(name) for name in certain] + rates

    def met(self, log: list[dict]) -> None:
        seen = {entry["type"] for entry in log if entry["direction"] == "fault"}
        self.unmet = [name for name in self.unmet if name not in seen]

    def _text(self, name: str) -> str:
        return f"{name}={self._dice.choice(VALUES[name])}" if name in VALUES else name


def question(dice: random.Random) -> str:
    """A question nobody asked before; many answers repeat what is in it."""
    word = "".join(dice.choices(string.ascii_lowercase, k=9)).capitalize()
    odd = dice.sample(FOREIGN + SIGNS, 4)
    kinds = [
        f"I like {' '.join(odd)} and {word}.",
        f"Tell me a joke about programmers, {word} {odd[0]}",
        f"{word} {' '.join(odd)}",
        f"Show me some Markdown, {word}",
        f"Write something with many numbers about {word}\n{odd[1]}",
        f"Explain queues in 60 words, {word}",
    ]
    return dice.choices(kinds, [6, 4, 4, 2, 1, 2])[0]


# -- the run: one agent


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it became true in time."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        pause.wait(0.005)
    return bool(condition())


class Talk:
    """One agent, from connect() to close(), and what it did. Args: the server, a name, the dice, the limit of a turn, the conversation before."""

    def __init__(self, server: Server, name: str, dice: random.Random, limit_s: float, before=None):
        from voicehelper import ConversationAgent, Voice
        from voicehelper.settings import Secret, Settings

        self.server, self.name, self.dice, self.limit_s = server, name, dice, limit_s
        self.found, self._others = _resources(), set(threading.enumerate())
        self.player, self.turns, self.problems, self.errors, self.closings = Loudspeaker(), [], [], [], []
        self.shown: list[list] = []  # type and response of each event that the client was given
        place, key = server.host.replace("http://", "ws://"), Secret(f"{server.key}~{name}")
        settings = Settings.practice(f"{place}/openai/v1/realtime", place, key)
        voice, told = dice.choice([Voice(), Voice.calm(), Voice.energetic()]), {"conversation": before} if before else {}
        self.before = [_past(turn) for turn in before.turns] if before else []
        self.agent = ConversationAgent.connect(settings, voice=voice, player=self.player, replace=False, **told)
        self.agent.on_message(self._message)
        self.agent.on_error(lambda error: self.errors.append(f"{type(error).__name__}: {error}"))
        self.agent.on_close(self._closed)

    def _closed(self, code, reason) -> None:
        self.closings.append({"at": time.time(), "said": f"{code} {reason}", "heard": self._heard()})

    def _message(self, event) -> None:
        named = event.raw.get("response_id") or (event.raw.get("response") or {}).get("id")
        if event.type in ("response.output_text.delta", "response.done"):
            self.shown.append([event.type, named])

    def _heard(self) -> dict[str, int]:
        return {turn.id: turn.heard_chars for turn in self.agent.turns if turn.user_text and turn.status != "running"}

    # -- the ways to ask

    def turn(self, how: str, calm: bool = False) -> None:
        """One turn in one of these ways, judged later; most of the time until its sound is over, too."""
        overdue = threading.Event()
        dog = threading.Timer(self.limit_s + 1, lambda: (overdue.set(), self.agent.interrupt()))
        dog.daemon = True
        dog.start()
        begun, begun_at, known, problems = time.monotonic(), time.time(), len(self.agent.turns), []
        try:
            problems = getattr(self, f"_{how}")(question(self.dice)) or []
        except Exception as error:
            self.problems.append(f"{how} raised {type(error).__name__}: {error}")
            self.errors.append(traceback.format_exc())
        seconds = time.monotonic() - begun
        dog.cancel()
        dog.join()
        for made in self.agent.turns[known:]:
            is_over = {"seconds": seconds, "overdue": overdue.is_set(), "problems": problems, "calm": calm, "given": made.text}
            self.turns.append((made, {**is_over, "begun": begun_at, "over": time.time(), **_state(made)}))
        if self.turns and (calm or self.dice.random() < 0.75):
            made, state = self.turns[-1]
            if not made.wait(self.limit_s):
                state["problems"] = [*problems, f"its sound was not over after {self.limit_s:.0f} s: {made.utterances}"]
            state["speech"] = made.speech

    def _ask(self, text: str) -> None:
        self.agent.ask(text)

    def _stream(self, text: str) -> list[str]:
        from voicehelper.errors import TurnFailed

        with self.agent.stream(text) as stream:
            told, failed = [], False
            try:
                told.extend(stream)
            except TurnFailed:
                failed = True
        wrong = [] if "".join(told) == stream.turn.text else [f"the stream gave {''.join(told)[-60:]!r}"]
        if failed != (stream.turn.status == "failed"):
            wrong.append(f"is {stream.turn.status}, but TurnFailed was{' ' if failed else ' not '}raised")
        return wrong

    def _break_off(self, text: str) -> None:
        from voicehelper.errors import TurnFailed

        count = self.dice.randrange(1, 30)
        with contextlib.suppress(TurnFailed), self.agent.stream(text) as stream:
            for number, _ in enumerate(stream):
                if number == count:
                    break

    def _interrupt(self, text: str) -> None:
        self._moment(self.agent.start(text))
        self.agent.interrupt()

    def _barge_in(self, text: str) -> None:
        self._moment(self.agent.start(text))
        self.agent.ask(question(self.dice))

    def _cut(self, text: str) -> None:
        """The socket is lost at any moment, often before the first word: no fault of the server does that."""
        turn = self.agent.start(text)
        wait_for(lambda: False, self.dice.uniform(0, 0.2))
        self.agent.connection.abort("cut by the soak")
        turn.wait_text()

    def _speak(self, text: str) -> None:
        self.agent.speak_response(f"{text} So 1 < 2 & 3 > 2, <break/> or not.")

    def _moment(self, turn) -> None:
        """Some moment in the life of a turn, at the latest its end."""
        count, sounds = self.dice.choice([0, 1, 5, 20]), self.dice.random() < 0.3
        seconds = self.dice.choice([self.limit_s, self.dice.random()])  # the second may come while it waits to be asked again
        wait_for(lambda: turn.status != "running" or (turn.speech != "none" if sounds else len(turn.pieces) >= count), seconds)

    # -- the end

    def close(self, allowed: dict[str, int] | None = None) -> dict:
        """Close the agent, and say what it did, and what is left of it. `allowed`: what may be left; it has some seconds to get there."""
        self.agent.close()
        left = [thread.name for thread in threading.enumerate() if thread not in self._others]
        if allowed:  # the Speech SDK ends its threads a little later
            wait_for(lambda: all(count <= max(self.found[what], allowed[what]) for what, count in _resources().items()), 5)
        turns = [{**state, "again": _state(made), **_whole(made)} for made, state in self.turns]
        return {
            "name": self.name,
            "turns": turns,
            "before": self.before,
            "problems": self.problems,
            "errors": self.errors,
            "shown": self.shown,
            "closings": self.closings,
            "sounds": self.player.sounds,
            "speed": SPEED,
            "threads": left,
            "found": self.found,
            "left": _resources(),
            "log": self.server.log(self.name),
        }

    def texts(self, folder: Path) -> Iterator[tuple[str, str]]:
        """Everything of ours that somebody could read."""
        from voicehelper import history

        agent = self.agent
        yield "the agent", f"{agent!r} {agent.where} {vars(agent)!r} {agent.settings} {vars(agent.conversation)!r} {agent.cost!r}"
        yield "the events", repr([(entry, entry.body) for entry in agent.events])
        yield "the turns", "\n".join(f"{turn!r} {turn.reason} {turn.utterances!r} {turn._repr_html_()}" for turn in agent.turns)
        yield "the notices", "\n".join(self.player.notices)
        yield "the errors", "\n".join(self.errors)
        yield "the history", history.save(agent.conversation, folder / f"{self.name}.json").read_text("utf-8")
        yield "the page", history.to_markdown(agent.conversation)
        if hasattr(agent.events, "save"):
            agent.events.save(folder / f"{self.name}.jsonl")
            yield "the saved events", (folder / f"{self.name}.jsonl").read_text("utf-8")


def _past(turn) -> dict:
    """A turn that the agent was told of when it began."""
    return {"id": turn.id, "question": turn.user_text, "text": turn.text, "heard_chars": turn.heard_chars, "over": 0.0}


def _state(turn) -> dict:
    return {"status": turn.status, "reason": turn.reason, "text": turn.text}


def _whole(turn) -> dict:
    names = ("index", "text", "spoken", "status", "reason", "attempts", "times")
    utterances = [{name: getattr(item, name) for name in names} for item in turn.utterances]
    heard = {"heard": turn.heard_text, "heard_chars": turn.heard_chars, "speech": turn.speech}
    return {"id": turn.id, "question": turn.user_text, "pieces": list(turn.pieces), "utterances": utterances, **heard}


def _resources() -> dict[str, int]:
    import psutil

    process = psutil.Process()
    files = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    return {"threads": process.num_threads(), "files": files, "children": len(process.children(recursive=True))}


# -- the run: all of it


def run(server: Server, turns: int, seed: int, script: list[tuple[str, list[str]]] | None = None, limit_s: float = LIMIT_S) -> dict:
    """Ask that many questions.

    Args:
        script: the way and the faults of each turn; None leaves both to the seed.

    Returns:
        The evidence, plain data.
    """
    dice, weather = random.Random(seed), Weather(server, random.Random(seed))
    started = time.monotonic()
    table = server.table.items()
    evidence = {"seed": seed, "limit_s": limit_s, "places": {name: row["where"] for name, row in table}, "agents": [], "texts": []}
    evidence["retry_after_s"] = {name: row["retry_after_s"] for name, row in table if "retry_after_s" in row}
    first = Talk(server, f"warm{seed}", random.Random(seed), limit_s)
    first.turn("ask", calm=True)
    first.close()
    wait_for(lambda: _resources() == first.found, 1)  # the Speech SDK keeps some threads of its own
    evidence["warm"] = _resources()
    plan = script or [("", [])] * turns
    before = None
    with tempfile.TemporaryDirectory() as folder:
        for begin in range(0, len(plan), AGENT_TURNS):
            talk = Talk(server, f"soak{seed}n{begin}", dice, limit_s, before)
            for number, (how, faults) in enumerate(plan[begin : begin + AGENT_TURNS]):
                how = how or dice.choices(*zip(*WAYS.items(), strict=True))[0]
                server.arm(talk.name, faults if script else weather.next(), seed + begin + number, LATENCY_MS if how == "cut" else 0)
                talk.turn(how)
                weather.met(server.log(talk.name))
            server.arm(talk.name, [])
            talk.turn("ask", calm=True)
            evidence["texts"] += talk.texts(Path(folder))
            evidence["agents"].append(talk.close(evidence["warm"]))
            before = remembered(Path(folder, f"{talk.name}.json"))
    evidence["unmet"], evidence["seconds"] = weather.unmet, time.monotonic() - started
    return evidence


def remembered(path: Path):
    """What the next agent is told: the last turns of a saved conversation."""
    from voicehelper import history

    return history.load(path).trimmed(turns=TOLD_TURNS)


def shorten() -> None:
    """Make the limits of our code short, in this process."""
    import importlib

    for name, limits in LIMITS.items():
        module = importlib.import_module(f"voicehelper.{name}")
        for limit, seconds in limits.items():
            assert hasattr(module, limit), f"voicehelper.{name} has no {limit} any more"
            setattr(module, limit, seconds)


@contextlib.contextmanager
def overheard() -> Iterator[Callable[[], str]]:
    """What is written to stdout and stderr, also by native code, and to any logger."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "heard"), "a", encoding="utf-8") as file:
        sys.stdout.flush()
        kept = [(number, os.dup(number)) for number in (1, 2)]
        handler, root = logging.StreamHandler(file), logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        for number, _ in kept:
            os.dup2(file.fileno(), number)

        def read() -> str:
            for stream in (sys.stdout, sys.stderr, file):
                stream.flush()
            return Path(file.name).read_text("utf-8", "replace")

        try:
            yield read
        finally:
            heard = read()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
            root.removeHandler(handler)
            sys.stderr.write(heard[-4000:])


def summary(evidence: dict, key: str) -> dict:
    """The verdict, and how much of everything there was."""
    violations, looked = judge(json.loads(json.dumps(evidence)), key)
    turns = [turn for agent in evidence["agents"] for turn in agent["turns"]]
    items = [item for turn in turns for item in turn["utterances"]]
    wires = [Wire(agent["log"], evidence["places"]) for agent in evidence["agents"]]
    return {
        "violations": violations,
        "looked at": dict(looked),
        "turns": dict(Counter(turn["status"] for turn in turns)),
        "utterances": dict(Counter(item["status"] for item in items)),
        "reconnects": sum(len(wire.sessions) - 1 for wire in wires),
        "asked again": sum(len(wire.of(turn["question"])) > 1 for wire in wires for turn in turns if turn["question"]),
        "faults": dict(sum((wire.faults for wire in wires), Counter()).most_common()),
        "not met": evidence["unmet"],
        "seconds": round(evidence["seconds"], 1),
        "seed": evidence["seed"],
    }


def served(work: Callable[[Server], dict], kept: str | None = None) -> dict:
    """The verdict on a run with a practice server of its own. Args: the run; a file for the evidence."""
    from voicehelper.practice.launcher import launch

    practice = launch(seed=7, env={"VOICEHELPER_TIME_SCALE": TIME_SCALE}, extra=SERVER)
    try:
        server = Server(practice.speech_host.replace("ws://", "http://"), practice.key)
        with overheard() as written:
            evidence = work(server)
            evidence["texts"].append(("what was written and logged", written()))
        if kept:
            Path(kept).write_text(json.dumps(evidence), "utf-8")
        return summary(evidence, practice.key)
    finally:
        practice.close()


def main() -> int:
    parser = argparse.ArgumentParser("tests.soak", description="Many questions in bad weather, judged by the server's log.")
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--evidence", metavar="FILE", help="write what the judge is given there")
    options = parser.parse_args()
    faulthandler.enable(os.fdopen(os.dup(2), "w"))  # where the crash of a native library is told, whatever stderr is then
    shorten()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    verdict = served(lambda server: run(server, options.turns, seed), options.evidence)
    print(json.dumps(verdict, ensure_ascii=False, indent=1))
    return bool(verdict["violations"])


if __name__ == "__main__":
    sys.exit(main())
