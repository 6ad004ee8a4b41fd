"""speakable: what is said for Markdown, tables, code, links, emoji and formulas."""

from __future__ import annotations

import pytest

from voicehelper.sentences import SentenceSplitter, Unit
from voicehelper.speakable import speakable

from .support import forall, limit, made_up, st

A, B = made_up(), made_up()
SAID = [
    ("plain prose", f"{A} goes to {B}, doesn't it?", f"{A} goes to {B}, doesn't it?"),
    ("bold and italic", f"**{A}** and *{B}* and __{A}__ and _{B}_ and ***{A}***.", f"{A} and {B} and {A} and {B} and {A}."),
    ("bold around italic", f"**{A} *{B}* x**", f"{A} {B} x"),
    ("inline code", f"use `{A}` here", f"use {A} here"),
    ("names with underscores", "call snake_case_name now", "call snake_case_name now"),
    ("a product with stars", "2 * 3 * 4 = 24", "2 * 3 * 4 = 24"),
    ("a link", f"see [{A} here](https://a.example/b?c=1) now", f"see {A} here now"),
    ("an image", f"![{A}](picture.png) shows {B}", f"{A} shows {B}"),
    ("a footnote", f"{A}[^1] and {B}[12] go", f"{A} and {B} go"),
    ("an emoji", f"{A} 🎉 {B} 👩‍🔬 ❤️", f"{A} {B}"),
    ("a flag", f"🇩🇪 {A}", A),
    ("money", "it costs $5 and $6 today", "it costs $5 and $6 today"),
    ("less and and", "5 < 6 & 7 > 3", "5 < 6 & 7 > 3"),
    ("white space", f"  {A}\n\t{B}  ", f"{A} {B}"),
]


def of_kind(kind: str, text: str) -> Unit:
    return Unit(text, kind)


def answer(text: str, language: str = "en") -> list[str]:
    """What is said for an answer: the splitter's units, one by one, without the silent ones."""
    splitter = SentenceSplitter(first_clause=False)
    said = [speakable(unit, language) for unit in splitter.feed(text) + splitter.flush()]
    return [words for words in said if words]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in SAID], ids=[case[0] for case in SAID])
def test_prose_is_said_without_its_signs(text, said):
    assert speakable(text) == said


@pytest.mark.parametrize("formula", ["$E=mc^2$", "$$\\int_0^1 x$$", "\\(a+b\\)", "\\[a+b\\]"])
def test_a_formula_is_called_a_formula(formula):
    assert speakable(f"{A} {formula} {B}") == f"{A} formula {B}"


@pytest.mark.parametrize("url", ["https://docs.example.org/a/b?c=d#e", "http://docs.example.org", "https://docs.example.org/"])
def test_of_an_address_the_site_is_said(url):
    assert speakable(f"see {url} now") == "see docs.example.org now"


def test_a_heading_and_an_item_are_said_without_sign_and_with_a_pause():
    assert speakable(of_kind("heading", f"## {A} {B}")) == f"{A} {B}."
    assert speakable(of_kind("item", f"- {A}")) == f"{A}."
    assert speakable(of_kind("item", f"3) {A}!")) == f"{A}!"
    assert speakable(of_kind("item", f"- [x] {A}")) == f"{A}."


def test_a_table_is_said_cell_by_cell_and_its_rule_not_at_all():
    assert answer(f"| {A} | {B} |\n|:---|---:|\n| 1 | 2 |\n") == [f"{A}, {B}.", "1, 2."]


@pytest.mark.parametrize(
    ("language", "words"), [("en-US", "code example."), ("es", "ejemplo de código."), ("de", "Codebeispiel."), ("xx", "code example.")]
)
def test_code_is_called_code_once_for_each_fence_however_long_it_is(language, words):
    long = "```python\n" + "".join(f"x = {number}\n" for number in range(200)) + "```\n"
    assert answer(f"{A}:\n{long}{B}.\n```\ny\n```\n", language) == [f"{A}:", words, f"{B}.", words]


@pytest.mark.parametrize(
    "text", ["😀", "---", "***", "* * *", "...", "?!", "**", "|---|", "", "   ", "\u200b\u200d", "> ", "```", "#", "![](x)", "`"]
)
def test_where_nothing_is_to_be_said_nothing_is_said(text):
    assert speakable(text) == ""
    assert answer(text) in ([], ["code example."] if text == "```" else [])


@forall(st.text(max_size=300), st.sampled_from(["prose", "heading", "item", "row"]))
def test_what_is_said_is_never_only_punctuation_and_has_no_doubled_space(text, kind):
    said = speakable(of_kind(kind, text))
    assert said == "" or any(char.isalnum() for char in said)
    assert said == " ".join(said.split())


words = st.lists(st.text("abcdefghijklmnop0123456789äöüéß", min_size=1, max_size=8), min_size=1, max_size=20)


@forall(words)
def test_plain_words_are_said_as_they_are(given):
    text = " ".join(given) + "."
    assert speakable(text) == text


@forall(words, st.sampled_from(["**{}**", "*{}*", "`{}`", "[{}](https://a.example/b)", "***{}***"]))
def test_every_word_under_a_sign_is_said(given, sign):
    assert speakable(sign.format(" ".join(given))) == " ".join(given)


HOSTILE = [
    "*",
    "_",
    "[",
    "![",
    "[a](",
    "_a",
    "*a ",
    "$a",
    "$$a",
    "\\(",
    "\\[a",
    "http://",
    "www.",
    "`",
    "|",
    "😀",
    "1. ",
    "- ",
    "(",
    "[a]",
    "~",
    "\n",
    "a.",
]


@limit(60)
@pytest.mark.parametrize("sign", HOSTILE)
def test_a_hundred_kilobytes_of_one_sign_are_no_trap(sign):
    said = speakable(sign * (100_000 // len(sign)))
    assert said == "" or any(char.isalnum() for char in said)


# -- what is said and should not be


def test_strikethrough_signs_are_not_said():
    assert speakable(f"~~{A}~~ {B}") == f"{A} {B}"


def test_the_sign_of_a_quotation_is_not_said():
    assert answer(f"> {A} said {B}.\n") == [f"{A} said {B}."]


def test_bold_over_a_line_s_end_is_said_without_signs():
    assert answer(f"**{A}\n{B}** goes.") == [f"{A} {B} goes."]


def test_a_link_with_brackets_in_its_address_leaves_nothing_of_it():
    assert speakable(f"see [{A}](https://x.example/a_(b)) now") == f"see {A} now"


def test_the_full_stop_after_an_address_stays():
    assert speakable("Go to https://docs.example.org/a.") == "Go to docs.example.org."
