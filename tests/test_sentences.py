"""sentences: deltas in, units out; the same units for every way of cutting the text."""

from __future__ import annotations

import random
import time

import pytest

from voicehelper.sentences import SentenceSplitter, Unit

from .support import forall, limit, made_up, scaled, st

A, B, C = (made_up() for _ in range(3))
PIECES = (
    *(
        f"{A} ",
        f"{B} walks. ",
        "Dr. ",
        "e.g. ",
        "3.14 ",
        "5 p.m. ",
        "J. R. ",
        "What?! ",
        '"Yes." ',
        "(No.) ",
        "Wait... ",
        "Hm… ",
        ", ",
        ": ",
        "; ",
    ),
    *(
        "\n",
        "\n\n",
        "- one\n",
        "1. two\n",
        "# Head\n",
        "| a | b |\n",
        "|---|---|\n",
        "```py\nx = 1.5\n```\n",
        "~~~\n",
        "```",
        "`a. B` ",
        "**bold.** ",
    ),
    *(
        "🎉 ",
        "👩‍🔬",
        "今天很好。",
        "吗？",
        "नमस्ते। ",
        "¿Qué? ",
        "\u00a0",
        "\t",
        " ",
        "x" * 40,
        "1.2.3 ",
        "https://a.b/c?d. ",
        "[1] ",
        "*",
        "~",
        "|",
    ),
)
markdown = st.one_of(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.text(max_size=200))


def split(text: str, cuts=(), **options) -> list[Unit]:
    """The units of a text that is fed in pieces which end at `cuts`."""
    splitter, units, start = SentenceSplitter(**options), [], 0
    for cut in [*sorted(cuts), len(text)]:
        units += splitter.feed(text[start:cut])
        start = max(start, cut)
    return units + splitter.flush()


def described(units: list[Unit]) -> list[tuple]:
    return [(str(unit), unit.kind, unit.continues) for unit in units]


def ink(text: str) -> str:
    """A text without its white space."""
    return "".join(char for char in text if not char.isspace())


# -- properties


@forall(markdown, st.lists(st.integers(0, 400), max_size=30), st.integers(20, 300), st.booleans(), examples=2000)
def test_every_way_of_cutting_the_text_into_deltas_gives_the_same_units(text, cuts, size, first):
    options = {"max_chars": size, "first_clause": first}
    whole = described(split(text, **options))
    assert described(split(text, cuts, **options)) == whole
    assert described(split(text, range(len(text)), **options)) == whole


@pytest.mark.parametrize("before", ["नमस्ते।", f"{A} walks.", "This is a rather long beginning,", "今天很好，我们去公园散步，"])
@pytest.mark.parametrize("after", [": ", f"{A} ", "and ", "1 ", "[1] ", "\n"])
def test_a_mark_before_much_white_space_has_one_verdict(before, after):
    """A verdict looks at 40 characters of it: at the edge, too, it must not matter where a delta ends."""
    for count in range(38, 43):
        text = f"{before}{' ' * count}{after}{B} goes home."
        assert described(split(text, range(len(text)))) == described(split(text))


@forall(markdown, st.integers(8, 300), examples=2000)
def test_nothing_is_lost_and_nothing_added_white_space_aside(text, size):
    assert ink("".join(split(text, max_chars=size))) == ink(text)


@forall(markdown, st.integers(8, 120), examples=2000)
def test_no_unit_is_longer_than_the_limit_or_empty_or_has_white_space_around_it(text, size):
    for unit in split(text, max_chars=size):
        assert 0 < len(unit) <= size
        assert unit == unit.strip()
        assert unit.kind in ("prose", "heading", "item", "row", "code")


@forall(markdown, markdown, examples=300)
def test_after_flush_a_splitter_is_as_new(before, text):
    used = SentenceSplitter()
    used.feed(before)
    used.flush()
    assert described(used.feed(text) + used.flush()) == described(split(text))


