"""The paper's claims, each with a verdict worked out from records: generated, never typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from scar.report.comparisons import Comparison, by_seed, compare, show_difference
from scar.report.figures import SMOOTHING, Variant, Variants, device_hours, sqrt_kl
from scar.report.numbers import run_numbers, trailing_mean
from scar.report.selection import Cells
from scar.report.tables import TASK_NAMES, markdown_table, method_name, paper_results
from scar.tracking.records import RunRecord

RULE = """\
A verdict is "yes" where the interval of the difference lies on the claimed side of 0, "no" where it lies on the other, \
"not shown" where it holds 0 or there is one seed, "not run" where runs are missing. With fewer than five seeds it is only \
"leans yes" or "leans no". Nothing is corrected for the number of claims."""
ENOUGH_SEEDS = 5
"""The paper's number; three of three seeds on one side happen by chance every fourth time."""


@dataclass(frozen=True)
class Verdict:
    """One claim: where the paper makes it, what became of it ("yes", "no", "not shown", "not run"), and the numbers."""

    claim: str
    source: str
    verdict: str
    evidence: str

    @property
    def line(self) -> str:
        """All of it on one line."""
        return f"{self.claim} ({self.source}): {self.verdict}" + (f", {self.evidence}" if self.evidence else "")


def judge_difference(
    claim: str, source: str, found: Comparison, *, unit: str = "", wanted: int | None = None
) -> Verdict:
    """The verdict on "the first is higher" from a comparison; `unit` follows the numbers, `wanted` seeds were asked for."""
    if found.n == 0 or found.difference is None:
        return Verdict(claim, source, "not run", "")
    seeds = f"{found.above}/{found.n} seeds" + (f" (of {wanted} asked for)" if wanted and wanted > found.n else "")
    evidence = f"{show_difference(found.difference, found.interval)}{unit}, {seeds}"
    return Verdict(claim, source, _word(found), evidence)


def _word(found: Comparison) -> str:
    if found.interval is None or found.interval[0] <= 0 <= found.interval[1]:
        return "not shown"
    return ("" if found.n >= ENOUGH_SEEDS else "leans ") + ("yes" if found.interval[0] > 0 else "no")


def reward_verdicts(cells: Cells) -> list[Verdict]:
    """Table 1: every pair of methods of a task, in the order of the paper's means, and SCAR's faster learning (Figure 2)."""
    verdicts = []
    for task in cells.tasks:
        published = {m: row["mean"] for m, row in paper_results()["table1"].get(task, {}).items() if m in cells.methods}
        order = sorted(published, key=lambda method: -published[method])
        for one, other in combinations(order, 2):
            verdicts.append(_pair_verdict(cells, task, one, other, "final_reward"))
        for other in order:
            if other != "scar" and "scar" in order:
                verdicts.append(_pair_verdict(cells, task, "scar", other, "curve_area"))
    return verdicts


def _pair_verdict(cells: Cells, task: str, one: str, other: str, number: str) -> Verdict:
    found = compare(by_seed(cells.runs[task, one], number), by_seed(cells.runs[task, other], number))
    what, source = {
        "final_reward": ("final test reward", "Table 1"),
        "curve_area": ("learns faster (mean training reward over all updates)", "Figure 2"),
    }[number]
    claim = f"{method_name(one)} > {method_name(other)} on {TASK_NAMES.get(task, task)}, {what}"
    return judge_difference(claim, source, found, wanted=len(cells.seeds))


def kl_verdict(found: Variants) -> Verdict:
    """Figure 3: SCAR's training reward is above sparse's at equal KL, over the range of sqrt(KL) that both runs of a seed cover."""
    gaps = _gaps(found, Variant("scar"), Variant("sparse"), _gap_at_equal_kl)
    claim = f"{method_name('scar')} > {method_name('sparse')} at equal KL on {TASK_NAMES.get(found.task, found.task)}"
    return judge_difference(claim, "Figure 3", compare(gaps, dict.fromkeys(gaps, 0.0)), wanted=len(found.seeds))


def time_verdicts(found: Variants) -> list[Verdict]:
    """Figure 4: span SCAR is above sparse and ABC after equal device time, token SCAR below ABC."""
    task = TASK_NAMES.get(found.task, found.task)
    span, token, abc, sparse = Variant("scar", "span"), Variant("scar", "token"), Variant("abc"), Variant("sparse")
    verdicts = []
    for one, other in ((span, sparse), (span, abc), (abc, token)):
        gaps = _gaps(found, one, other, _gap_after_equal_time)
        claim = f"{one.name} > {other.name} after equal device time on {task}, training reward"
        found_gap = compare(gaps, dict.fromkeys(gaps, 0.0))
        verdicts.append(judge_difference(claim, "Figure 4", found_gap, wanted=len(found.seeds)))
    return verdicts


