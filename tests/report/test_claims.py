from __future__ import annotations

import pytest

from scar.report.claims import (
    Verdict,
    corrected,
    critic_verdicts,
    judge_difference,
    kl_verdict,
    reward_verdicts,
    time_verdicts,
    units_verdicts,
    verdicts_markdown,
)
from scar.report.figures import FIGURES, select_variants
from scar.report.selection import Cells, select_cells
from scar.report.statistics import compare
from tests.report.conftest import updates_of

FIGURE3, FIGURE4, FIGURE5 = (FIGURES[name].variants for name in ("figure3", "figure4", "figure5"))
METHODS = ["sparse", "uniform", "abc", "scar"]


def words(verdicts):
    return {verdict.claim: verdict.verdict for verdict in verdicts}


@pytest.mark.parametrize(
    ("one", "word", "evidence"),
    [
        # Student's t is 4.3027 for three seeds, 12.7062 for two: 1.1 +- 4.3027 * 0.1 / sqrt(3), 0 +- 12.7062 * 0.5.
        ({1: 2.0, 2: 2.1, 3: 2.2}, "leans yes", "+1.10 [+0.85, +1.35], 3/3 seeds"),
        ({1: 0.0, 2: -0.1, 3: -0.2}, "leans no", "-1.10 [-1.35, -0.85], 0/3 seeds"),
        ({1: 1.5, 2: 0.5}, "not shown", "+0.00 [-6.35, +6.35], 1/2 seeds"),
        # 1.1 +- 2.7764 * 0.1581 / sqrt(5)
        ({1: 1.9, 2: 2.0, 3: 2.1, 4: 2.2, 5: 2.3}, "yes", "+1.10 [+0.90, +1.30], 5/5 seeds"),
        ({1: 5.0}, "not shown", "+4.00, 1/1 seeds"),
        ({1: 1.3, 2: 1.3, 3: 1.3}, "not shown", "+0.30, 3/3 seeds"),  # no spread to judge by
        ({6: 5.0}, "not run", ""),
    ],
)
def test_the_interval_decides(one, word, evidence):
    verdict = judge_difference("a > b", "Table 9", compare(one, dict.fromkeys(range(1, 6), 1.0)))
    assert (verdict.verdict, verdict.evidence) == (word, evidence)
    assert verdict.line == f"a > b (Table 9): {word}" + (f", {evidence}" if evidence else "")


def test_claims_of_one_table_are_tested_together():
    claims = [("a", "Table 1", 0.01), ("b", "Figure 2", 0.04), ("c", "Table 1", 0.04), ("d", "Table 1", 0.03)]
    verdicts = [Verdict(claim, source, "yes", "+1.00", p) for claim, source, p in claims]
    verdicts += [Verdict("alike", "Table 1", "no", "+1.00", 0.2, otherwise="no difference shown")]
    verdicts += [Verdict("e", "Table 1", "not shown", "+1.00"), Verdict("f", "Table 1", "not run", "")]
    found = {v.claim: (v.verdict, v.evidence) for v in corrected(verdicts)}
    # Four with a p: 4 * 0.01; 3 * 0.03; 2 * 0.04 is below that, so 0.09 too; 0.2. Figure 2 has one claim of its own.
    assert found == {
        "a": ("yes", "+1.00, Holm p 0.04"),
        "b": ("yes", "+1.00, Holm p 0.04"),
        "c": ("not shown", "+1.00, Holm p 0.09"),
        "d": ("not shown", "+1.00, Holm p 0.09"),
        "alike": ("no difference shown", "+1.00, Holm p 0.2"),
        "e": ("not shown", "+1.00"),
        "f": ("not run", ""),
    }
    assert "| c | Table 1 | **not shown** | +1.00, Holm p 0.09 |" in verdicts_markdown(verdicts, title="Claims")


def test_every_pair_of_table1_is_claimed_in_the_papers_order(make_run):
    finals = {"sparse": 1.0, "uniform": 1.2, "abc": 0.5, "scar": 2.0}
    runs = [
        make_run(m, s, task=t, final=finals[m] * (1 + 0.01 * s))
        for m in METHODS
        for s in (1, 2, 3)
        for t in ("imdb", "hh")
    ]
    found = words(corrected(reward_verdicts(select_cells(runs, methods=METHODS, seeds=[1, 2, 3]))))
    assert found["SCAR > Sparse RLHF on IMDB, final test reward"] == "leans yes"
    assert found["ABC > Uniform on IMDB, final test reward"] == "leans no"
    assert found["Sparse RLHF > ABC on HH, final test reward"] == "leans yes"  # the paper's own order on hh
    assert found["ABC > Uniform on HH, final test reward"] == "leans no"
    assert len(found) == 2 * (6 + 3)
    faster = "SCAR > ABC on IMDB, learns faster (mean training reward over all updates)"
    assert found[faster] == "not shown"  # equal curves