def test_an_empty_delta_and_an_empty_answer_give_nothing():
    splitter = SentenceSplitter()
    assert splitter.feed("") == splitter.flush() == splitter.flush() == []


# -- sentences


CASES = [
    ("an abbreviation before a name", f"Dr. {A} met Mr. {B} today. They talked.", [f"Dr. {A} met Mr. {B} today.", "They talked."]),
    ("e.g. and i.e.", f"Take fruit, e.g. {A} pears, i.e. Good ones. Eat.", [f"Take fruit, e.g. {A} pears, i.e. Good ones.", "Eat."]),
    ("a decimal number", "It costs 3.14 dollars. Good.", ["It costs 3.14 dollars.", "Good."]),
    ("a number at the end", f"There were 12. {A} left.", ["There were 12.", f"{A} left."]),
    ("a version", "Version 2.0.1 is out. Get it.", ["Version 2.0.1 is out.", "Get it."]),
    ("initials", f"J. R. R. {A} wrote it. Yes.", [f"J. R. R. {A} wrote it.", "Yes."]),
    ("the word I at the end", "So am I. You too.", ["So am I.", "You too."]),
    ("a time inside a sentence", "At 5 p.m. we left. Good.", ["At 5 p.m. we left.", "Good."]),
    ("a time at the end", f"It was 5 p.m. {A} left.", ["It was 5 p.m.", f"{A} left."]),
    ("etc. at the end", f"Pears, etc. {A} ate.", ["Pears, etc.", f"{A} ate."]),
    ("a figure", "See Fig. 3 for more. Yes.", ["See Fig. 3 for more.", "Yes."]),
    ("No. with and without a number", "No. 5 is alive. No. It is not.", ["No. 5 is alive.", "No.", "It is not."]),
    ("a quoted sentence", f'{A} said "Stop!" and left. Fine.', [f'{A} said "Stop!" and left.', "Fine."]),
    ("a quote that ends a sentence", f'"Yes." {A} left.', ['"Yes."', f"{A} left."]),
    ("curly quotes", f"“Yes.” {A} left.", ["“Yes.”", f"{A} left."]),
    ("brackets", f"(See {A}.) Then go.", [f"(See {A}.)", "Then go."]),
    ("an ellipsis that goes on", "Wait... what is it? No.", ["Wait... what is it?", "No."]),
    ("an ellipsis that ends", f"Well… Then {A} came.", ["Well…", f"Then {A} came."]),
    ("an ellipsis that hesitates", f"It was… {A}!", [f"It was… {A}!"]),
    ("several marks", f"What?! No!! {A}.", ["What?!", "No!!", f"{A}."]),
    ("no space after the full stop", "It is Node.js and a.b.c. Yes.", ["It is Node.js and a.b.c.", "Yes."]),
    ("an address", "See https://a.example/x.y?z=1. Done.", ["See https://a.example/x.y?z=1.", "Done."]),
    ("a dash after the mark", f"“Hello!” – said {A}. Bye.", [f"“Hello!” – said {A}.", "Bye."]),
    ("an emoji after the mark", f"Great! 🎉 {A} came.", ["Great! 🎉", f"{A} came."]),
    ("bold sentences", f"**{A}.** Then *go.* Yes.", [f"**{A}.**", "Then *go.*", "Yes."]),
    ("inline code", f"Use `a. B` here. {A}.", ["Use `a. B` here.", f"{A}."]),
    ("Chinese", "今天很好。明天呢？好！", ["今天很好。", "明天呢？", "好！"]),
    ("Japanese with brackets", "「はい。」そうです。", ["「はい。」", "そうです。"]),
    ("Hindi", "नमस्ते। कैसे हो?", ["नमस्ते।", "कैसे हो?"]),
    ("Spanish", "¿Qué tal? ¡Bien! Sí.", ["¿Qué tal?", "¡Bien!", "Sí."]),
    ("a sentence without an end", f"{A} and {B}", [f"{A} and {B}"]),
    ("paragraphs without full stops", f"{A}\n\n{B}\n\n{C}", [A, B, C]),
    ("a sentence over a line's end", f"{A} goes\nhome now. Yes.", [f"{A} goes\nhome now.", "Yes."]),
    ("Windows line ends", f"{A}.\r\n{B}.\r\n", [f"{A}.", f"{B}."]),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_text_is_cut_where_a_reader_would(text, expected):
    assert [str(unit) for unit in split(text, first_clause=False)] == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Das kostet ca. 5 Euro, d.h. Zu viel. Gut.", ["Das kostet ca. 5 Euro, d.h. Zu viel.", "Gut."]),
        ("de-AT", f"Hr. {A} kam. Ja.", [f"Hr. {A} kam.", "Ja."]),
        ("es-MX", f"El Sr. {A} vino. Sí.", [f"El Sr. {A} vino.", "Sí."]),
        ("fr", f"M. {A} est là. Oui.", [f"M. {A} est là.", "Oui."]),
        ("nl", f"Dr. {A} kwam.", ["Dr.", f"{A} kwam."]),
    ],
)
def test_each_language_has_its_own_abbreviations(language, text, expected):
    assert [str(unit) for unit in split(text, language=language, first_clause=False)] == expected


