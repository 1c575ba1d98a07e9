"""The paper's claims, each with a verdict worked out from records: generated, never typed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from scar.report.figures import Variant, Variants
from scar.report.selection import Cells
from scar.report.statistics import CONFIDENCE, Comparison, compare, holm
from scar.report.style import method_name, task_name
from scar.report.tables import paper_results
from scar.report.writing import markdown_table, show_difference, show_noise

RULE = f"""\
The evidence is the mean difference with its {CONFIDENCE:.0%} interval, that of this claim alone: Student's over seeds, paired \
by seed; in Table 2 Wilson's over responses. A verdict is "yes" where the interval lies on the claimed side of 0 (in Table 2 of \
one half), "no" where it lies on the other, "not shown" where it holds 0, with one seed, or where all seeds differ alike, so that \
there is no spread to go by; "not run" where runs are missing. Holm's correction covers all claims that name the same place: \
where its p is above {1 - CONFIDENCE:.2g} the verdict is "not shown" too. With fewer than five seeds a verdict is only \
"leans yes" or "leans no". Claims of Figure 1 compare intervals over responses and are not corrected."""
ENOUGH_SEEDS = 5
"""The paper's number. With fewer, Student's interval rests on normal differences that nobody can see to be so."""


@dataclass(frozen=True)
class Verdict:
    """One claim: where the paper makes it, what became of it ("yes", "no", "not shown", "not run"), and the numbers.

    `p` is that of this claim alone, None where the verdict rests on none; `otherwise` becomes the verdict of a claim that does
    not stand beside the others (`corrected`)."""

    claim: str
    source: str
    verdict: str
    evidence: str
    p: float | None = None
    otherwise: str = "not shown"

    @property
    def line(self) -> str:
        """All of it on one line."""
        return f"{self.claim} ({self.source}): {self.verdict}" + (f", {self.evidence}" if self.evidence else "")


def judge_difference(
    claim: str,
    source: str,
    comparison: Comparison,
    *,
    unit: str = "",
    wanted: int | None = None,
    noise: float | None = None,
) -> Verdict:
    """The verdict on "the first is higher" from a comparison, taken alone (`corrected` takes several together); `unit` follows
    the numbers, `wanted` seeds were asked for, `noise` is that of evaluation."""
    if comparison.n == 0 or comparison.difference is None:
        return Verdict(claim, source, "not run", "")
    seeds = f"{comparison.above}/{comparison.n} seeds" + (
        f" (of {wanted} asked for)" if wanted and wanted > comparison.n else ""
    )
    evidence = f"{show_difference(comparison.difference, comparison.interval)}{unit}"
    evidence += "" if noise is None else f", evaluation noise {show_noise(noise)}"
    return Verdict(claim, source, _word(comparison), f"{evidence}, {seeds}", comparison.p)


def _word(comparison: Comparison) -> str:
    if comparison.interval is None or comparison.interval[0] <= 0 <= comparison.interval[1]:
        return "not shown"
    return ("" if comparison.n >= ENOUGH_SEEDS else "leans ") + ("yes" if comparison.interval[0] > 0 else "no")


