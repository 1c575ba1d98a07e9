"""All targets from hand-made records, and what happens where records are missing or may not stand together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scar.report.items import read_request, report, verdicts
from scar.report.selection import Sources

FIGURES = ("figure2", "figure3", "figure4", "figure5", "released")


@pytest.fixture
def sources(tmp_path):
    return Sources(
        scale="local",
        records=tmp_path / "runs",
        units=tmp_path / "units",
        critic=tmp_path / "critic",
        released=tmp_path / "released",
        credit=tmp_path / "credit",
        judgements=tmp_path / "judgements",
        seeds=[1, 2],
    )


@pytest.fixture
def whole(make_run):
    """Two seeds of every method on every task, token units on tldr, a separate value function on imdb, and there sparse rewards
    paid twice."""
    for seed in (1, 2):
        for task in ("imdb", "tldr", "hh"):
            units = {"imdb": "token", "tldr": "span", "hh": "sentence"}[task]
            for method in ("sparse", "uniform", "abc", "red"):
                make_run(method, seed, task=task)
            make_run("scar", seed, task=task, segmentation=units, final=1.995 + 0.01 * seed)
        make_run("scar", seed, task="tldr", folder=f"../units/{seed}", segmentation="token")
        for method in ("sparse", "scar"):
            config = {"ppo.value_net": "separate"}
            make_run(method, seed, folder=f"../critic/{method}{seed}", config=config)
        make_run("sparse", seed, folder=f"../released/{seed}", config={"alpha": 0.0, "sparse_weight": 2.0})


def test_everything_is_one_page_that_needs_nothing_beside_it(sources, whole):
    files = report("all", sources)
    names = {"report.html", "verdicts.md", "table1.md", "comparisons.csv", "released.md", "released.csv"}
    names |= {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf", "json")}
    assert names <= files.keys()
    text = files["report.html"].decode()
    assert text.count("data:image/png;base64,") == len(FIGURES)
    assert [curve["n"] for curve in json.loads(files["released.json"])["imdb"]["curves"]] == [2] * 5
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "<strong>leans yes</strong>" in text
    assert "<table>" in text
    assert "not comparable with the paper" in text


def test_the_verdict_on_the_default_critic_stands_beside_the_main_claim(sources, whole):
    lines = [verdict.line for verdict in verdicts(sources)]
    assert (
        # 1.005 and 1.015: 1.01 +- 12.7062 * 0.005
        "SCAR > Sparse RLHF on IMDB, final test reward (Table 1): leans yes, +1.01 [+0.95, +1.07], 2/2 seeds" in lines
    )
    assert any(
        "separate value function (ppo.value_net=separate) (not in the paper): not shown, +0.00" in line
        for line in lines
    )


def test_a_page_of_one_run_says_what_is_missing_and_unfinished_and_holds_no_markup_of_records(
    sources, make_run, tmp_path
):
    make_run("scar", 1, folder="local/a", device={"kind": "cpu", "name": "<script>alert(1)</script>"})
    make_run("scar", 2, folder="local/b.partial")
    text = report("all", sources)["report.html"].decode()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert f"Unfinished runs, left out: {tmp_path}/runs/local/b.partial" in text
    assert "n=1/2" in text
    assert "Missing: " in text
    assert "make reproduce-fig4 SCALE=local" in text
    assert "make reproduce-released SCALE=local" in text
    words = {verdict.claim: verdict.verdict for verdict in verdicts(sources)}
    assert words["SCAR, span units > Sparse RLHF after equal device time on TL;DR, training reward"] == "not run"


def test_nothing_at_all_is_an_error(sources):
    with pytest.raises(ValueError, match=r"nothing to report: no run in .* make reproduce-table1 SCALE=local"):
        report("all", sources)


def test_claims_of_runs_that_may_not_be_compared_cannot_be_said(sources, make_run):
    make_run("scar", 1)
    make_run("sparse", 1, config={"ppo.kl_coef": 9.0})
    found = {v.source: v for v in verdicts(sources)}
    assert found["Table 1"].verdict == "cannot be said"
    assert "unfair comparison" in found["Table 1"].evidence
    assert found["Figure 4"].verdict == "not run"


def test_the_former_name_of_red_asks_for_red():
    settings = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[2] / "conf" / "tools" / "report.yaml"))
    request = read_request(settings | {"methods": ["sparse", "prefix", "red"]})
    assert request.sources.methods == ["sparse", "red"]
