"""The scripted tutor: pure, so its answers are compared directly."""

from __future__ import annotations

import random
import re
import string

import pytest

from voicehelper.practice.tutor import TABLE, Tutor

from ..support import limit

WORDS = random.Random()
ENDS = re.compile(r"[.!?](?=[\s”]|$)")


def made_up() -> str:
    return "".join(WORDS.choice(string.ascii_lowercase) for _ in range(WORDS.randint(5, 9)))


def talk(*says: str, instructions: str = "", seed: int = 0) -> list[str]:
    """The tutor's answers to one message after another."""
    conversation, answers = [], []
    for text in says:
        conversation.append(("user", text))
        answers.append(Tutor(seed).reply(instructions, conversation))
        conversation.append(("assistant", answers[-1]))
    return answers


def joke_in(text: str) -> dict | None:
    return next((joke for joke in TABLE["en"]["jokes"] if joke["text"] in text), None)


def test_there_are_six_jokes_and_more_each_with_two_sentences():
    jokes = [joke["text"] for joke in TABLE["en"]["jokes"]]
    assert len(set(jokes)) >= 6
    assert all(len(joke) >= 60 and len(ENDS.findall(joke)) >= 2 for joke in jokes)


def test_the_same_seed_gives_the_same_answers_and_another_seed_another_joke():
    says = ("Tell me a joke about programmers", "That's funny! Tell me about AI", "What is 3 plus 4?")
    assert talk(*says, seed=5) == talk(*says, seed=5)
    assert talk(says[0], seed=0) != talk(says[0], seed=1)


@pytest.mark.parametrize("seed", range(8))
def test_the_samples_two_turns_keep_the_context(seed):
    joke, about = talk("Tell me a joke about programmers", "That's funny! Tell me about AI", seed=seed)
    word = joke_in(joke)["word"]
    assert word in about
    assert "Artificial intelligence" in about
    assert 4 <= len(ENDS.findall(about)) <= 6


def test_the_same_question_again_gives_another_joke_until_all_are_told():
    jokes = talk(*["Tell me a joke"] * len(TABLE["en"]["jokes"]))
    assert len(set(jokes)) == len(jokes)


def test_a_word_of_praise_between_does_not_shift_the_joke_it_speaks_of():
    first, _, about = talk("Tell me a joke", "Great joke, haha!", "So funny! Tell me about AI")
    assert joke_in(first)["word"] in about


@pytest.mark.parametrize(
    "form", ["My name is {}.", "Call me {}", "Hi, I'm {}!", "my name's {} and I like tea", "I am {}", "Hello there. I'm {}."]
)
def test_a_name_is_remembered_however_it_is_told(form):
    name = made_up().capitalize()
    told, _, asked = talk(form.format(name), "Tell me a joke", "What is my name?")
    assert name in told
    assert name in asked


def test_the_latest_name_counts_and_an_unknown_one_is_admitted():
    one, two = made_up(), made_up()
    assert two in talk(f"My name is {one}", f"Please call me {two}", "what's my name?")[-1]
    assert "do not know your name" in talk("What is my name?")[0]
    assert "do not know your name" in talk("I'm tired", "I am learning Python", "Do you know my name?")[-1]


def test_a_name_in_the_instructions_or_a_system_message_is_known():
    name = made_up().capitalize()
    assert name in Tutor().reply(f"The user is called {name}.", [("user", "What is my name?")])
    assert name in Tutor().reply("", [("system", f"The learner's name is {name}."), ("user", "What is my name?")])


@pytest.mark.parametrize("form", ["{}and", "{}and {}", "{}and{}", "{}and{} {}"])
def test_a_name_with_and_inside_is_told_whole(form):
    name = form.format(*(made_up().capitalize() for _ in range(3)))
    assert f"Nice to meet you, {name}!" in talk(f"I'm {name}")[0]