def corrected(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Verdicts after Holm's correction over the claims of each table or figure of the paper, with the corrected p as evidence.

    A claim whose corrected p is above 1 - `CONFIDENCE` gets its `otherwise`; verdicts without p stay as they are.
    """
    verdicts = list(verdicts)
    families: dict[str, list[int]] = defaultdict(list)
    for place, verdict in enumerate(verdicts):
        if verdict.p is not None:
            families[verdict.source].append(place)
    for places in families.values():
        for place, p in zip(places, holm([verdicts[place].p or 0.0 for place in places]), strict=True):
            verdict = verdicts[place]
            word = verdict.verdict if p <= 1 - CONFIDENCE else verdict.otherwise
            verdicts[place] = replace(verdict, verdict=word, evidence=f"{verdict.evidence}, Holm p {p:.2g}")
    return verdicts


def reward_verdicts(cells: Cells) -> list[Verdict]:
    """Table 1: every pair of methods of a task, in the order of the paper's means, and SCAR's faster learning (Figure 2)."""
    verdicts = []
    for task in cells.tasks:
        published = {m: row["mean"] for m, row in paper_results()["table1"].get(task, {}).items() if m in cells.methods}
        order = sorted(published, key=lambda method: -published[method])
        for better, worse in combinations(order, 2):
            verdicts.append(_pair_verdict(cells, task, better, worse, "final_reward"))
        for worse in order:
            if worse != "scar" and "scar" in order:
                verdicts.append(_pair_verdict(cells, task, "scar", worse, "curve_area"))
    return verdicts


def _pair_verdict(cells: Cells, task: str, better: str, worse: str, number: str) -> Verdict:
    comparison = compare(cells.numbers(task, better, number), cells.numbers(task, worse, number))
    what, source = {
        "final_reward": ("final test reward", "Table 1"),
        "curve_area": ("learns faster (mean training reward over all updates)", "Figure 2"),
    }[number]
    claim = f"{method_name(better)} > {method_name(worse)} on {task_name(task)}, {what}"
    noise = cells.noise(task, better, worse) if number == "final_reward" else None
    return judge_difference(claim, source, comparison, wanted=len(cells.seeds), noise=noise)


def kl_verdict(chosen: Variants) -> Verdict:
    """Figure 3: SCAR's training reward is above sparse's at equal KL, over the range of sqrt(KL) that both runs of a seed cover."""
    gaps = kl_gaps(chosen, Variant("scar"), Variant("sparse"))
    claim = f"{method_name('scar')} > {method_name('sparse')} at equal KL on {task_name(chosen.task)}"
    return judge_difference(claim, "Figure 3", compare(gaps, dict.fromkeys(gaps, 0.0)), wanted=len(chosen.seeds))


def time_verdicts(chosen: Variants) -> list[Verdict]:
    """Figure 4: span SCAR is above sparse and ABC after equal device time, token SCAR below ABC."""
    task = task_name(chosen.task)
    span, token, abc, sparse = Variant("scar", "span"), Variant("scar", "token"), Variant("abc"), Variant("sparse")
    verdicts = []
    for better, worse in ((span, sparse), (span, abc), (abc, token)):
        gaps = _gaps(chosen, better, worse, _gap_after_equal_time)
        claim = f"{better.name} > {worse.name} after equal device time on {task}, training reward"
        comparison = compare(gaps, dict.fromkeys(gaps, 0.0))
        verdicts.append(judge_difference(claim, "Figure 4", comparison, wanted=len(chosen.seeds)))
    return verdicts


def units_verdicts(chosen: Variants) -> list[Verdict]:
    """Figure 5: token and span units end comparably ("yes" unless the interval excludes 0), and what tokens cost more."""
    task = task_name(chosen.task)
    token, span = Variant("scar", "token"), Variant("scar", "span")
    ends, seconds = (
        compare(chosen.numbers(token, name), chosen.numbers(span, name)) for name in ("final_reward", "device_seconds")
    )
    claim = f"SCAR's token and span units end alike on {task}, final test reward"
    alike = judge_difference(claim, "Figure 5", ends, wanted=len(chosen.seeds))
    # A difference that holds 0 does not prove equality; the interval says how large it may still be.
    shown = "no difference shown"
    word = {"not shown": shown, "yes": "no", "leans yes": "leans no"}.get(alike.verdict, alike.verdict)
    cost = judge_difference(f"token units take more device time than spans on {task}", "Figure 4", seconds, unit=" s")
    return [replace(alike, verdict=word, otherwise=shown), cost]


def critic_verdicts(shared: Cells, separate: Cells) -> list[Verdict]:
    """Not a claim of the paper: what is left of SCAR's gain over sparse with a value function that starts as the reward model."""
    verdicts = []
    for task in separate.tasks:
        name = task_name(task)
        own = _pair_verdict(separate, task, "scar", "sparse", "final_reward")
        claim = f"{own.claim}, with a separate value function (ppo.value_net=separate)"
        verdicts.append(replace(own, claim=claim, source="not in the paper"))
        if task in shared.tasks and "sparse" in shared.methods:
            gain = compare(*(side.numbers(task, "sparse", "final_reward") for side in (separate, shared)))
            claim = f"a separate value function alone lifts sparse on {name}, final test reward"
            verdicts.append(judge_difference(claim, "not in the paper", gain))
    return verdicts


def kl_gaps(chosen: Variants, better: Variant, worse: Variant) -> dict[int, float]:
    """By seed the mean gap in training reward at equal sqrt(KL), over the range that both runs cover; without the seeds on
    which the ranges do not meet."""
    return _gaps(chosen, better, worse, _gap_at_equal_kl)


def _gaps(
    chosen: Variants, better: Variant, worse: Variant, gap: Callable[[pd.DataFrame, pd.DataFrame], float | None]
) -> dict[int, float]:
    """What `gap` says of the curves of both variants on each seed that both have."""
    if not {better, worse} <= chosen.curves.keys():
        return {}
    first, second = ({s: rows for s, rows in chosen.curves[variant].groupby("seed")} for variant in (better, worse))
    gaps = {seed: gap(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())}
    return {seed: value for seed, value in gaps.items() if value is not None}


def _gap_at_equal_kl(better: pd.DataFrame, worse: pd.DataFrame, *, points: int = 50) -> float | None:
    """Mean gap in reward over a grid of sqrt(KL) that both runs cover; None where their ranges do not meet."""
    sides = [side.sort_values("sqrt_kl", kind="stable") for side in (better, worse)]
    low, high = max(side["sqrt_kl"].min() for side in sides), min(side["sqrt_kl"].max() for side in sides)
    if low >= high:
        return None
    grid = np.linspace(low, high, points)
    first, second = (np.interp(grid, side["sqrt_kl"], side["smooth_reward"]) for side in sides)
    return float((first - second).mean())


def _gap_after_equal_time(better: pd.DataFrame, worse: pd.DataFrame) -> float:
    """Gap in reward when the quicker of the two runs ends."""
    end = min(side["device_hours"].iloc[-1] for side in (better, worse))
    first, second = (np.interp(end, side["device_hours"], side["smooth_reward"]) for side in (better, worse))
    return float(first - second)


def verdicts_markdown(verdicts: Iterable[Verdict], *, title: str) -> str:
    """A table of verdicts, `corrected`, under `title`, with the rule behind them."""
    rows = [[v.claim, v.source, f"**{v.verdict}**", v.evidence or "-"] for v in corrected(verdicts)]
    return f"# {title}\n\n{markdown_table(['claim', 'where', 'verdict', 'evidence'], rows)}\n\n{RULE}\n"
