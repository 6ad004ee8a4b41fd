"""How fast the voice is: the numbers of design §10, measured, beside the two ways that most of us write first.

    python tests/benchmarks/speech_pipeline.py [--quick] [--svg PATH]

Prints one Markdown table per theme, each row with its target and a verdict, and one line at the end. Nothing in the tables is typed in but targets.
Read in this order: `answers` (limits from marks made by hand), `stubs` (a voice and a loudspeaker that keep time), `ways` (ours and two others),
then the themes: `first_sound`, `steadiness`, `practice_voice`; `picture` draws the first of them.
Absolute milliseconds belong to the machine; what can be compared are ratios to the limit of the same run.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import first_sound
import steadiness
from picture import draw
from practice_voice import practice_voice
from report import Report

PICTURE = Path(__file__).parents[2] / "notebooks" / "assets" / "speech_pipeline.svg"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the way from tokens to sound (design §10). Exit code 1 when a target is missed.")
    parser.add_argument("--quick", action="store_true", help="at most 40 s: fewer samples, one voice, nobody waits for the longest answer")
    picture = f"where the picture goes (default: {PICTURE.relative_to(Path(__file__).parents[2])}; with --quick: nowhere)"
    parser.add_argument("--svg", type=Path, metavar="PATH", help=picture)
    return parser.parse_args()


def main() -> int:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "VOICEHELPER_"))]:
        del os.environ[name]  # no keys, no other pace, also for the processes that are started
    options, report, begun = arguments(), Report(), time.monotonic()
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    report.say(f"# From tokens to sound ({'quick' if options.quick else 'full'} run: {machine})")
    silence, cases = first_sound.measure(options.quick)
    first_sound.first_sound(report, silence, cases)
    first_sound.gaps(report, silence, cases)
    first_sound.cuts(report)
    steadiness.cpu(report, options.quick)
    steadiness.interrupts(report, options.quick)
    steadiness.turns(report, options.quick)
    steadiness.start(report, options.quick)
    practice_voice(report, options.quick)
    path = options.svg or (None if options.quick else PICTURE)
    if path is not None:
        path.write_text(draw(silence, cases), "utf-8")
        report.say(f"Picture: {path}")
    return report.summary(time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
