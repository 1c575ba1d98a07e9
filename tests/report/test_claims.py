from __future__ import annotations

from itertools import pairwise

import pytest

from scar.report.claims import (
    critic_verdicts,
    judge_difference,
    kl_verdict,
    reward_verdicts,
    time_verdicts,
    units_verdicts,
)
from scar.report.figures import FIGURES, select_variants
from scar.report.selection import Cells, select_cells
from scar.report.statistics import compare

FIGURE3, FIGURE4, FIGURE5 = (FIGURES[name].variants for name in ("figure3", "figure4", "figure5"))
METHODS = ["sparse", "uniform", "abc", "scar"]


def words(verdicts):
    return {verdict.claim: verdict.verdict for verdict in verdicts}


@pytest.mark.parametrize(
    ("one", "word", "evidence"),
    [
        ({1: 1.5, 2: 2.0}, "leans yes", "+0.75 [+0.50, +1.00], 2/2 seeds"),
        ({1: 0.5, 2: 0.0}, "leans no", "-0.75 [-1.00, -0.50], 0/2 seeds"),
        ({1: 1.5, 2: 0.5}, "not shown", "+0.00 [-0.50, +0.50], 1/2 seeds"),
        ({1: 5.0}, "not shown", "+4.00, 1/1 seeds"),
        ({3: 5.0}, "not run", ""),
    ],
)
def test_the_interval_decides(one, word, evidence):
    verdict = judge_difference("a > b", "Table 9", compare(one, {1: 1.0, 2: 1.0}))
    assert (verdict.verdict, verdict.evidence) == (word, evidence)
    assert verdict.line == f"a > b (Table 9): {word}" + (f", {evidence}" if evidence else "")


def test_every_pair_of_table1_is_claimed_in_the_papers_order(make_run):
    finals = {"sparse": 1.0, "uniform": 1.2, "abc": 0.5, "scar": 2.0}
    runs = [make_run(m, s, task=t, final=finals[m] + s) for m in METHODS for s in (1, 2) for t in ("imdb", "hh")]
    found = words(reward_verdicts(select_cells(runs, methods=METHODS, seeds=[1, 2])))
    assert found["SCAR > Sparse RLHF on IMDB, final test reward"] == "leans yes"
    assert found["ABC > Uniform on IMDB, final test reward"] == "leans no"
    assert found["Sparse RLHF > ABC on HH, final test reward"] == "leans yes"  # the paper's own order on hh
    assert found["ABC > Uniform on HH, final test reward"] == "leans no"
    assert len(found) == 2 * (6 + 3)
    faster = "SCAR > ABC on IMDB, learns faster (mean training reward over all updates)"
    assert found[faster] == "not shown"  # equal curves: the interval is 0 to 0


def test_a_method_without_runs_is_not_run(make_run):
    cells = select_cells([make_run("scar", 1), make_run("scar", 2)], methods=METHODS, seeds=[1, 2])
    assert set(words(reward_verdicts(cells)).values()) == {"not run"}


def test_reward_at_equal_kl(make_run):
    # sqrt(KL) 0, 1, 2 and 0, 2, 4; rewards grow by 2 and by 1 a unit of it: over 0 to 2 the gap is x, on average 1.
    # Smoothing is taken out by runs whose trailing means are these numbers.
    def run(method, seed, kls, rewards):
        def whole(means):
            sums = [0.0] + [mean * (i + 1) for i, mean in enumerate(means)]
            return tuple(b - a for a, b in pairwise(sums))

        return make_run(method, seed, kls=whole(kls), rewards=whole(rewards))

    runs = [run("scar", s, (0.0, 1.0, 4.0), (0.0, 2.0, 4.0)) for s in (1, 2)]
    runs += [run("sparse", s, (0.0, 4.0, 16.0), (0.0, 2.0, 4.0)) for s in (1, 2)]
    verdict = kl_verdict(select_variants(runs, "imdb", FIGURE3, seeds=[1, 2]))
    assert (verdict.verdict, verdict.evidence) == ("leans yes", "+1.00 [+1.00, +1.00], 2/2 seeds")


def test_reward_after_equal_time(make_run):
    # Span: reward 0 to 4 in 4 s; sparse: 0 to 4 in 8 s, so 2 when span ends; token: 0 to 4 in 40 s.
    def run(method, step, seed, **units):
        rewards, times = (0.0, 8.0), (step, 3 * step)  # trailing means 0 and 4
        return make_run(
            method, seed, task="tldr", folder=f"{method}{step}{seed}", rewards=rewards, times=times, **units
        )

    runs = []
    for seed in (1, 2):
        runs += [run("scar", 2, seed, segmentation="span"), run("scar", 20, seed, segmentation="token")]
        runs += [run("sparse", 4, seed), run("abc", 2, seed)]
    span_sparse, span_abc, abc_token = time_verdicts(select_variants(runs, "tldr", FIGURE4, seeds=[1, 2]))
    # At 6 s span is at 4; sparse, between 4 s and 12 s, at a quarter of 4.
    assert (span_sparse.verdict, span_sparse.evidence) == ("leans yes", "+3.00 [+3.00, +3.00], 2/2 seeds")
    assert span_abc.verdict == "not shown"
    assert (abc_token.verdict, abc_token.evidence) == ("leans yes", "+4.00 [+4.00, +4.00], 2/2 seeds")


def test_units_end_alike_unless_the_interval_says_otherwise(make_run):
    def run(units, seed, final, seconds):
        name = f"{units}{seed}"
        return make_run("scar", seed, task="tldr", folder=name, segmentation=units, final=final, seconds=seconds)

    runs = [run("span", s, 1.0, 10.0) for s in (1, 2)] + [run("token", s, s - 0.5, 30.0) for s in (1, 2)]
    alike, cost = units_verdicts(select_variants(runs, "tldr", FIGURE5, seeds=[1, 2]))
    assert (alike.verdict, alike.evidence) == ("no difference shown", "+0.00 [-0.50, +0.50], 1/2 seeds")
    assert (cost.verdict, cost.evidence) == ("leans yes", "+20.00 [+20.00, +20.00] s, 2/2 seeds")


def test_a_separate_value_function_is_put_beside_the_default(make_run):
    def run(method, seed, net, final):
        name, config = f"{method}{net}{seed}", {"ppo.value_net": net}
        return make_run(method, seed, folder=name, config=config, final=final)

    def cells(net, finals):
        runs = [run(m, s, net, final + s) for m, final in finals.items() for s in (1, 2)]
        return select_cells(runs, methods=["sparse", "scar"], seeds=[1, 2])

    found = critic_verdicts(
        cells("shared", {"sparse": 1.0, "scar": 2.0}), cells("separate", {"sparse": 1.9, "scar": 2.0})
    )
    assert [(v.verdict, v.evidence.split(",")[0]) for v in found] == [
        ("leans yes", "+0.10 [+0.10"),
        ("leans yes", "+0.90 [+0.90"),
    ]
    assert "separate value function" in found[0].claim
    assert critic_verdicts(Cells([], [], [1], []), Cells([], [], [1], [])) == []