# -- lines that are not prose


def test_headings_items_rows_and_code_are_units_of_their_kind():
    text = f"# {A}\nText of {B}.\n\n- one. Two\n2. three\n* four\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1.5)\n\n# hi. There\n```\nDone."
    assert [(unit.kind, str(unit)) for unit in split(text)] == [
        ("heading", f"# {A}"),
        ("prose", f"Text of {B}."),
        ("item", "- one."),
        ("prose", "Two"),
        ("item", "2. three"),
        ("item", "* four"),
        ("row", "| a | b |"),
        ("row", "|---|---|"),
        ("row", "| 1 | 2 |"),
        ("code", "```python\nprint(1.5)\n\n# hi. There\n```"),
        ("prose", "Done."),
    ]


def test_a_list_after_a_colon_is_apart_from_its_introduction():
    assert [str(unit) for unit in split(f"Buy:\n- {A}\n- {B}\n")] == ["Buy:", f"- {A}", f"- {B}"]


def test_nested_items_are_items():
    assert [unit.kind for unit in split(f"- {A}\n  - {B}\n    1. {C}\n")] == ["item", "item", "item"]


def test_a_fence_that_never_closes_is_code_to_the_end():
    assert [unit.kind for unit in split(f"See:\n```\n{A}. {B}.\n\n{C}")] == ["prose", "code"]


def test_code_longer_than_a_unit_is_cut_at_line_ends_and_stays_code():
    lines = [f"{made_up().lower()} = {number}.5" for number in range(80)]
    units = split("```\n" + "\n".join(lines) + "\n```\nDone. Yes.")
    assert [unit.kind for unit in units[-3:]] == ["code", "prose", "prose"]
    code = [unit for unit in units if unit.kind == "code"]
    assert len(code) > 1
    assert [line for unit in code for line in unit.split("\n")] == ["```", *lines, "```"]


def test_code_between_three_ticks_on_one_line_does_not_swallow_the_answer():
    units = split(f"```{A}()``` makes it.\nThen {B} comes. And {C} goes.")
    assert units[-1].kind == "prose"


@pytest.mark.parametrize("fence", ["````", "~~~~~"])
def test_a_longer_fence_is_closed_by_its_like(fence):
    assert [unit.kind for unit in split(f"{fence}\n{A}\n{fence}\n{B} comes.")] == ["code", "prose"]


def test_a_fence_is_not_closed_by_the_other_kind():
    assert [unit.kind for unit in split(f"```\n{A}\n~~~\n{B}\n```\nDone.")] == ["code", "prose"]


# -- early and late cuts