def test_a_method_without_runs_is_not_run(make_run):
    cells = select_cells([make_run("scar", 1), make_run("scar", 2)], methods=METHODS, seeds=[1, 2])
    assert set(words(reward_verdicts(cells)).values()) == {"not run"}


def test_reward_at_equal_kl(make_run):
    # sqrt(KL) 0, 1, 2 and 0, 2, 4; rewards grow by 2 and by 1 a unit of it: over 0 to 2 the gap is x, on average 1.
    # Smoothing is taken out by runs whose trailing means are these numbers.
    # Two seeds with gaps of 1.00 and 1.02 (SCAR's reward times 1.01): 1.01 +- 12.7062 * 0.01.
    def run(method, seed, kls, rewards):
        return make_run(method, seed, kls=updates_of(kls), rewards=updates_of(rewards))

    runs = [run("scar", s, (0.0, 1.0, 4.0), (0.0, 2.0 * f, 4.0 * f)) for s, f in ((1, 1), (2, 1.01))]
    runs += [run("sparse", s, (0.0, 4.0, 16.0), (0.0, 2.0, 4.0)) for s in (1, 2)]
    verdict = kl_verdict(select_variants(runs, "imdb", FIGURE3, seeds=[1, 2]))
    assert (verdict.verdict, verdict.evidence) == ("leans yes", "+1.01 [+0.88, +1.14], 2/2 seeds")


def test_reward_after_equal_time(make_run):
    # Span: reward 0 to 4 in 4 s; sparse: 0 to 4 in 8 s, so 2 when span ends; token: 0 to 4 in 40 s. On seed 2 span and ABC
    # end at 4.04: half a difference of 0.04 times 12.7062 is 0.25.
    def run(method, step, seed, end=4.0, **units):
        rewards, times = (0.0, 2 * end), (step, 3 * step)  # trailing means 0 and `end`
        return make_run(
            method, seed, task="tldr", folder=f"{method}{step}{seed}", rewards=rewards, times=times, **units
        )

    runs = []
    for seed, end in ((1, 4.0), (2, 4.04)):
        runs += [run("scar", 2, seed, end, segmentation="span"), run("scar", 20, seed, segmentation="token")]
        runs += [run("sparse", 4, seed), run("abc", 2, seed, end)]
    span_sparse, span_abc, abc_token = time_verdicts(select_variants(runs, "tldr", FIGURE4, seeds=[1, 2]))
    # At 6 s span is at 4; sparse, between 4 s and 12 s, at a quarter of 4.
    assert (span_sparse.verdict, span_sparse.evidence) == ("leans yes", "+3.02 [+2.77, +3.27], 2/2 seeds")
    assert span_abc.verdict == "not shown"
    assert (abc_token.verdict, abc_token.evidence) == ("leans yes", "+4.02 [+3.77, +4.27], 2/2 seeds")


def test_units_end_alike_unless_the_interval_says_otherwise(make_run):
    def run(units, seed, final, seconds):
        name = f"{units}{seed}"
        return make_run("scar", seed, task="tldr", folder=name, segmentation=units, final=final, seconds=seconds)

    runs = [run("span", s, 1.0, 10.0) for s in (1, 2)] + [run("token", s, s - 0.5, 30.0 + s / 10) for s in (1, 2)]
    alike, cost = units_verdicts(select_variants(runs, "tldr", FIGURE5, seeds=[1, 2]))
    assert (alike.verdict, alike.evidence) == ("no difference shown", "+0.00 [-6.35, +6.35], 1/2 seeds")
    assert (alike.otherwise, alike.p) == ("no difference shown", 1.0)
    # Differences 20.1 and 20.2: 20.15 +- 12.7062 * 0.05.
    assert (cost.verdict, cost.evidence) == ("leans yes", "+20.15 [+19.51, +20.79] s, 2/2 seeds")


def test_a_separate_value_function_is_put_beside_the_default(make_run):
    def run(method, seed, net, final):
        name, config = f"{method}{net}{seed}", {"ppo.value_net": net}
        return make_run(method, seed, folder=name, config=config, final=final)

    def cells(net, finals):
        runs = [run(m, s, net, final * (1 + 0.01 * s)) for m, final in finals.items() for s in (1, 2)]
        return select_cells(runs, methods=["sparse", "scar"], seeds=[1, 2])

    found = critic_verdicts(
        cells("shared", {"sparse": 1.0, "scar": 2.0}), cells("separate", {"sparse": 1.9, "scar": 2.0})
    )
    assert [(v.verdict, v.evidence.split(",")[0]) for v in found] == [
        ("leans yes", "+0.10 [+0.10"),
        ("leans yes", "+0.91 [+0.86"),  # 0.909 and 0.918: 0.9135 +- 12.7062 * 0.0045
    ]
    assert {verdict.source for verdict in found} == {"not in the paper"}
    assert "separate value function" in found[0].claim
    assert critic_verdicts(Cells([], [], [1], []), Cells([], [], [1], [])) == []