def test_the_last_name_of_a_message_counts_and_a_feeling_is_no_name():
    one, two = made_up().capitalize(), made_up().capitalize()
    assert f"Nice to meet you, {two}!" in talk(f"I am {one}. No, call me {two}! I'm tired.")[0]


def test_likes_and_favourites_and_work_are_remembered_apart():
    like, colour, work = made_up(), made_up(), made_up()
    told = (f"I like {like}", f"My favourite colour is {colour}", f"I work on a {work}")
    for question, wanted, other in [
        ("What do I like?", like, colour),
        ("What is my favourite colour?", colour, work),
        ("What do I work on?", work, like),
    ]:
        answer = talk(*told, question)[-1]
        assert wanted in answer
        assert other not in answer
    assert all(word in talk(*told, "What did I tell you?")[-1] for word in (like, colour, work))
    assert "not told me" in talk("Hello", "What do I like?")[-1]


def test_a_code_word_is_found_again():
    word = made_up()
    assert word in talk(f"The secret word is {word}.", "Tell me a joke", "What is the secret word?")[-1]
    assert word in talk(f"Please remember that my dog is called {word}", "What is my dog called?")[-1]


def test_it_knows_what_was_talked_about():
    odd = made_up()
    answer = talk("Tell me a joke", "What is latency?", f"Who invented the {odd}?", "What did we talk about?")[-1]
    assert "jokes" in answer
    assert "latency" in answer
    assert odd in answer


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Tell me about AI", "language model"),
        ("What is Python?", "Guido"),
        ("How does JupyterLab work?", "kernel"),
        ("Explain WebSockets", "upgrade"),
        ("What is Azure?", "Microsoft"),
        ("What is SSML?", "voice"),
        ("Why do we need a queue?", "waiting"),
        ("What does latency mean?", "first"),
        ("How is the weather?", "cannot know"),
        ("What time is it?", "cannot know"),
        ("Who are you?", "scripted practice tutor"),
        ("Thanks!", "welcome"),
        ("Goodbye", "Goodbye"),
        ("Hello", "Hello"),
    ],
)
def test_each_topic_has_its_answer(question, word):
    assert word in talk(question)[0]


@pytest.mark.parametrize(
    ("says", "word"),
    [
        ("What is my name? Tell me a joke", "do not know your name"),
        ("Show me a table about AI with many numbers", "|---|"),
        ("A joke with many numbers, please", "3.11.7"),
        ("Tell me a joke about AI", "programm"),
        ("Who are you, Python?", "scripted practice tutor"),
        ("Thanks, now tell me about AI", "language model"),
        ("Hello, thanks and bye", "welcome"),
        ("Hello and goodbye", "Goodbye"),
    ],
)
def test_of_two_wishes_the_first_rule_decides(says, word):
    assert word in talk(says)[0]


@pytest.mark.parametrize("sign", ["times", "plus", "minus", "*", "+", "-", "x", "multiplied by"])
def test_simple_sums_are_right(sign):
    a, b = WORDS.randint(2, 90), WORDS.randint(2, 90)
    value = {"times": a * b, "*": a * b, "x": a * b, "multiplied by": a * b, "plus": a + b, "+": a + b}.get(sign, a - b)
    assert f"is {value}." in talk(f"What is {a} {sign} {b}?")[0]


def test_division_is_right_and_honest_at_zero():
    assert "is 3.5." in talk("What is 7 divided by 2?")[0]
    assert "is 0.3333." in talk("What is 1/3?")[0]
    assert "divide by zero" in talk("What is 7 divided by 0?")[0]
    assert "is 84." in talk("What is twelve times seven?")[0]


def test_counting_goes_to_the_number_and_not_beyond_fifty():
    assert "1, 2, 3, 4, 5, 6, 7." in talk("Count to 7")[0]
    assert talk("Please count to 1000")[0].endswith("That was 50.")
    assert talk("count from one to twelve")[0].endswith("That was 12.")
    assert "That was" not in talk("Count to ²")[0]


