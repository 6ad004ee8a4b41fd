"""The scripted tutor: what the practice server answers.

One sentence: `Tutor.reply()` is a pure function of seed, instructions and conversation; texts, phrases and word lists are in `replies.json`.
What it does not do: understand. It matches words, remembers what the learner said, and says honestly when it does not know.

In `replies.json`, "hears" holds the phrases it listens for (regular expressions, whole words, any case), "instructions" what it obeys
(a pirate, one sentence, for a child, end with a question, brief), and "en", "es", "fr" and "de" what it says;
Spanish, French and German have greetings, jokes, names, AI and the honest "I do not know", and the rest is said in English.
"""

from __future__ import annotations

import json
import operator
import re
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

TABLE: dict = json.loads(Path(__file__).with_name("replies.json").read_text("utf-8"))
HEARS = {what: re.compile(rf"(?<!\w)(?:{phrases})(?!\w)", re.I) for what, phrases in TABLE["hears"].items()}
HEARS |= {what: re.compile("|".join(phrases), re.I) for what, phrases in TABLE["instructions"].items()}  # also inside words: "pirates"

NUMBER = r"(-?\d{1,30}(?:\.\d{1,30})?)"
SUM = re.compile(rf"(?<!\d){NUMBER}\s*({'|'.join(map(re.escape, TABLE['signs']))})\s*{NUMBER}", re.I)
OPERATIONS = {"plus": operator.add, "minus": operator.sub, "times": operator.mul, "divided by": operator.truediv}
NAME = re.compile(r"[^\W\d_][\w'-]*(?: (?!(?:I|And|But|You|What|Tell|I'm)\b)[A-Z][\w'-]+){0,2}")
NEXT_FACT = re.compile(r"(?i)(?:\band\b[,;]?|[,;])\s*(?=(?:i|i'm|my)\b)")  # no "+": a row of 10,000 commas would take minutes
TERMINATOR = re.compile(r"[.!?]+(?=[\s”\"')]|$)")


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
        turns = _Turns(instructions, conversation, self._seed)
        first = not any(role == "assistant" for role, _ in conversation)
        return _obey(turns, _answer(turns)) + (f" {self._note}" if first and self._note else "")


class _Turns:
    """The conversation as the tutor looks at it."""

    def __init__(self, instructions: str, conversation: list[tuple[str, str]], seed: int):
        *self.earlier, last = [text for role, text in conversation if role == "user"] or [""]
        self.last = plain(last)
        self.told = [plain(text) for role, text in conversation if role in ("user", "system")]
        self._instructions, self._seed = plain(instructions), seed
        self.obeys = {what for what in TABLE["instructions"] if hears(what, instructions)}
        self.obeys |= {"one_sentence"} if hears("one_sentence", self.last) else set()  # a message can wish for this one, too
        names = "|".join(TABLE["languages"])
        asked = re.search(rf"\b({names})\b", instructions, re.I) or re.search(rf"\b(?:in|auf|en|speak) ({names})\b", self.last, re.I)
        self.say = TABLE["en"] | (TABLE[TABLE["languages"][asked[1].lower()]] if asked else {})  # what a language lacks is said in English

    def joke(self, number: int) -> dict:
        return self.say["jokes"][(self._seed + number) % len(self.say["jokes"])]

    def jokes_before(self) -> int:
        return sum(map(wants_joke, self.earlier))

    def names(self) -> list[str]:
        """What the learner was called, the latest last."""
        return list(filter(None, map(name_in, [self._instructions, *self.told])))

    def says(self, what: str) -> str | None:
        """The fixed answer to a message that has one of the phrases of that name."""
        return self.say[what] if hears(what, self.last) else None

    def known(self, what: str, known: list[str]) -> str:
        """The answer to a question about what was said: what is known, or that nothing is."""
        listed = self.say["and"].join(known)
        return self.say[f"{what}_known"].format(known=listed) if listed else self.say[f"{what}_unknown"]


# -- what a text says


def plain(text: str) -> str:
    """The learner's text with plain apostrophes."""
    return text.replace("’", "'")


def sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def hears(what: str, text: str) -> bool:
    return HEARS[what].search(text) is not None


def is_asking(text: str) -> bool:
    return "?" in text or any(map(HEARS["asking"].match, sentences(text)))


