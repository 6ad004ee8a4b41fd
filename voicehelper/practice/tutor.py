"""The scripted tutor: what the practice server answers.

One sentence: `Tutor.reply()` is a pure function of seed, instructions and conversation; texts and word lists are in `replies.json`.
What it does not do: understand. It matches words, remembers what the learner said, and says honestly when it does not know.

The instructions it obeys are the table "instructions" in `replies.json` (a pirate, one sentence, for a child, end with a question, brief)
and the languages Spanish, French and German for greetings, jokes, names, AI and the honest "I do not know".
"""

from __future__ import annotations

import itertools
import json
import operator
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

TABLE: dict = json.loads(Path(__file__).with_name("replies.json").read_text("utf-8"))

JOKE = re.compile(r"\b(jokes?|another one|one more|make me laugh|something funny|witz|chiste|blague)\b", re.I)
PRAISE = re.compile(r"\b(funny|ha(ha)+|lol|hilarious|good one|made me laugh|love it|great joke)\b", re.I)
NAME_ASKED = re.compile(
    r"(?i)\b(my name\?|what('s| is) my name|who am i\b|(know|remember|recall|tell me|say) my name|am i called"
    r"|cómo me llamo|comment je m'appelle|wie heiße ich)"
)
RECAP = re.compile(
    r"(?i)\b(did|have|were) (we|i) .*\b(talk|discuss|ask|cover|say|said|speak|spoken|chat)|\brecap\b"
    r"|\bsummar\w+ (our|this|the) (chat|conversation|talk)"
)
RECALL = re.compile(r"\b(do|did|am|have) i\b|\bmy\b|\bi('m| am| like| love| told)\b|\babout me\b", re.I)
ALL_FACTS = re.compile(r"\btold you\b|\btell you\b|\babout me\b|\b(you )?(remember|know) (of|from) me\b", re.I)
WHO = re.compile(r"\b(who|what) are you\b|\byour name\b|\bwhat can you do\b|\bare you (a|an|real|human)\b|^\W*help\W*$", re.I)
GREETING = re.compile(r"^\W*(hi|hello|hey|good (morning|afternoon|evening)|greetings|hola|bonjour|salut|hallo)\b", re.I)
THANKS = re.compile(r"\b(thanks|thank you|gracias|merci|danke)\b", re.I)
BYE = re.compile(r"\b(good ?bye|bye|see you|adiós|au revoir|tschüss)\b", re.I)
MARKDOWN = re.compile(
    r"(?<!no )(?<!without )\b(markdown|bullet(ed)?( points| list)?|a table|code (block|example|sample)|headings?)\b|\bas a list\b", re.I
)
NUMBERS = re.compile(r"\b(with|many|of|some|more) numbers\b|\bnumbers\W*$|\bnumber-heavy\b", re.I)
LONG = re.compile(r"\b(long (story|answer|reply|text|explanation)|in (great )?detail|at length|tell me more|more about (it|that))\b", re.I)
IN_WORDS = re.compile(r"\bin (?:about |around |at least )?(\d{1,4}) words\b", re.I)
SUM = re.compile(rf"(-?\d+(?:\.\d+)?)\s*({'|'.join(map(re.escape, TABLE['signs']))})\s*(-?\d+(?:\.\d+)?)", re.I)
NAME_TOLD = (
    re.compile(r"(?i:\b(?:my name is|my name's|call me|i am called|i'm called|me llamo|je m'appelle|ich heiße|mein name ist))\s+(.+)"),
    re.compile(r"(?i:\b(?:user|learner|student)(?:'s name is| is called| is named)\s+)(.+)"),
    re.compile(r"(?i:\b(?:i'm|i am))\s+(\S+(?=\s*(?:[.!,;]|$|and\b))|[A-Z].*)"),
)
NAME = re.compile(r"[^\W\d_][\w'-]*(?: (?!(?:I|And|But|You|What|Tell|I'm)\b)[A-Z][\w'-]+){0,2}")
STATED = re.compile(
    r"(?i)^(?:and |but |also |by the way,? |please )*(?:remember (?:that |this:? )?)?"
    r"((?:i|i'm|i've|my|our|we)\b.+|the (?:[\w-]+ ){1,4}(?:is|are) .+)"
)
REMEMBER = re.compile(r"(?i)^(?:please )?remember\b(?: that| this)?[: ]+(.+)")
TURNED = {"i": "you", "i'm": "you're", "i've": "you've", "am": "are", "my": "your", "me": "you", "mine": "yours", "myself": "yourself"}
TURNED |= {"our": "your", "we": "you", "the": "the"}
OPERATIONS = {"plus": operator.add, "minus": operator.sub, "times": operator.mul, "divided by": operator.truediv}
TERMINATOR = re.compile(r"[.!?]+(?=[\s”\"')]|$)")


def sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def is_asking(text: str) -> bool:
    return "?" in text or any(re.match(rf"(?i)\W*(please\s+)?({TABLE['asking']})\b", part) for part in sentences(text))


def plain(text: str) -> str:
    """The learner's text with plain apostrophes."""
    return text.replace("’", "'")


def name_in(text: str) -> str | None:
    """The name a text gives: "my name is ...", "call me ...", "I'm ..."; the last one counts."""
    found = None
    for part in sentences(plain(text)):
        if part.endswith("?"):
            continue
        for kind, pattern in enumerate(NAME_TOLD):
            match = pattern.search(part)
            name = NAME.match(match[1]) if match else None
            if name and not (kind == 2 and re.fullmatch(TABLE["feelings"], name[0].split()[0], re.I)):
                found = name[0].rstrip("'-")
                break
    return found


def facts_in(text: str) -> list[str]:
    """What the learner stated about themselves, turned to the second person: "I like tea" becomes "you like tea"."""
    facts = []
    clauses = (re.split(r"(?i)(?:,|;|\band\b)+\s*(?=(?:i|i'm|my)\b)", part) for part in sentences(plain(text)) if part[-1] != "?")
    for clause in itertools.chain.from_iterable(clauses):
        stated = STATED.match(clause) or REMEMBER.match(clause)
        if stated is None or name_in(clause):
            continue
        words = [TURNED.get(word.lower(), word) for word in stated[1].rstrip(" .!,;").split()]
        facts.append(" ".join(words))
    return facts


def content_words(text: str) -> set[str]:
    """The words by which a question finds a fact; of plurals and "-ing" only the stem."""
    words = set(re.findall(r"[\w-]{3,}", plain(text).lower())) - set(TABLE["common_words"].split())
    return {re.sub(r"(ing|ed|s|e)$", "", word) if len(word) > 4 else word.rstrip("e") for word in words}


def wants_joke(text: str) -> bool:
    """Whether a message asks for a joke; "great joke!" does not."""
    return bool(JOKE.search(text)) and (is_asking(text) or not PRAISE.search(text))


def quoted(text: str) -> str:
    """The learner's own words in one clause: without end marks, line breaks and Markdown signs; at most ten words."""
    words = TERMINATOR.sub(",", re.sub(r"[*_`#<>|\[\]~]+", "", text)).split()
    return (" ".join(words[:10])[:80].strip(" ,") + ("…" if len(words) > 10 else "")) or "…"


def topic_in(text: str, topics: list[dict]) -> dict | None:
    """The topic whose word comes first in the text."""
    places = []
    for topic in topics:
        found = re.search(r"\b(" + "|".join(map(re.escape, topic["words"])) + r")\b", text, re.I)
        if found:
            places.append((found.start(), -len(found[0]), topic["label"], topic))
    return min(places)[3] if places else None


def calculated(text: str, say: dict) -> str | None:
    """The answer to a sum such as "12 times 7" or "three plus 4.5"."""
    for value, word in enumerate(TABLE["number_words"]):
        text = re.sub(rf"\b{word}\b", str(value), text, flags=re.I)
    match = SUM.search(text)
    if match is None or re.search(r"\d-\d+-\d", text):  # a date is no sum
        return None
    sign = TABLE["signs"][match[2].lower()]
    first, second = Fraction(match[1][:30]), Fraction(match[3][:30])
    if sign == "divided by" and second == 0:
        return say["by_zero"]
    value = OPERATIONS[sign](first, second)
    shown = str(value.numerator) if value.denominator == 1 else f"{float(value):.4f}".rstrip("0").rstrip(".")
    return say["result"].format(sum=f"{match[1]} {sign} {match[3]}", value=shown)