@pytest.mark.parametrize(
    "question", ["Tell me a long story", "Explain queues in 200 words", "Give me a long answer about AI", "Explain SSML in detail"]
)
def test_a_long_answer_is_long(question):
    answer = talk(question)[0]
    assert len(re.findall(r"\s?\S{1,6}|\s+", answer)) >= 220
    assert len(ENDS.findall(answer)) > 8


def test_markdown_comes_only_when_asked_for():
    answer = talk("Answer with Markdown, please")[0]
    assert all(sign in answer for sign in ("## ", "**", "`inline", "```python", "](https://", "|---|", "- ", "1. "))
    plain = talk("Tell me a joke", "Tell me about AI", "Who are you?", "Why is the **sky** `blue`?", "Give me an answer with numbers")
    assert not re.search(r"[*`#|_]|^- |\]\(", "\n".join(plain))


def test_numbers_are_heavy_with_numbers():
    answer = talk("Give me an answer with many numbers")[0]
    assert all(part in answer for part in ("3.11.7", "2 a.m.", "$1,234.56", "U.S.", "Dr.", "e.g.", "2026"))


def test_an_unknown_question_is_answered_honestly_with_the_learners_own_words():
    odd = made_up()
    answer = talk(f"Who was the third king of {odd}?")[0]
    assert odd in answer
    assert all(part in answer for part in ("practice tutor", "four Azure keys", ".env", "real model"))


OBEYED = {
    "Talk like a pirate.": lambda text: text.startswith("Arr,"),
    "Answer in one sentence only.": lambda text: len(ENDS.findall(text)) == 1,
    "Explain it to a child.": lambda text: text.startswith("In easy words"),
    "Always end with a question.": lambda text: text.endswith("?"),
    "Answer in one sentence and end with a question": lambda text: text.endswith("?") and len(ENDS.findall(text)) == 1,
    "Be brief.": lambda text: len(ENDS.findall(text)) <= 2,
}


@pytest.mark.parametrize("instructions", OBEYED)
@pytest.mark.parametrize(
    "question",
    ["Hello", "Tell me a joke", "Tell me about AI", "Why is grass green?", "My name is Ana", "What is 3 plus 4?", "Who are you?"],
)
def test_each_instruction_shows_in_each_kind_of_answer(instructions, question):
    answer = talk(question, instructions=instructions)[0]
    assert OBEYED[instructions](answer), answer
    assert answer != talk(question)[0] or OBEYED[instructions](talk(question)[0])


@pytest.mark.parametrize(
    ("language", "joke", "ai", "unknown"),
    [
        ("Spanish", "programadores", "inteligencia", "tutor de práctica"),
        ("French", "programmeurs", "L'intelligence", "tuteur"),
        ("German", "Programmierer", "Künstliche", "Übungstutor"),
    ],
)
def test_answers_come_in_the_language_asked_for(language, joke, ai, unknown):
    name = made_up().capitalize()
    says = ("Tell me a joke", "Tell me about AI", "Why is grass green?", f"My name is {name}", "What is my name?")
    answers = talk(*says, instructions=f"Answer in {language}.")
    assert all(word in answer for word, answer in zip((joke, ai, unknown, name, name), answers, strict=True))
    assert "Your name" not in answers[-1]


@limit(60)
@pytest.mark.parametrize("piece", [",", ",;", ",and", "and ", "I'm ", "did i ", "1-", "? ", "a", "my name is "])
def test_one_piece_again_and_again_takes_no_minutes(piece):
    assert talk(piece * (32_000 // len(piece)), "What did I tell you?")[-1]


def test_a_note_ends_the_first_answer_only():
    tutor = Tutor(0, note="No voice here.")
    assert tutor.reply("", [("user", "Hello")]).endswith("No voice here.")
    assert "No voice" not in tutor.reply("", [("user", "Hello"), ("assistant", "Hi"), ("user", "Hello")])