def wants_joke(text: str) -> bool:
    """Whether a message asks for a joke; "great joke!" does not."""
    return hears("joke", text) and (is_asking(text) or not hears("praise", text))


def name_in(text: str) -> str | None:
    """The name a text gives: "my name is ...", "call me ...", "I'm ..."; the last one counts."""
    for part in reversed(sentences(text)):
        for how in ("my_name_is", "their_name_is", "i_am"):
            told = HEARS[how].search(part)
            name = told and NAME.match(told[1])
            tired = how == "i_am" and name and HEARS["feeling"].fullmatch(name[0].split()[0])  # "I'm tired" tells no name
            if name and not tired and part[-1] != "?":
                return name[0].rstrip("'-")
    return None


def facts_in(text: str) -> list[str]:
    """What the learner stated about themselves, turned to the second person: "I like tea" becomes "you like tea"."""
    clauses = [clause for part in sentences(text) if part[-1] != "?" for clause in NEXT_FACT.split(part)]
    stated = [(clause, HEARS["stated"].search(clause) or HEARS["remember"].search(clause)) for clause in clauses]
    facts = [match[1].rstrip(" .!,;").split() for clause, match in stated if match and not name_in(clause)]
    return [" ".join(TABLE["turned"].get(word.lower(), word) for word in fact) for fact in facts]


def content_words(text: str) -> set[str]:
    """The words by which a question finds a fact; of plurals and "-ing" only the stem."""
    words = set(re.findall(r"[\w-]{3,}", text.lower())) - set(TABLE["common_words"].split())
    return {re.sub(r"(ing|ed|s|e)$", "", word) if len(word) > 4 else word.rstrip("e") for word in words}


def topic_in(text: str, topics: list[dict]) -> dict | None:
    """The topic whose word comes first in the text."""
    words = ((re.search(rf"\b({'|'.join(topic['words'])})\b", text, re.I), topic) for topic in topics)
    places = [(word.start(), -len(word[0]), topic["label"], topic) for word, topic in words if word]
    return min(places)[3] if places else None


def quoted(text: str) -> str:
    """The learner's own words in one clause: without end marks, line breaks and Markdown signs; at most ten words."""
    words = TERMINATOR.sub(",", re.sub(r"[*_`#<>|\[\]~]+", "", text)).split()
    return (" ".join(words[:10])[:80].strip(" ,") + ("…" if len(words) > 10 else "")) or "…"


# -- the rules: each answers, or leaves it to the next


def _remembered(turns: _Turns) -> str | None:
    """Questions about what was said before."""
    text = turns.last
    if hears("name_asked", text):
        return turns.known("name", turns.names()[-1:])
    if not is_asking(text):
        return None
    facts = [fact for told in turns.told[:-1] for fact in facts_in(told)]
    if hears("all_facts", text):
        facts += [f"your name is {name}" for name in turns.names()[-1:]]
        return turns.known("facts", facts[-6:])
    if hears("recap", text):
        return turns.known("recap", list(dict.fromkeys(_subject(earlier, turns.say) for earlier in turns.earlier[-8:])))
    if hears("recall", text) and not hears("joke", text):
        fitting = [fact for fact in facts if content_words(text) & content_words(fact)]
        if fitting or hears("own_question", text):
            return turns.known("facts", fitting[-4:])
    return None


def _subject(text: str, say: dict) -> str:
    """What an earlier message was about, in a few words."""
    topic = {"label": "jokes"} if hears("joke", text) else topic_in(text, say["topics"])
    return topic["label"] if topic else f"“{quoted(text)}”"


def _computed(turns: _Turns) -> str | None:
    """Counting, and sums such as "12 times 7" or "three plus 4.5"."""
    words, say = TABLE["number_words"], turns.say
    text = re.sub(rf"\b({'|'.join(words)})\b", lambda word: str(words.index(word[0].lower())), turns.last, flags=re.I)
    count = HEARS["count"].search(text)
    if count and int(count[1]):
        last = min(int(count[1]), 50)
        return say["count"].format(numbers=", ".join(map(str, range(1, last + 1))), last=last)
    found = SUM.search(text) if is_asking(turns.last) or len(turns.last) < 40 else None
    if found is None or re.search(r"\d-\d+-\d", text):  # a date is no sum
        return None
    sign = TABLE["signs"][found[2].lower()]
    first, second = Fraction(found[1][:30]), Fraction(found[3][:30])
    if sign == "divided by" and second == 0:
        return say["by_zero"]
    value = OPERATIONS[sign](first, second)
    shown = str(value) if value.denominator == 1 else f"{float(value):.4f}".rstrip("0").rstrip(".")
    return say["result"].format(sum=f"{found[1]} {sign} {found[3]}", value=shown)


