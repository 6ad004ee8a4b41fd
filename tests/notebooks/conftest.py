"""The course's notebooks, and what every run of them has: no keys, no sound, a clock that runs faster."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
QUIET = {"VOICEHELPER_SOUND": "silent", "VOICEHELPER_TIME_SCALE": "20"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, 4)


@pytest.fixture
def quiet(monkeypatch) -> dict[str, str]:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)