def units_verdicts(found: Variants) -> list[Verdict]:
    """Figure 5: token and span units end comparably ("yes" unless the interval excludes 0), and what tokens cost more."""
    task = TASK_NAMES.get(found.task, found.task)
    token, span = (found.runs.get(Variant("scar", units), {}) for units in ("token", "span"))
    ends = compare(by_seed(token, "final_reward"), by_seed(span, "final_reward"))
    claim = f"SCAR's token and span units end alike on {task}, final test reward"
    alike = judge_difference(claim, "Figure 5", ends, wanted=len(found.seeds))
    # A difference that holds 0 does not prove equality; the interval says how large it may still be.
    words = {"not shown": "no difference shown", "yes": "no", "leans yes": "leans no"}
    word = words.get(alike.verdict, alike.verdict)
    costs = compare(by_seed(token, "device_seconds"), by_seed(span, "device_seconds"))
    cost = judge_difference(f"token units take more device time than spans on {task}", "Figure 4", costs, unit=" s")
    return [Verdict(claim, "Figure 5", word, alike.evidence), cost]


def critic_verdicts(shared: Cells, separate: Cells) -> list[Verdict]:
    """Not a claim of the paper: what is left of SCAR's gain over sparse with a value function that starts as the reward model."""
    verdicts = []
    for task in separate.tasks:
        name = TASK_NAMES.get(task, task)
        own = _pair_verdict(separate, task, "scar", "sparse", "final_reward")
        claim = f"{own.claim}, with a separate value function (ppo.value_net=separate)"
        verdicts.append(Verdict(claim, "ours", own.verdict, own.evidence))
        if (task, "sparse") in shared.runs:
            runs = separate.runs[task, "sparse"], shared.runs[task, "sparse"]
            gain = compare(*(by_seed(side, "final_reward") for side in runs))
            claim = f"a separate value function alone lifts sparse on {name}, final test reward"
            verdicts.append(judge_difference(claim, "ours", gain))
    return verdicts


def _gaps(
    found: Variants, one: Variant, other: Variant, gap: Callable[[RunRecord, RunRecord], float | None]
) -> dict[int, float]:
    first, second = found.runs.get(one, {}), found.runs.get(other, {})
    gaps = {seed: gap(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())}
    return {seed: value for seed, value in gaps.items() if value is not None}


def _smooth_reward(record: RunRecord) -> np.ndarray:
    return trailing_mean(run_numbers(record).curve, SMOOTHING)


def _gap_at_equal_kl(one: RunRecord, other: RunRecord, *, points: int = 50) -> float | None:
    """Mean gap in reward over a grid of sqrt(KL) that both runs cover; None where their ranges do not meet."""
    x = [sqrt_kl(record) for record in (one, other)]
    low, high = max(side.min() for side in x), min(side.max() for side in x)
    if low >= high:
        return None
    grid = np.linspace(low, high, points)
    rewards = []
    for record, side in zip((one, other), x, strict=True):
        order = np.argsort(side, kind="stable")
        rewards.append(np.interp(grid, side[order], _smooth_reward(record)[order]))
    return float((rewards[0] - rewards[1]).mean())


def _gap_after_equal_time(one: RunRecord, other: RunRecord) -> float:
    """Gap in reward when the quicker of the two runs ends."""
    hours = [device_hours(record) for record in (one, other)]
    end = min(side[-1] for side in hours)
    first, second = (np.interp(end, side, _smooth_reward(r)) for side, r in zip(hours, (one, other), strict=True))
    return float(first - second)


def verdicts_markdown(verdicts: Iterable[Verdict], *, title: str) -> str:
    """A table of verdicts under `title`, with the rule behind them."""
    rows = [[v.claim, v.source, f"**{v.verdict}**", v.evidence or "-"] for v in verdicts]
    return f"# {title}\n\n{markdown_table(['claim', 'where', 'verdict', 'evidence'], rows)}\n\n{RULE}\n"


def count_verdicts(verdicts: Sequence[Verdict]) -> Mapping[str, int]:
    """How many claims came out how."""
    words = [verdict.verdict for verdict in verdicts]
    return {word: words.count(word) for word in dict.fromkeys(words)}
