"""A credit method that no line of scar/report/ knows shows in every table, figure and page of methods."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from scar.report import figures, style
from scar.report.credit_figures import figure1
from scar.report.credit_items import LEAST_RESPONSES, credit_files
from scar.report.items import report
from scar.report.selection import Sources
from scar.report.sweeps import frontier_figure, paired_markdown, sweep_markdown
from tests.report.credit_records import example_row, plain, write_record

NAME = "Mine (not in the paper)"


@pytest.fixture
def sources(make_run, tmp_path: Path) -> Sources:
    """Two seeds of sparse, SCAR and a method called "mine" on imdb and tldr."""
    for seed in (1, 2):
        for task in ("imdb", "tldr"):
            for method in ("sparse", "scar", "mine"):
                units = {"segmentation": "span"} if method == "scar" else {}
                make_run(method, seed, task=task, **units)
    return Sources(
        "local", tmp_path / "runs", tmp_path / "units", tmp_path / "critic", tmp_path / "credit", seeds=[1, 2]
    )


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.slow
def test_it_is_in_every_table(sources):
    files = report("all", sources)
    for name in ("table1.md", "comparisons.md", "report.html"):
        assert NAME in files[name].decode(), name
    for name in ("table1.csv", "comparisons.csv", "costs.md", "costs.csv"):
        assert "mine" in files[name].decode(), name


def test_it_is_in_every_figure_of_methods(sources):
    shown = [legend(figures.figure2(sources.cells()))]
    for name in ("figure3", "figure4"):
        figure = figures.FIGURES[name]
        records = sources.of_task(figure.task).runs()
        chosen = figures.select_variants(records, figure.task, figure.variants_in(records), seeds=[1, 2])
        shown.append(legend(figure.draw(chosen)))
    for texts in shown:
        assert f"{NAME}, n=2" in texts


def test_it_is_in_sweeps(make_run):
    runs = [make_run(m, 1, folder=f"{m}{kl}", config={"ppo.kl_coef": kl}) for m in ("red", "mine") for kl in (0.1, 0.2)]
    assert "| imdb | mine | 0.1 |" in sweep_markdown(runs)
    assert "| mine |" in paired_markdown(runs)
    assert "mine" in legend(frontier_figure(runs))


def test_it_has_a_row_in_figure_1_and_a_line_where_credit_is_measured(tmp_path):
    row = example_row()
    row["methods"]["mine"] = plain([0.0, 1.0, 0.5, 0.5, 0.0, 0.0, 0.0])
    settings = {label: {"method": {"name": label}, "estimator": None} for label in row["methods"]}
    record = write_record(tmp_path / "r", [row] * LEAST_RESPONSES, methods=settings)
    assert "Mine\n(not in\nthe paper)" in [text.get_text() for text in figure1(record).axes[0].texts]
    files = credit_files(record)
    assert f"| {NAME} |" in files["credit_stats.md"].decode()
    assert NAME in files["credit.html"].decode()


def test_a_line_gives_it_a_name_and_a_place(make_run, monkeypatch):
    monkeypatch.setitem(style.METHODS, "mine", style.Look("My method", "#56B4E9"))
    assert style.method_name("mine") == "My method"
    assert style.in_order(["mine", "other", "scar"]) == ["scar", "mine", "other"]
