"""costs: what the service counted, in counts and in money."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ET
from datetime import date
from fractions import Fraction
from functools import reduce
from operator import add
from pathlib import Path

import pytest

import voicehelper.costs
from voicehelper.costs import Cost, cost_of
from voicehelper.settings import DEFAULT_DEPLOYMENT
from voicehelper.ssml import Voice, billed_characters, create_response_ssml

from .support import forall, made_up, openai_faults, scaled, st

# US dollars for a million tokens, written down here a second time: text given, cached, made; audio given, cached, made; image given, cached
FULL = "4.00 0.40 {} 32.00 0.40 64.00 5.00 0.50"
MINI = "0.60 0.06 2.40 10.00 0.30 20.00 0.80 0.08"
LIST = {
    "gpt-realtime-2.1": FULL.format("24.00"),
    "gpt-realtime-2": FULL.format("24.00"),
    "gpt-realtime-2.1-mini": MINI,
    "gpt-realtime-1.5": FULL.format("16.00"),
    "gpt-realtime": FULL.format("16.00"),
    "gpt-realtime-mini": MINI,
    "gpt-4o-realtime-preview": "5.00 2.50 20.00 40.00 2.50 80.00",
    "gpt-4o-mini-realtime-preview": "0.60 0.30 2.40 10.00 0.30 20.00",
}
SPEECH = Fraction(15)
TABLE = json.loads(Path(voicehelper.costs.__file__).with_name("prices.json").read_text("utf-8"))
ODD = [None, "12", 1.5, -7, True, [], {}, float("nan"), float("inf"), 10**400, "\ud800"]


def tokens_of(given=(0, 0, 0), cached=(0, 0, 0), made=(0, 0)) -> dict:
    """`usage` as the service writes it: text, audio and image that are given and cached, text and audio that are made."""
    kinds = ("text_tokens", "audio_tokens", "image_tokens")
    details = dict(zip(kinds, given, strict=True)) | {
        "cached_tokens": sum(cached),
        "cached_tokens_details": dict(zip(kinds, cached, strict=True)),
    }
    sums = {"total_tokens": sum(given) + sum(made), "input_tokens": sum(given), "output_tokens": sum(made)}
    return sums | {"input_token_details": details, "output_token_details": dict(zip(kinds, made, strict=False))}


def dollars(usage: dict, characters: int, model: str) -> Fraction:
    """The reference's formula, term by term, in exact numbers."""
    text_in, text_c, text_out, audio_in, audio_c, audio_out, image_in, image_c = [
        *map(Fraction, LIST[model].split()),
        Fraction(0),
        Fraction(0),
    ][:8]
    i, o = usage["input_token_details"], usage["output_token_details"]
    c = i["cached_tokens_details"]
    text = (i["text_tokens"] - c["text_tokens"]) * text_in + c["text_tokens"] * text_c + o["text_tokens"] * text_out
    audio = (i["audio_tokens"] - c["audio_tokens"]) * audio_in + c["audio_tokens"] * audio_c + o["audio_tokens"] * audio_out
    image = (i["image_tokens"] - c["image_tokens"]) * image_in + c["image_tokens"] * image_c
    return (text + audio + image + characters * SPEECH) / 1_000_000


def some_usage(most: int = 100_000, kinds: int = 3) -> dict:
    given = [random.randint(0, most) * (kind < kinds) for kind in range(3)]
    return tokens_of(given, [random.randint(0, count) for count in given], [random.randint(0, most) for _ in range(2)])


def is_close(usd: float | None, exact: Fraction) -> bool:
    return usd is not None and abs(Fraction(usd) - exact) <= exact / 10**12


def texts(html: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(html).iter() if element.tag in ("caption", "th", "td")]


# -- the formula


@pytest.mark.parametrize("model", LIST)
def test_every_model_of_the_table_is_priced_by_the_reference_s_formula(model):
    for _ in range(scaled(2_000)):
        usage, characters = (
            some_usage(random.choice([9, 900, 100_000]), kinds=3 if len(LIST[model].split()) == 8 else 2),
            random.randint(0, 9_999),
        )
        cost = cost_of(usage, characters, model)
        assert is_close(cost.usd, dollars(usage, characters, model))
        assert (cost.input_tokens, cost.output_tokens) == (usage["input_tokens"], usage["output_tokens"])
        assert (cost.cached_tokens, cost.characters, cost.model) == (usage["input_token_details"]["cached_tokens"], characters, model)