class Tutor:
    """Answers one conversation at a time and keeps nothing between calls.

    Args:
        seed: another seed starts with another joke.
        note: a sentence the first answer of each conversation ends with (the server says here that only a tone can be heard).
    """

    def __init__(self, seed: int = 0, note: str = ""):
        self._seed, self._note = seed, note

    def reply(self, instructions: str, conversation: list[tuple[str, str]]) -> str:
        """The answer to the last user message.

        Args:
            instructions: of the session or the response.
            conversation: (role, text) of all items, oldest first.
        """
        turns = _Turns(instructions, conversation)
        text = _obey(turns, _answer(turns, self._seed))
        first = not any(role == "assistant" for role, _ in conversation)
        return f"{text} {self._note}" if first and self._note else text


class _Turns:
    """The conversation as the tutor looks at it."""

    def __init__(self, instructions: str, conversation: list[tuple[str, str]]):
        self.users = [text for role, text in conversation if role == "user"]
        self.last = plain(self.users[-1]) if self.users else ""
        self.earlier = self.users[:-1]
        self.told = [text for role, text in conversation if role in ("user", "system")]
        self._instructions = instructions
        self.obeys = {kind for kind, phrases in TABLE["instructions"].items() if any(p in instructions.lower() for p in phrases)}
        if any(phrase in self.last.lower() for phrase in TABLE["instructions"]["one_sentence"]):
            self.obeys.add("one_sentence")
        names = "|".join(TABLE["languages"])
        asked = re.search(rf"\b({names})\b", instructions, re.I) or re.search(rf"\b(?:in|auf|en|speak) ({names})\b", self.last, re.I)
        self.language = TABLE["languages"][asked[1].lower()] if asked else "en"
        self.say = TABLE["en"] | TABLE[self.language]  # what a language lacks is said in English

    def names(self) -> Iterable[str]:
        return filter(None, map(name_in, [self._instructions, *self.told]))

    def joke(self, number: int, seed: int) -> dict:
        return self.say["jokes"][(seed + number) % len(self.say["jokes"])]

    def jokes_before(self) -> int:
        return sum(map(wants_joke, self.earlier))


def _one_sentence(text: str) -> str:
    """The first sentence; with the second one where it says too little alone: a joke's question, a bare "Hello!"."""
    parts = sentences(re.sub(r"[#*`|]+", "", text))
    kept = [TERMINATOR.sub("", part).strip() for part in parts[: 2 if parts[0].endswith("?") or len(parts[0].split()) < 3 else 1]]
    kept[1:] = [part[0].lower() + part[1:] if part[1:2].islower() else part for part in kept[1:]]
    return " – ".join(kept).rstrip(",:; ") + "."


def _pirate(text: str) -> str:
    swaps = TABLE["pirate_words"]

    def swap(match: re.Match) -> str:
        spoken = swaps.get(match[0].lower(), match[0])
        return spoken.capitalize() if match[0].istitle() else spoken

    return "Arr, matey: " + re.sub(r"[A-Za-z]+", swap, text)


def _obey(turns: _Turns, text: str) -> str:
    """Apply the instructions to an answer; what has several lines (Markdown) or was asked to be long is not shortened."""
    obeys, say = turns.obeys, turns.say
    short = "\n" not in text and len(sentences(text)) < 10
    if short and "brief" in obeys:
        parts = sentences(text)
        text = " ".join(parts[: 2 if parts[0].endswith("?") else 1])
    if "one_sentence" in obeys:
        text = _one_sentence(text)
    if "child" in obeys:
        text = say["child"] + (" ".join(sentences(text)[:2]) if short else text)
    if "pirate" in obeys:
        text = _pirate(text)
    if "question" in obeys and not text.rstrip().endswith("?"):
        text = text[:-1] + say["question_tail"] if "one_sentence" in obeys else f"{text} {say['question']}"
    return text


def _answer(turns: _Turns, seed: int) -> str:
    """The answer before any instruction changes it: a greeting by name or a word on the last joke, and then the first rule that fits."""
    say, name = turns.say, name_in(turns.last)
    opening = say["name_told"].format(name=name) if name else ""
    if PRAISE.search(turns.last) and turns.jokes_before():
        opening += say["callback"].format(word=turns.joke(turns.jokes_before() - 1, seed)["word"])
    for rule in (_remembered, _computed, _shaped, _told, _known, _polite):
        answer = rule(turns, seed)
        if answer:
            return opening + answer
    if opening:
        return opening + (say["name_next"] if name else say["praise"])
    shared = content_words(turns.last)
    for fact in reversed([fact for text in turns.told for fact in facts_in(text)]):
        if shared & content_words(fact):
            return say["facts_known"].format(facts=fact)
    return say["fallback"][len(turns.earlier) % len(say["fallback"])].format(quote=quoted(turns.last))


