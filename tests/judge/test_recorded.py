"""Recorded annotations of a large teacher: the figures in docs/explanations.md are the ones measured."""

import re
from pathlib import Path

from r2r.config import JudgeSettings
from r2r.judge import explained
from r2r.judge.figures import figures, plant
from r2r.judge.stage import MEASURES

PAGE = Path(__file__).parents[2] / "docs" / "explanations.md"


def test_the_page_has_the_figures_of_the_recorded_annotations(data):
    settings = JudgeSettings()
    rows = explained.read(f"teacher:{data / 'teacher-gpt4' / 'msmarco_500.jsonl'}", None)
    made = plant(rows, settings.planted, settings.seed)
    page = PAGE.read_text().split("## A large teacher's reasons")[1]
    for measure in MEASURES:
        found = figures(measure, made, settings.seed)
        said = re.search(rf"^\| {measure.name}[^|]*\| ([0-9].*)\|$", page, re.MULTILINE)
        cells = [cell.strip() for cell in said[1].split("|")]
        assert cells[0] == f"{found['value']:.3f}", measure.name
        assert cells[1] == f"{found['low']:.3f} to {found['high']:.3f}"
        assert cells[2:4] == [f"{found[end]:.3f}" for end in ("floor", "ceiling")]
        assert cells[4] == f"{found['n']:,} of {found['of']:,}"
        assert cells[5:7] == [f"{found[name]:.1%}".replace("%", " %") for name in ("detected", "false_alarms")]