def test_a_text_turn_computed_by_hand():
    """(100 - 64) x 0.60 + 64 x 0.06 + 20 x 2.40 = 73.44, and 48 characters x 15 = 720: 793.44 millionths."""
    cost = cost_of(tokens_of(given=(100, 0, 0), cached=(64, 0, 0), made=(20, 0)), 48, "gpt-realtime-2.1-mini")
    assert cost == Cost(100, 64, 20, 48, pytest.approx(0.00079344), "gpt-realtime-2.1-mini")


def test_a_million_of_each_kind_costs_its_list_price():
    kinds = {"given": 3, "cached": 3, "made": 2}
    column = {
        ("given", 0): 0,
        ("cached", 0): 1,
        ("made", 0): 2,
        ("given", 1): 3,
        ("cached", 1): 4,
        ("made", 1): 5,
        ("given", 2): 6,
        ("cached", 2): 7,
    }
    for model, prices in LIST.items():
        for (way, kind), number in column.items():
            if number < len(prices.split()):
                counts = [10**6 * (at == kind) for at in range(kinds[way])]
                usage = tokens_of(given=counts, cached=counts) if way == "cached" else tokens_of(**{way: counts})
                assert cost_of(usage, 0, model).usd == pytest.approx(float(prices.split()[number])), (model, way, kind)


def test_the_reference_s_usage_is_one_that_openai_s_own_types_accept():
    response = {"object": "realtime.response", "id": "resp_1", "status": "completed", "output": [], "usage": some_usage()}
    assert openai_faults({"type": "response.done", "event_id": "event_1", "response": response}, "server") == []


def test_cached_tokens_of_which_the_kind_is_not_told_are_text():
    given, cached = random.randint(500, 900), random.randint(1, 400)
    usage = tokens_of(given=(given, 77, 0), cached=(cached, 0, 0), made=(5, 0))
    exact = dollars(usage, 0, "gpt-realtime-2.1")
    for rest in ({}, {"cached_tokens_details": None}, {"cached_tokens_details": {}}, {"cached_tokens_details": {"text_tokens": None}}):
        details = {name: count for name, count in usage["input_token_details"].items() if name != "cached_tokens_details"}
        assert is_close(cost_of({**usage, "input_token_details": details | rest}, 0, "gpt-realtime-2.1").usd, exact)


def test_a_server_that_tells_no_kinds_is_paid_for_text_and_not_for_nothing():
    count, made = random.randint(1, 999), random.randint(1, 999)
    for details in ({}, {"input_token_details": None, "output_token_details": None}, {"input_token_details": {"text_tokens": None}}):
        cost = cost_of({"input_tokens": count, "output_tokens": made, **details}, 0, "gpt-realtime-1.5")
        assert is_close(cost.usd, Fraction(count * 4 + made * 16, 10**6))
        assert (cost.input_tokens, cost.cached_tokens, cost.output_tokens) == (count, 0, made)


def test_sums_that_are_missing_are_made_from_the_kinds():
    usage = some_usage()
    bare = {name: usage[name] for name in ("input_token_details", "output_token_details")}
    del bare["input_token_details"]["cached_tokens"]
    whole = cost_of(usage, 3, "gpt-realtime-2")
    assert cost_of(bare, 3, "gpt-realtime-2") == whole
    assert whole.input_tokens == usage["input_tokens"]


def test_no_more_than_the_input_is_taken_for_cached():
    usage = tokens_of(given=(10, 0, 0), cached=(10**6, 10**6, 0))
    assert is_close(cost_of(usage, 0, "gpt-realtime").usd, Fraction(4, 10**6))


@pytest.mark.parametrize(
    "usage", [None, {}, {"input_token_details": {}, "output_token_details": None}, *ODD], ids=lambda usage: repr(usage)[:20]
)
def test_no_usage_costs_its_speech_only(usage):
    assert cost_of(usage, 200, DEFAULT_DEPLOYMENT) == Cost(0, 0, 0, 200, pytest.approx(0.003), DEFAULT_DEPLOYMENT)


def paths(value: dict, above: tuple = ()) -> list[tuple]:
    below = [path for name, inner in value.items() if isinstance(inner, dict) for path in paths(inner, (*above, name))]
    return [(*above, name) for name in value] + below