def test_the_first_unit_may_be_a_clause_of_twenty_four_characters_or_more():
    text = "Well, this is a rather long sentence that goes on, with commas, and ends here. Next, too, and so on and on and on."
    units = split(text)
    assert (str(units[0]), units[0].continues) == ("Well, this is a rather long sentence that goes on,", True)
    assert [unit.continues for unit in units[1:]] == [False, False]
    assert len(split(text, first_clause=False)) == 2


def test_the_first_clause_leaves_with_the_first_character_after_its_comma():
    splitter = SentenceSplitter()
    assert splitter.feed("This is a rather long beginning,") == []
    assert splitter.feed(" ") == []  # a number may follow, as in a date
    assert splitter.feed("b") == ["This is a rather long beginning,"]
    assert split("We met on the fifth of Maybe, 1999 was the year.") == ["We met on the fifth of Maybe, 1999 was the year."]


def test_only_the_very_first_unit_may_be_a_clause():
    units = split("Yes. This is a rather long sentence that goes on, with commas, and ends here.")
    assert [unit.continues for unit in units] == [False, False]


def test_a_comma_inside_a_number_is_no_clause():
    assert len(split("There are very many people here: 1,000,000 of them.", first_clause=True)) <= 2
    assert "1,000,000" in " ".join(split("There are very many of them, 1,000,000 of them."))


def test_a_unit_leaves_with_the_first_character_of_the_next_sentence():
    splitter = SentenceSplitter(first_clause=False)
    assert splitter.feed(f"{A} walks. ") == []
    assert splitter.feed(B[0]) == [f"{A} walks."]


def test_a_line_leaves_with_its_line_end():
    splitter = SentenceSplitter()
    assert splitter.feed(f"# {A}") == []
    assert splitter.feed("\n") == [f"# {A}"]


def test_too_long_a_sentence_is_cut_at_a_space_and_says_that_it_goes_on():
    units = split("word " * 200 + "end.", first_clause=False)
    assert all(len(unit) <= 300 and unit.startswith("word") for unit in units[:-1])
    assert [unit.continues for unit in units] == [True] * (len(units) - 1) + [False]


def test_a_word_longer_than_a_unit_is_cut():
    assert [len(unit) for unit in split("x" * 700)] == [300, 300, 100]


def test_an_abbreviation_at_a_line_s_end_does_not_end_the_sentence():
    assert [str(unit) for unit in split(f"He met Mr.\n{A} there. Yes.", first_clause=False)] == [f"He met Mr.\n{A} there.", "Yes."]


# -- cost


HOSTILE = {
    "prose": lambda size: "".join(f"{A} and {B} go home, e.g. at 5.30 p.m. Yes! " for _ in range(size // 45)),
    "no space at all": lambda size: "x" * size,
    "numbers": lambda size: "1." * (size // 2),
    "spaces": lambda size: " " * size,
    "line ends": lambda size: "a\n" * (size // 2),
    "an open fence": lambda size: "```\n" + "x" * size,
    "fence lines": lambda size: "```\n" * (size // 4),
    "full stops": lambda size: "." * size,
    "ticks": lambda size: "`" * size,
    "pipes": lambda size: "|" * size,
    "emoji": lambda size: "!" + "🎉" * size,
}


@limit(60)
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_the_cost_grows_with_the_length_and_not_with_its_square(make):
    def cost(size: int) -> float:
        text, best = make(size), 9.0
        for _ in range(3):
            begun = time.process_time()
            split(text)
            best = min(best, time.process_time() - begun)
        return best

    assert cost(50_000) < 30 * max(cost(5_000), 0.002)


def test_random_answers_of_random_pieces_are_cut_alike_in_tokens_and_at_once():
    for _ in range(scaled(100)):
        text = "".join(random.choice(PIECES) for _ in range(200))
        tokens, at = [], 0
        while at < len(text):
            at += random.randint(1, 6)
            tokens.append(at)
        assert described(split(text, tokens)) == described(split(text))