def _long(turns: _Turns) -> str | None:
    """As many words as wanted: on the topic, on this course, and on the other topics."""
    wanted, topics = HEARS["in_words"].search(turns.last), turns.say["topics"]
    if not wanted and not hears("long", turns.last):
        return None
    topic = next(filter(None, (topic_in(text, topics) for text in [turns.last, *reversed(turns.earlier)])), None)
    parts = (sentences(topic["text"]) if topic else []) + TABLE["long"]
    parts += [part for other in TABLE["en"]["topics"][:8] if other is not topic for part in sentences(other["text"])]
    enough = max(1, int(wanted[1])) if wanted else 220
    words_before = accumulate((len(part.split()) for part in parts), initial=0)
    return " ".join(part for part, before in zip(parts, words_before, strict=False) if before < enough)


def _told(turns: _Turns) -> str | None:
    """A statement about the learner, with no question in it."""
    facts = facts_in(turns.last)
    stated = facts and not is_asking(turns.last) and not hears("praise", turns.last)
    return turns.say["fact_told"].format(facts=turns.say["and"].join(facts)) if stated else None


def _joke(turns: _Turns) -> str | None:
    about = HEARS["about"].search(turns.last)
    excuse = turns.say["other_jokes"] if about and not hears("programming", about[1]) else ""
    return excuse + turns.joke(turns.jokes_before())["text"] if wants_joke(turns.last) else None


def _topic(turns: _Turns) -> str | None:
    topic = topic_in(turns.last, turns.say["topics"])
    return topic["text"] if topic else None


def _greeted(turns: _Turns) -> str | None:
    greetings, only = turns.say["greeting"], len(turns.last.split()) < 8 and not name_in(turns.last)
    return greetings[len(turns.earlier) % len(greetings)] if only and hears("greeting", turns.last) else None


# The first that answers counts; a word among them is a phrase of "hears" and the text that answers it.
RULES = (_remembered, _computed, "markdown", "numbers", _long, _told, _joke, "who", _topic, "thanks", "bye", _greeted)


def _answer(turns: _Turns) -> str:
    """The answer before any instruction changes it: a greeting by name or a word on the last joke, and then the first rule that fits."""
    say, name = turns.say, name_in(turns.last)
    opening = say["name_told"].format(name=name) if name else ""
    if hears("praise", turns.last) and turns.jokes_before():
        opening += say["callback"].format(word=turns.joke(turns.jokes_before() - 1)["word"])
    answer = next(filter(None, (turns.says(rule) if isinstance(rule, str) else rule(turns) for rule in RULES)), None)
    if opening or answer:
        return opening + (answer or (say["name_next"] if name else say["praise"]))
    shared = content_words(turns.last)
    fitting = [fact for text in turns.told for fact in facts_in(text) if shared & content_words(fact)]
    if fitting:
        return turns.known("facts", fitting[-1:])
    return say["fallback"][len(turns.earlier) % len(say["fallback"])].format(quote=quoted(turns.last))


# -- the instructions


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


def _one_sentence(text: str) -> str:
    """The first sentence; with the second one where it says too little alone: a joke's question, a bare "Hello!"."""
    parts = sentences(re.sub(r"[#*`|]+", "", text))
    enough = 2 if parts[0].endswith("?") or len(parts[0].split()) < 3 else 1
    first, *second = [TERMINATOR.sub("", part).strip() for part in parts[:enough]]
    second = [part[0].lower() + part[1:] if part[1:2].islower() else part for part in second]
    return " – ".join([first, *second]).rstrip(",:; ") + "."


def _pirate(text: str) -> str:
    def swap(match: re.Match) -> str:
        spoken = TABLE["pirate_words"].get(match[0].lower(), match[0])
        return spoken.capitalize() if match[0].istitle() else spoken

    return "Arr, matey: " + re.sub(r"[A-Za-z]+", swap, text)
