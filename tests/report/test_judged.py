from __future__ import annotations

import pytest
from scipy import stats

from scar.report.statistics import even_p, wilson_interval
from scar.report.table2 import judged_verdicts, table2_csv, table2_markdown, table2_rows
from scar.tracking.judgements import JudgementRecord, find_judgements, write_judgement


@pytest.fixture
def judged(tmp_path):
    """A judgement of SCAR: letters w, t, l, u are its verdicts; the method is shown first in every second item."""

    def build(
        verdicts, seed=1, *, task="tldr", baseline="sparse", judge="reward_model", folder="", rows=None, **changed
    ):
        names = {"w": "win", "t": "tie", "l": "loss", "u": "unparsed"}
        found = [
            {"item": i, "verdict": names[v], "by_order": [names[v]], "answers": [{"method_first": i % 2 == 0}]}
            | {"preference": None}
            for i, v in enumerate(verdicts)
        ]
        manifest = {"scale": "local", "task": task, "judge": judge, "label": "gold reward model, not an LLM"}
        manifest |= {"method": "scar", "baseline": baseline, "seed": seed, "model_seed": 1, "settings": {"name": judge}}
        manifest |= {"items": len(verdicts), "runs": {}, "order_seed": 0, "both_orders": False}
        where = tmp_path / "judgements" / (folder or f"{task}-{baseline}-{judge}-{seed}")
        return write_judgement(where, manifest | changed, found if rows is None else rows)

    return build


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (3, 10), (10, 10), (612, 1000)])
def test_wilson_is_scipys_for_whole_numbers(wins, n):
    expected = stats.binomtest(wins, n).proportion_ci(method="wilson")
    assert wilson_interval(wins, n) == pytest.approx((expected.low, expected.high))


def test_the_p_value_of_a_half_is_that_of_wilsons_interval():
    assert even_p(60, 100) == pytest.approx(0.0455, abs=1e-4)  # (60 - 50) / 5 = 2 standard errors
    bound = wilson_interval(59.8, 100)[0]  # 59.8 wins are 1.96 standard errors: the interval ends at one half
    assert (bound, even_p(59.8, 100)) == (pytest.approx(0.5, abs=1e-4), pytest.approx(0.05, abs=1e-4))


def test_ties_count_half_and_unread_answers_not_at_all(judged):
    (row,) = table2_rows([judged("wwtlu", 1), judged("wwww", 2)])
    assert [row[name] for name in ("win", "tie", "loss", "unparsed", "n", "seeds")] == [6, 1, 1, 1, 8, 2]
    assert row["win_rate"] == pytest.approx(6.5 / 8)
    assert (row["low"], row["high"]) == pytest.approx(wilson_interval(6.5, 8))
    assert row["seed_mean"] == pytest.approx((2.5 / 4 + 1) / 2)
    assert row["first_share"] == pytest.approx(5 / 9)
    assert row["paper"] == pytest.approx(0.612)


def test_markdown_says_who_judged_and_how_many_seeds_there_are(judged):
    gold = {"report": {"accuracy": 0.71, "train_texts": 9}}
    runs = [judged("wwwl", 1, gold=gold), judged("wl", 1, task="hh", baseline="abc")]
    text = table2_markdown(runs, wanted_seeds=5)
    assert text.startswith("# Table 2, scale local: judged by gold reward model, not an LLM\n")
    assert (
        "| TL;DR | SCAR against Sparse RLHF | 3 / 0 / 1 | 0 | 75.0% [30.1%, 95.4%] | 4 | 1/5 | 75.0% ± - | 50% |"
        in text
    )
    assert "61.2% (gemini-2.5-pro) |" in text
    assert "54.9% (AlpacaEval, gpt-4-turbo) |" in text
    assert "The gold reward model on held-out data: TL;DR: accuracy 0.71." in text
    assert text.index("TL;DR | SCAR") < text.index("HH | SCAR")
    assert table2_csv(runs).splitlines()[1].startswith("tldr,scar,sparse,3,0,1,0,1,4,0.75,")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"judge": "gemini"}, "judge"),
        ({"scale": "paper"}, "scale"),
        ({"model_seed": 2}, "model_seed"),
        ({"settings": {"name": "reward_model", "model": "x"}}, "the judge's settings"),
    ],
)
def test_what_differs_in_judge_or_scale_shares_no_table(judged, changed, named):
    first, second = judged("w", 1), judged("w", 2, folder="other", **changed)
    with pytest.raises(ValueError, match=f"differ in {named}") as caught:
        table2_rows([first, second])
    assert str(first.path) in str(caught.value)
    assert str(second.path) in str(caught.value)


def test_one_pair_of_runs_judged_twice_is_refused(judged):
    with pytest.raises(ValueError, match="two judgements of one pair"):
        table2_rows([judged("w"), judged("w", folder="again")])


def test_verdicts_follow_the_interval(judged):
    words = {v.claim.split(",")[0]: v.verdict for v in judged_verdicts([
        judged("w" * 40 + "l" * 10), judged("w" * 25 + "l" * 25, baseline="abc"), judged("l" * 20, task="hh"),
        judged("u" * 3, task="hh", baseline="abc"),
    ])}  # fmt: skip
    assert words == {
        "SCAR is preferred to Sparse RLHF on TL;DR": "yes",
        "SCAR is preferred to ABC on TL;DR": "not shown",
        "SCAR is preferred to Sparse RLHF on HH": "no",
        "SCAR is preferred to ABC on HH": "cannot be said",
    }
    assert judged_verdicts([]) == []


def test_records_are_found_by_what_their_manifest_says(judged, tmp_path):
    judged("w", 1)
    judged("w", 2)
    judged("w", 1, task="hh")
    (tmp_path / "judgements" / "x.partial").mkdir()
    (tmp_path / "judgements" / "x.partial" / "manifest.json").write_text("{")
    found = find_judgements(tmp_path / "judgements", task="tldr", seed=[2, 3])
    assert [record.manifest["seed"] for record in found] == [2]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("manifest.json", "{", "cannot be read"),
        ("manifest.json", "{}", "not that of a judgement of this code; move that folder away"),
        ("manifest.json", '{"schema_version": 1}', "has no scale, task, .*; delete that folder and judge again"),
        ("verdicts.jsonl", '{"verdict": "win"}\n', "does not hold 2 verdicts"),
        ("verdicts.jsonl", '{"verdict": "win"}\n{"verdict": "won"}\n', "does not hold 2 verdicts"),
        ("verdicts.jsonl", "nonsense\n", "line 1, is not JSON"),
    ],
)
def test_broken_records_are_named_with_their_folder(judged, file, text, message):
    record = judged("ww")
    (record.path / file).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        table2_rows([JudgementRecord(record.path)])
    assert str(record.path) in str(caught.value)
