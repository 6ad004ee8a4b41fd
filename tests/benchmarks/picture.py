"""The silence before the first sound, as a picture: three answers, three ways, and the limit.

One sentence: `draw()` returns an SVG that stands alone in an `<img>`, so it brings its own panel and its own colours for light and dark.
What it does not do: compare answers with each other. Each answer has a linear scale of its own that begins at 0, because on a common one the first
two would be dots, and on a logarithmic one the length of a bar means nothing.
"""

import math
from html import escape

from answers import FAST
from first_sound import TOLD, Case, Silence
from report import ms
from ways import OneWorker, Ours, WaitForEverything

WIDTH, LEFT, LONGEST, TOP, BAR, STEP, GROUP = 760, 196, 370, 84, 18, 24, 138
RATE = 60
WAYS = (Ours, OneWorker, WaitForEverything)
FILLS = dict(zip(WAYS, ("solid", "url(#hatch)", "url(#dots)"), strict=True))
STYLE = """
text { font: 13px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; } .answer { font-weight: 600; } .faint { font-size: 11px; fill: #57606a; }
.panel { fill: #ffffff; stroke: #d0d7de; } .axis { stroke: #8c959f; } .limit { stroke: #1f2328; stroke-width: 2; stroke-dasharray: 4 2; }
.Ours { fill: #0a6b56; stroke: #0a6b56; } .OneWorker { fill: #b35900; stroke: #b35900; } .WaitForEverything { fill: #5a5fb0; stroke: #5a5fb0; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .faint { fill: #9da7b3; } .panel { fill: #161b22; stroke: #3d444d; } .axis { stroke: #7d8590; } .limit { stroke: #e6edf3; }
.Ours { fill: #4fc3a1; stroke: #4fc3a1; } .OneWorker { fill: #f0a04b; stroke: #f0a04b; } .WaitForEverything { fill: #a5a9f0; stroke: #a5a9f0; }
}
"""
PATTERNS = (
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="OneWorker" width="2.5" height="6" stroke-width="0"/></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<circle class="WaitForEverything" cx="3" cy="3" r="1.5" stroke-width="0"/></pattern>'
)


def draw(silence: Silence, cases: list[Case]) -> str:
    """Bars for the three answers at 60 tokens a second with the fast stub voice."""
    shown = [next(case for case in cases if (case.answer.name, case.rate, case.engine) == (name, RATE, FAST)) for name in TOLD]
    height = TOP + GROUP * len(shown) + 14
    words = "; ".join(_in_words(silence, case) for case in shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="t d">',
        '<title id="t">Silence before the first sound: three ways to speak three answers</title>',
        f'<desc id="d">Horizontal bars, seconds from the first token on its way to the first whole clip. {escape(words)}.</desc>',
        f"<style>{STYLE}</style><defs>{PATTERNS}</defs>",
        f'<rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
        _text(20, 32, "Silence before the first sound", "title"),
        _text(
            20,
            52,
            f"Text at {RATE} tokens/s; a stub voice: {FAST.first_byte_s * 1000:.0f} ms, then {FAST.rtf:g} s for each second of sound.",
            "faint",
        ),
        _text(
            20,
            68,
            "Dashed: the limit, the first safe sentence or clause has arrived and is synthesised. Each answer has its own scale.",
            "faint",
        ),
    ]
    for number, case in enumerate(shown):
        parts += _group(silence, case, TOP + GROUP * number)
    return "\n".join([*parts, "</svg>\n"])


def _group(silence: Silence, case: Case, top: float) -> list[str]:
    seconds = {way: silence.median(case, way) for way in WAYS}
    most = max(value for value in [*seconds.values(), case.limit_s] if value is not None)
    scale, limit = LONGEST / most, LEFT + case.limit_s * LONGEST / most
    bottom = top + 24 + STEP * len(WAYS)
    parts = [_text(20, top + 16, f"{case.answer.name}, {len(case.answer.tokens):,} tokens", "answer")]
    for row, (way, value) in enumerate(seconds.items()):
        y = top + 24 + row * STEP
        parts.append(_text(LEFT - 10, y + 14, way.name, anchor="end"))
        if value is None:
            parts.append(_text(LEFT + 8, y + 14, "not waited for in this run", "faint"))
            continue
        fill = "" if FILLS[way] == "solid" else f' style="fill:{FILLS[way]}"'
        parts.append(f'<rect class="{way.__name__}" x="{LEFT}" y="{y}" width="{max(1.5, value * scale):.1f}" height="{BAR}"{fill}/>')
        at = max(LEFT + value * scale, limit if abs(value * scale + LEFT - limit) < 3 else 0) + 8
        parts.append(_text(at, y + 14, f"{ms(value)}  ({_ratio(value / case.limit_s)} the limit)"))
    parts.append(f'<line class="limit" x1="{limit:.1f}" y1="{top + 18}" x2="{limit:.1f}" y2="{bottom}"/>')
    parts.append(_text(limit + 5, top + 16, f"limit {ms(case.limit_s)}", "faint"))
    return parts + _axis(most, scale, bottom)


def _axis(most: float, scale: float, y: float) -> list[str]:
    tens = 10 ** math.floor(math.log10(most / 4))
    step = next(tens * factor for factor in (1, 2, 5, 10) if most / (tens * factor) <= 5)
    parts = [f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{LEFT + LONGEST}" y2="{y}"/>']
    for number in range(int(most / step + 1e-9) + 1):
        x = LEFT + number * step * scale
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 4}"/>')
        parts.append(_text(x, y + 15, f"{number * step:g} s", "faint", "middle"))
    return parts


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _in_words(silence: Silence, case: Case) -> str:
    found = [(way.name, silence.median(case, way)) for way in WAYS]
    said = ", ".join(f"{name} {ms(value)}" if value is not None else f"{name} not measured" for name, value in found)
    return f"{case.answer.name} ({len(case.answer.tokens)} tokens): limit {ms(case.limit_s)}, {said}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f} ×" if ratio < 10 else f"{ratio:.0f} ×"
