"""The manner of the notebooks, as the style guide has it."""

from __future__ import annotations

import json
import re

import voicehelper


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_it_opens_with_title_minutes_pipeline_and_what_you_will_do_and_ends_with_key_points(notebook):
    first = notebook.cells[0].source
    assert first.startswith("# ") and re.search(r"\d+ minutes", first) and "**You will**" in first and "⟦" in first
    assert "## Key points" in words(notebook) and "ext:**" in words(notebook)
    assert "## Your turn" in words(notebook) and "<details>" in words(notebook)


def test_cells_are_short(notebook):
    """8 to 20 code cells; code cells of 12 lines at most."""
    assert 8 <= len(code(notebook)) <= 20
    long = [cell.source for cell in code(notebook) if len([line for line in cell.source.splitlines() if line.strip()]) > 12]
    assert not long


def test_it_is_committed_without_outputs_sound_or_keys(path, notebook):
    text = path.read_text("utf-8")
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))
    assert "data:audio" not in text and "widgets" not in notebook.metadata
    assert not re.search(r"\b[0-9a-f]{32}\b|\b[A-Za-z0-9]{84}\b", json.dumps([cell.source for cell in notebook.cells]))


def test_links_lead_somewhere_and_names_exist(path, notebook):
    for target in re.findall(r"\]\(([^)#]+)\)", words(notebook)):
        assert target.startswith("https://") or (path.parent / target).exists(), target
    for names in re.findall(r"from voicehelper import ([\w, ]+)", "\n".join(cell.source for cell in code(notebook))):
        for name in names.split(","):
            assert hasattr(voicehelper, name.strip())