@pytest.mark.parametrize("path", paths(tokens_of()), ids=".".join)
def test_a_field_that_is_missing_or_null_or_of_a_wrong_type_breaks_nothing_and_counts_no_tokens(path):
    for odd in [*ODD, "missing"]:
        usage = some_usage(most=1_000)
        holder = reduce(lambda value, name: value[name], path[:-1], usage)
        if odd == "missing":
            del holder[path[-1]]
        else:
            holder[path[-1]] = odd
        cost = cost_of(usage, 0, "gpt-realtime-2.1")
        assert 0 <= cost.usd < 1
        assert all(type(count) is int and 0 <= count <= 6_000 for count in (cost.input_tokens, cost.cached_tokens, cost.output_tokens))
        assert str(cost)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_what_is_no_number_of_tokens_counts_as_0_wherever_it_stands(odd):
    kinds = dict.fromkeys(("text_tokens", "audio_tokens", "image_tokens", "cached_tokens"), odd)
    usage = {
        "input_tokens": odd,
        "output_tokens": odd,
        "input_token_details": {**kinds, "cached_tokens_details": kinds},
        "output_token_details": kinds,
    }
    assert cost_of(usage, 0, "gpt-realtime-2.1") == Cost(model="gpt-realtime-2.1")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted({name for path in paths(tokens_of()) for name in path})), inner)
    ),
    max_leaves=20,
)


@forall(anything, st.integers(0, 10**9), st.sampled_from([*LIST, "", "my-own"]))
def test_whatever_a_server_sends_as_usage_becomes_a_cost_of_one_short_line(usage, characters, model):
    cost = cost_of(usage, characters, model)
    assert cost.usd is None or cost.usd >= 0
    assert len(str(cost)) <= 160
    assert "\n" not in str(cost)
    ET.fromstring(cost._repr_html_())


# -- which model


@pytest.mark.parametrize("model", LIST)
def test_a_deployment_that_begins_with_the_name_of_a_model_is_taken_for_that_model(model):
    usage = some_usage(kinds=2)
    owner = made_up().lower()
    for name in (
        model,
        model.upper(),
        f"{model}-{owner}",
        f"{model}_{owner}",
        f"{model}-2025-08-28",
        f"{model}.{owner}",
        f"{model}-{owner}-mini",
        f"{model} 3",
    ):
        cost = cost_of(usage, 10, name)
        assert is_close(cost.usd, dollars(usage, 10, model)), name
        assert cost.model == name


@pytest.mark.parametrize(
    "name", ["gpt-realtime-3", "gpt-realtime-2.5", "gpt-realtime-10-mini", "gpt-realtime-2.1-nano", "gpt-realtime-pro", "gpt-realtime2"]
)
def test_a_model_that_only_looks_like_a_known_one_has_no_price(name):
    assert cost_of(some_usage(), 10, name).usd is None


@pytest.mark.parametrize("name", ["", "gpt", "gpt-4o", "my-gpt-realtime", "whisper-1", "realtime"])
def test_an_unknown_model_costs_none_and_never_0_and_its_counts_are_shown(name):
    usage = some_usage()
    cost = cost_of(usage, 1_234, name)
    assert cost.usd is None
    assert (cost.input_tokens, cost.output_tokens, cost.characters) == (usage["input_tokens"], usage["output_tokens"], 1_234)
    assert f"{usage['input_tokens']:,} tokens in" in str(cost)
    assert str(cost).endswith("price unknown")
    assert cost_of(None, 0, name).usd is None
    assert "$" not in str(cost) + cost._repr_html_()


def test_tokens_of_a_kind_that_has_no_price_cost_none_and_none_of_them_cost_nothing():
    assert cost_of(tokens_of(given=(5, 5, 1)), 0, "gpt-4o-realtime-preview").usd is None
    assert cost_of(tokens_of(given=(5, 5, 0)), 0, "gpt-4o-realtime-preview").usd is not None


# -- the data file


def test_the_table_holds_exactly_the_models_of_the_reference():
    assert set(TABLE["models"]) == set(LIST)


def test_every_price_names_its_source_and_its_day_and_none_is_younger_than_the_table():
    for price in (*TABLE["models"].values(), TABLE["speech"]):
        assert price["source"].startswith("https://")
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", price["as_of"])
        date.fromisoformat(f"{price['as_of']}-01"[:10])
        assert price["as_of"][:7] <= TABLE["as_of"]
    assert re.fullmatch(r"20\d\d-\d\d", TABLE["as_of"])


def test_the_deployment_that_is_used_when_none_is_named_has_a_price():
    assert cost_of(None, 1, DEFAULT_DEPLOYMENT).usd is not None


# -- adding up


def some_cost() -> Cost:
    known = cost_of(some_usage(kinds=2), random.randint(0, 5_000), random.choice([*LIST]))
    return random.choice([known, known, Cost(), cost_of(some_usage(), 7, made_up())])