def _remembered(turns: _Turns, _seed: int) -> str | None:
    """Questions about what was said before."""
    say, text = turns.say, turns.last
    if NAME_ASKED.search(text):
        names = list(turns.names())
        return say["name_known"].format(name=names[-1]) if names else say["name_unknown"]
    if not is_asking(text):
        return None
    facts = [fact for told in turns.told[:-1] for fact in facts_in(told)]
    if ALL_FACTS.search(text):
        facts += [f"your name is {name}" for name in list(turns.names())[-1:]]
        return say["facts_known"].format(facts=say["and"].join(facts[-6:])) if facts else say["facts_unknown"]
    if RECAP.search(text):
        subjects = [_subject(earlier, say) for earlier in turns.earlier]
        return say["recap"].format(subjects=say["and"].join(dict.fromkeys(subjects[-8:]))) if subjects else say["recap_empty"]
    if RECALL.search(text) and not JOKE.search(text):
        fitting = [fact for fact in facts if content_words(text) & content_words(fact)]
        if fitting:
            return say["facts_known"].format(facts=say["and"].join(fitting[-4:]))
        if re.search(r"\b(do|am|is|are) (i|my)\b", text, re.I):
            return say["facts_unknown"]
    return None


def _subject(text: str, say: dict) -> str:
    """What an earlier message was about, in a few words."""
    topic = topic_in(text, say["topics"])
    if JOKE.search(text):
        return "jokes"
    return topic["label"] if topic else f"“{quoted(text)}”"


def _computed(turns: _Turns, _seed: int) -> str | None:
    count = re.search(r"\bcount (?:from 1 |from one )?(?:up )?to (\d{1,6}|\w+)", turns.last, re.I)
    if count:
        words = TABLE["number_words"]
        last = int(count[1]) if count[1].isdigit() else words.index(count[1].lower()) if count[1].lower() in words else 0
        if last := min(last, 50):
            return turns.say["count"].format(numbers=", ".join(map(str, range(1, last + 1))), last=last)
    return calculated(turns.last, turns.say) if is_asking(turns.last) or len(turns.last) < 40 else None


def _shaped(turns: _Turns, _seed: int) -> str | None:
    """Answers of a wanted shape: Markdown, many numbers, long."""
    text, say = turns.last, turns.say
    if MARKDOWN.search(text):
        return TABLE["markdown"]
    if NUMBERS.search(text):
        return TABLE["numbers"]
    if not ((wanted := IN_WORDS.search(text)) or LONG.search(text)):
        return None
    topic = topic_in(text, say["topics"]) or next(filter(None, (topic_in(told, say["topics"]) for told in reversed(turns.earlier))), None)
    parts = sentences(topic["text"]) if topic else []
    parts += TABLE["long"]
    parts += [part for other in TABLE["en"]["topics"][:8] if other is not topic for part in sentences(other["text"])]
    words, kept = 0, []
    for part in parts:
        kept.append(part)
        words += len(part.split())
        if words >= (int(wanted[1]) if wanted else 220):
            break
    return " ".join(kept)


def _told(turns: _Turns, _seed: int) -> str | None:
    """A statement about the learner, with no question in it."""
    facts = facts_in(turns.last)
    if not facts or is_asking(turns.last) or PRAISE.search(turns.last):
        return None
    return turns.say["fact_told"].format(facts=turns.say["and"].join(facts))


def _known(turns: _Turns, seed: int) -> str | None:
    """Jokes, topics, and the tutor itself."""
    text, say = turns.last, turns.say
    if wants_joke(text):
        about = re.search(r"\babout (.+)", text, re.I)
        other = about and not re.search(r"program|cod(e|ing)|develop|comput|software|bug|python|tech|engineer", about[1], re.I)
        return (say["other_jokes"] if other else "") + turns.joke(turns.jokes_before(), seed)["text"]
    if WHO.search(text):
        return say["who"]
    topic = topic_in(text, say["topics"])
    return topic["text"] if topic else None


def _polite(turns: _Turns, _seed: int) -> str | None:
    say, text = turns.say, turns.last
    if THANKS.search(text):
        return say["thanks"]
    if BYE.search(text):
        return say["bye"]
    if GREETING.search(text) and not name_in(text) and len(text.split()) < 8:
        return say["greeting"][len(turns.earlier) % len(say["greeting"])]
    return None