def test_adding_is_associative_keeps_what_is_unknown_and_begins_with_nothing():
    for _ in range(scaled(5_000)):
        a, b, c = (some_cost() for _ in range(3))
        left, right = (a + b) + c, a + (b + c)
        assert (*vars(left).values(),)[:4] == (*vars(right).values(),)[:4]
        assert left.model == right.model
        assert (left.usd is None) == (right.usd is None) == (None in (a.usd, b.usd, c.usd))
        assert left.usd == pytest.approx(right.usd)
        assert a + Cost() == Cost() + a == a
        assert left.input_tokens == a.input_tokens + b.input_tokens + c.input_tokens
        assert left.characters == a.characters + b.characters + c.characters


def test_a_session_is_the_sum_of_its_turns():
    usages = [some_usage(kinds=2) for _ in range(20)]
    session = sum((cost_of(usage, 10, "gpt-realtime") for usage in usages), Cost())
    assert is_close(session.usd, sum(dollars(usage, 10, "gpt-realtime") for usage in usages))
    assert session.model == "gpt-realtime"
    assert session.characters == 200


def test_one_turn_of_unknown_price_makes_the_session_s_unknown_while_its_counts_go_on():
    known, unknown = cost_of(some_usage(), 5, "gpt-realtime"), cost_of(some_usage(), 6, "mine")
    for total in (known + unknown, unknown + known, reduce(add, [known, unknown, known])):
        assert total.usd is None
    assert (known + unknown).input_tokens == known.input_tokens + unknown.input_tokens
    assert (known + unknown + known).model == "gpt-realtime, mine"


def test_a_cost_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        Cost().usd = 0.0


# -- how it is written


def test_the_line_tells_counts_money_and_the_date_of_the_prices():
    cost = cost_of(tokens_of(given=(1234, 0, 0), cached=(512, 0, 0), made=(87, 0)), 412, "gpt-realtime-2.1-mini")
    line = f"1,234 tokens in (512 cached), 87 out, 412 characters spoken: about $0.0069, an estimate of {TABLE['as_of']}"
    assert str(cost) == line
    assert f"{float(dollars(tokens_of((1234, 0, 0), (512, 0, 0), (87, 0)), 412, 'gpt-realtime-2.1-mini')):.4f}" == "0.0069"


def test_what_costs_little_is_not_written_as_nothing():
    assert "less than $0.0001" in str(cost_of(tokens_of(made=(1, 0)), 0, "gpt-realtime-mini"))
    assert "about $0.0001" in str(cost_of(tokens_of(given=(25, 0, 0)), 0, "gpt-realtime"))


def test_the_line_has_at_most_160_characters():
    most = 999_999_999
    assert len(str(cost_of(tokens_of(given=(most, 0, 0), cached=(most, 0, 0), made=(0, most)), most, "gpt-realtime"))) <= 160
    assert len(str(cost_of({"input_tokens": most}, most, "x" * 500))) <= 160


def test_the_table_is_well_formed_has_a_caption_and_a_heading_in_each_row():
    cost = cost_of(some_usage(kinds=2), 321, f"gpt-realtime-{made_up()}")
    table = ET.fromstring(cost._repr_html_())
    assert table.tag == "table"
    assert table[0].tag == "caption"
    assert table[0].text
    for row in table.iter("tr"):
        assert [(cell.tag, cell.get("scope")) for cell in row] == [("th", "row"), ("td", None)]
    cells = texts(cost._repr_html_())
    for shown in (f"{cost.input_tokens:,}", f"{cost.cached_tokens:,}", f"{cost.output_tokens:,}", "321", cost.money, cost.model):
        assert shown in cells


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "</table><script>", "a & b", "{0} {model} %s {", "x\0\x1b[0m\ud800y", "'\"><b>", "é 中 😀"]
)
def test_the_name_of_a_model_is_shown_as_text_whatever_it_is(name):
    html = cost_of(None, 0, name)._repr_html_()
    assert {element.tag for element in ET.fromstring(html).iter()} == {"table", "caption", "tbody", "tr", "th", "td"}
    assert re.sub(r"[\0\x1b\ud800]", "", name) in [text.replace("\ufffd", "") for text in texts(html)]
    html.encode("utf-8")


def test_speech_is_paid_for_as_the_ssml_that_was_sent():
    documents = [create_response_ssml(f"{made_up()}, {made_up()}.", voice) for voice in (Voice(), Voice(rate="+10%"))]
    characters = sum(map(billed_characters, documents))
    cost = cost_of(None, characters, DEFAULT_DEPLOYMENT)
    assert cost.characters == characters
    assert is_close(cost.usd, Fraction(15 * characters, 10**6))
