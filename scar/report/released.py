"""What makes the paper's numbers: its claims as written, as the authors released them, and with controls (docs/released.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scar.report.claims import Verdict, corrected, judge_difference, kl_gaps
from scar.report.figures import FIGURES, Variant, Variants, draw_line, line_numbers, line_of
from scar.report.files import Files, as_json, identities
from scar.report.frames import SMOOTHING, evaluation_noise
from scar.report.selection import NoRunError, Sources, check_fairness, check_scale, select_cells
from scar.report.statistics import CONFIDENCE, Comparison, compare, mean_std
from scar.report.style import (
    comparability,
    fonts,
    image_files,
    legend_below,
    look_of,
    method_name,
    new_figure,
    set_caption,
    style_axes,
    task_name,
    tasks_in_order,
)
from scar.report.tables import left_out_line, origin, paper_results
from scar.report.writing import NOISE, count_of, csv_text, markdown_table, show_difference, show_mean, show_noise
from scar.tracking.records import RunRecord

COMMAND = "make reproduce-released"


@dataclass(frozen=True)
class Paid(Variant):
    """A method under one pay. `label` is shown; `pay` is what a response with the score r is paid, the KL penalty aside; the
    rest is how it is drawn. A variant whose `key` is no method's has runs of its own (conf/variant/)."""

    key: str = ""
    label: str = ""
    pay: str = "r"
    what: str = ""
    dashes: Any = "-"
    marker: str = "o"
    size: float = 6.0
    filled: bool = True

    @property
    def name(self) -> str:
        """As shown."""
        return self.label

    @property
    def made_for(self) -> str:
        """The experiment that makes its runs."""
        return "table1" if self.key == self.method else "released"


SPARSE = Paid("sparse", key="sparse", label="Sparse", what="the score at the end (Eq. 2)")
SPARSE_TWICE = Paid(
    "sparse",
    key="sparse_twice",
    label="Sparse, paid twice",
    pay="2r",
    what="twice the score at the end, at the same price of KL",
    dashes=(0, (3, 1.2)),
    marker="P",
    size=8.0,
)
VARIANTS = (
    SPARSE,
    SPARSE_TWICE,
    Paid(
        "sparse",
        key="sparse_half_kl",
        label="Sparse, half KL price",
        what="the score at the end; half of kl_coef and of kl_target",
        dashes=(0, (1, 1.2)),
        marker="X",
        size=8.0,
    ),
    Paid("uniform", key="uniform", label="Uniform", what="the score in equal shares", marker="v"),
    Paid("abc", key="abc", label="ABC, as written", what="Eq. 6", marker="^"),
    Paid(
        "abc",
        key="abc_released",
        label="ABC, as released",
        pay="2r",
        what="all of the credit, and the whole score at the end",
        dashes=(0, (3, 1.2)),
        marker="^",
        filled=False,
    ),
    Paid("scar", key="scar", label="SCAR, as written", what="Eq. 6", marker="s"),
    Paid(
        "scar",
        key="scar_released",
        label="SCAR, as released",
        pay="2r - v(empty)",
        what="all of the credit, v(empty) dropped, and the whole score at the end",
        dashes=(0, (3, 1.2)),
        marker="s",
        filled=False,
    ),
)
"""In the order of the table. Colours are the methods'; dashes, markers and their filling tell the variants of one apart."""
BY_KEY = {variant.key: variant for variant in VARIANTS}
RELEASED_CREDIT = {"empty": "drop", "one_unit": "none", "estimator": "partition"}
"""What SCAR as released has beside its pay (conf/shaping/released/)."""
BLANKS = ("collapse", "dots")
"""What it puts in place of absent units: of spans, and of tokens."""


def variant_of(record: RunRecord) -> Paid | None:
    """The variant that a run is one of; None for another pay or price of KL."""
    settings, method = record.manifest["settings"], record.manifest["method"]
    weight, price = settings.get("sparse_weight"), settings["ppo"].get("kl_scale", 1.0)
    if weight is None and price == 1:
        return BY_KEY.get(method)
    if method == "sparse":
        known = {(2, 1): SPARSE_TWICE, (None, 0.5): BY_KEY["sparse_half_kl"]}
        return known.get((weight, price)) if settings["alpha"] == 0 else None
    same = method == "abc" or (method == "scar" and _credit_as_released(settings))
    return BY_KEY[f"{method}_released"] if same and (settings["alpha"], weight, price) == (1, 1, 1) else None


def _credit_as_released(settings: Mapping[str, Any]) -> bool:
    credit = {key: settings["method"].get(key) for key in ("empty", "one_unit")}
    credit |= {"estimator": (settings["estimator"] or {}).get("name")}
    return credit == RELEASED_CREDIT and settings["method"].get("fill") in BLANKS


def select_released(sources: Sources) -> list[Variants]:
    """The runs of every task that has released variants, by variant and seed: those in `sources.released`, and Table 1's.

    `missing` names variants without any run; Uniform, which was not released, is there only where it ran. Raises NoRunError
    if nothing of it has run, and ValueError where runs of one variant differ in more than the seed, or where variants of a
    task do not share what a comparison rests on, the price of KL aside.
    """
    try:
        own = sources.runs(sources.released)
    except NoRunError as error:
        raise NoRunError(f"no run in {sources.released} of scale={sources.scale}; {COMMAND} makes them") from error
    try:
        records = list({record.path: record for record in (*sources.runs(), *own)}.values())  # they may share a folder
    except NoRunError:
        records = own
    tasks = tasks_in_order(record.manifest["task"] for record in own if variant_of(record))
    if not tasks:
        raise NoRunError(f"no run in {sources.released} is one of the variants; {COMMAND} makes them")
    return [_of_task(task, [r for r in records if r.matches(task=task)], sources) for task in tasks]


def _of_task(task: str, records: Sequence[RunRecord], sources: Sources) -> Variants:
    runs: dict[Variant, dict[int, RunRecord]] = {}
    known = {record.path: variant_of(record) for record in records}
    left_out = [
        f"{record.path} (none of the variants)"
        for record in records
        if known[record.path] is None and record.manifest["method"] in {variant.method for variant in VARIANTS}
    ]
    for variant in VARIANTS:
        if sources.methods is not None and variant.method not in sources.methods:
            continue
        fits = [record for record in records if known[record.path] == variant]
        if fits:
            cells = select_cells(fits, methods=[variant.method], experiment=variant.made_for)
            runs[variant] = cells.of(task, variant.method)
            left_out += cells.left_out
        elif variant.key != "uniform":
            runs[variant] = {}
    chosen = Variants(task, sorted(sources.seeds), runs, left_out)
    check_scale(chosen.records)
    check_fairness(chosen.records, but=["ppo.kl_scale"])
    return chosen


# The claims, each under four pays.


COLUMNS = {
    "written": "as written",
    "released": "as released",
    "equal_pay": "released against sparse at equal pay",
    "equal_kl": "released, at equal KL along training",
}
"""The pay columns, by their names in released.csv."""
Pair = tuple[Paid, Paid, str]
"""Better and worse variant, and what is compared: "final_reward" on test prompts, or "reward_at_equal_kl" in training."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and where it is made, and what each of `COLUMNS` compares; a column that is not there does not
    apply."""

    better: str
    worse: str
    measure: str
    source: str
    pairs: Mapping[str, Pair]

    @property
    def text(self) -> str:
        """As shown: "SCAR > ABC, final test reward"."""
        what = "final test reward" if self.measure == "final_reward" else "training reward at equal KL"
        return f"{method_name(self.better)} > {method_name(self.worse)}, {what}"


def claims_of(chosen: Variants) -> list[Claim]:
    """The claims of Table 1 on a task, in the order of the paper's means, and that of Figure 3."""
    published = {name: row["mean"] for name, row in paper_results()["table1"].get(chosen.task, {}).items()}
    known = {variant.key for variant in chosen.runs if isinstance(variant, Paid)}
    order = sorted(published.keys() & known, key=lambda name: -published[name])
    claims = [
        Claim(better, worse, "final_reward", "Table 1", _pairs(better, worse, "final_reward"))
        for better, worse in combinations(order, 2)
    ]
    if {"sparse", "scar"} <= set(order):
        source = "Figure 3" if chosen.task == FIGURES["figure3"].task else "not in the paper"
        claims.append(
            Claim("scar", "sparse", "reward_at_equal_kl", source, _pairs("scar", "sparse", "reward_at_equal_kl"))
        )
    return claims


def _pairs(better: str, worse: str, measure: str) -> dict[str, Pair]:
    """What each column compares. Sparse as released is sparse as written; Uniform was not released."""
    pairs = {"written": (BY_KEY[better], BY_KEY[worse], measure)}
    if "uniform" in (better, worse):
        return pairs
    released = [SPARSE if name == "sparse" else BY_KEY[f"{name}_released"] for name in (better, worse)]
    pairs["released"] = (released[0], released[1], measure)
    if SPARSE in released:
        paid = [SPARSE_TWICE if variant is SPARSE else variant for variant in released]
        pairs["equal_pay"] = (paid[0], paid[1], measure)
    if measure == "final_reward":
        pairs["equal_kl"] = (released[0], released[1], "reward_at_equal_kl")
    return pairs


@dataclass(frozen=True)
class Cell:
    """One claim under one pay: the comparison, its verdict beside all others of the task, and the evaluation's noise. `state`
    is why there is no number: "not run" or "ranges do not meet"."""

    pair: Pair
    comparison: Comparison
    verdict: Verdict
    noise: float | None
    state: str | None

    def show(self, wanted: int) -> str:
        """As in the table."""
        if self.state is not None or self.comparison.difference is None:
            return self.state or "not run"
        noise = "" if self.noise is None else f", noise {show_noise(self.noise)}"
        difference = show_difference(self.comparison.difference, self.comparison.interval)
        return f"**{self.verdict.verdict}**: {difference}{noise}, n={count_of(self.comparison.n, wanted)}"


def cells_of(chosen: Variants, claims: Sequence[Claim]) -> dict[Pair, Cell]:
    """Every comparison that a claim asks for, by what it compares. Holm's correction covers all of them, each once."""
    pairs = list(dict.fromkeys(pair for claim in claims for pair in claim.pairs.values()))
    comparisons = {pair: _compare(chosen, pair) for pair in pairs}
    alone = [judge_difference(str(pairs.index(pair)), chosen.task, comparisons[pair]) for pair in pairs]
    cells = {}
    for pair, verdict in zip(pairs, corrected(alone), strict=True):
        one, other, measure = pair
        ran = [chosen.runs.get(variant, {}) for variant in (one, other)]
        state = None
        if comparisons[pair].n == 0:
            state = "ranges do not meet" if ran[0].keys() & ran[1].keys() else "not run"
        noise = evaluation_noise(*ran) if measure == "final_reward" else None
        cells[pair] = Cell(pair, comparisons[pair], verdict, noise, state)
    return cells


def _compare(chosen: Variants, pair: Pair) -> Comparison:
    one, other, measure = pair
    if measure == "final_reward":
        return compare(chosen.numbers(one, measure), chosen.numbers(other, measure))
    gaps = kl_gaps(chosen, one, other)
    return compare(gaps, dict.fromkeys(gaps, 0.0))


# Tables.


DEFINITIONS = f"""\
Pay: what a response with the score r is paid, the KL penalty aside; v(empty) is the score of the response with all units absent. \
As written: both methods are paid r, split between credit and end by Eq. 6. As released: ABC and SCAR as the authors' code pays \
them, about twice, and sparse rewards once, all at the same price of KL. Released against sparse at equal pay: the same, but \
sparse rewards are paid twice too; what is left of a difference is not made by pay. Released, at equal KL along training: the \
runs of "as released" by training reward (trailing mean of {SMOOTHING} updates) where both have the same sqrt(KL), on average \
over the range that both runs of a seed cover; what is left of a difference is not made by going further from the SFT policy. \
The claim about equal KL is measured like that in every column. `-`: there is no such comparison. Equal pay is asked of claims \
with sparse rewards only, as both methods of another are paid twice as released; Uniform was not released.

A cell has the verdict, the mean difference over seeds, paired by seed, with Student's {CONFIDENCE:.0%} interval, and the seeds. \
The verdict is "yes" or "no" where the interval excludes 0 and Holm's correction over all comparisons of the task, each counted \
once, lets that stand; with fewer than five seeds "leans yes" or "leans no"; else "not shown". Other pages correct over fewer \
comparisons, so a claim as written may be "yes" there and "not shown" here. Noise: {NOISE}. ± is the sample \
standard deviation (ddof 1) over seeds. Where a task is evaluated at a temperature of its own (tldr: 0.01) final rewards are \
of such responses, and KL is of others, drawn as in training."""


def released_rows(chosen: Variants) -> list[dict[str, Any]]:
    """One row per claim and pay column: which variants, what is compared, and the numbers at full precision. `p` is that of the
    comparison alone."""
    rows = []
    claims = claims_of(chosen)
    cells = cells_of(chosen, claims)
    for claim in claims:
        for column, pair in claim.pairs.items():
            cell, (one, other, measure) = cells[pair], pair
            low, high = cell.comparison.interval or (None, None)
            row: dict[str, Any] = {"task": chosen.task, "claim": claim.text, "source": claim.source, "pay": column}
            row |= {"one": one.key, "other": other.key, "measure": measure, "n": cell.comparison.n}
            row |= {"n_wanted": len(chosen.seeds), "difference": cell.comparison.difference, "low": low, "high": high}
            row |= {"above": cell.comparison.above, "p": cell.comparison.p, "evaluation_noise": cell.noise}
            rows.append(row | {"verdict": cell.state or cell.verdict.verdict})
    return rows


def released_markdown(tasks: Sequence[Variants]) -> str:
    """Per task a table of the variants and one of the claims, with what the columns mean."""
    scale = tasks[0].records[0].manifest["scale"]
    text = [f"# As written and as released, scale {scale}"]
    if scale != "paper":
        text.append(f"Numbers at scale {scale}: {comparability(scale)}.")
    text.append(
        "The authors released code for TL;DR only. On other tasks its semantics are carried over: whether those were paid so "
        "is not known."
    )
    for chosen in tasks:
        carried = "" if chosen.task == "tldr" else " (as released: carried over from TL;DR)"
        text += [f"## {task_name(chosen.task)}{carried}", origin(chosen.records, chosen.seeds), _variants_table(chosen)]
        text += _gaps_line(chosen) + left_out_line(chosen.left_out)
        if claims := claims_of(chosen):
            cells = cells_of(chosen, claims)
            lines = [
                [claim.text, claim.source]
                + [
                    cells[claim.pairs[column]].show(len(chosen.seeds)) if column in claim.pairs else "-"
                    for column in COLUMNS
                ]
                for claim in claims
            ]
            text.append(markdown_table(["claim", "where", *COLUMNS.values()], lines))
    return "\n\n".join([*text, DEFINITIONS]) + "\n"


def _variants_table(chosen: Variants) -> str:
    lines = []
    for variant, runs in chosen.runs.items():
        assert isinstance(variant, Paid)
        line = [variant.name, variant.pay, variant.what, count_of(len(runs), len(chosen.seeds))]
        for name in ("final_reward", "final_kl"):
            line.append(show_mean(*mean_std(list(chosen.numbers(variant, name).values()))))
        line.insert(5, show_noise(evaluation_noise(runs)))
        lines.append(line)
    return markdown_table(["variant", "pay", "what it is", "n", "final test reward", "noise", "KL at the end"], lines)


def _gaps_line(chosen: Variants) -> list[str]:
    """What has no finished run, and the command that makes it."""
    gaps = []
    for variant, runs in chosen.runs.items():
        if seeds := [str(seed) for seed in chosen.seeds if seed not in runs]:
            gaps.append(f"{variant.name} (seed {', '.join(seeds)})")
    scale = chosen.records[0].manifest["scale"]
    return [f"No finished run for: {'; '.join(gaps)} ({COMMAND} TASKS={chosen.task} SCALE={scale})."] if gaps else []


# Reward over KL: what is speed along the frontier, and what is above it.


DRAWN = tuple(variant for variant in VARIANTS if variant.key != "uniform")
"""Uniform lies beside sparse rewards and was not released."""


def released_figure(tasks: Sequence[Variants]) -> Figure:
    """Training reward against sqrt(KL) to the SFT policy, a panel per task, a line per variant, means over seeds update by
    update; the large marks are the trained policies on test prompts."""
    with fonts():
        figure = new_figure(4.0)
        handles: dict[Paid, Any] = {}
        for axes, chosen in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
            handles |= {v: _draw(axes, chosen, v) for v in DRAWN if chosen.runs.get(v)}
            axes.set_title(task_name(chosen.task) + ("" if chosen.task == "tldr" else ", carried over"))
            axes.set_xlabel("sqrt of KL to SFT policy\n(sqrt(nats per response))")
            style_axes(axes)
            axes.margins(x=0.03)
        figure.axes[0].set_ylabel(f"mean raw reward of the batch\n(trailing mean of up to {SMOOTHING} updates)")
        lines = [
            f"As written and as released: reward and KL, mean over seeds; {tasks[0].caption()}",
            "lines: training; marks: the trained policy on test prompts",
        ]
        set_caption(figure, lines)
        shown = [variant for variant in DRAWN if variant in handles]
        names = [f"{variant.name} ({variant.pay}), n={_counts(variant, tasks)}" for variant in shown]
        legend_below(figure, [handles[variant] for variant in shown], names, columns=2)
        return figure


def _draw(axes: Axes, chosen: Variants, variant: Paid) -> Any:
    """A line and its end; returns a handle for the legend that shows both."""
    colour = look_of(variant.method).colour
    draw_line(
        axes,
        line_of(chosen.curves[variant], "sqrt_kl"),
        name=variant.name,
        method=variant.method,
        band=0,
        linestyle=variant.dashes,
    )
    kl, reward = (
        np.array(list(chosen.numbers(variant, name).values())).mean() for name in ("final_kl", "final_reward")
    )
    look: dict[str, Any] = {
        "color": colour,
        "marker": variant.marker,
        "markersize": variant.size,
        "markeredgewidth": 0.9,
    }
    look |= {"markeredgecolor": "white"} if variant.filled else {"markerfacecolor": "white", "markeredgecolor": colour}
    axes.plot(np.sqrt(max(kl, 0.0)), reward, linestyle="", zorder=3, **look)
    (handle,) = axes.plot([], [], linestyle=variant.dashes, linewidth=1.2, **look)
    return handle


def _counts(variant: Paid, tasks: Sequence[Variants]) -> str:
    shown = [count_of(len(chosen.runs.get(variant, {})), len(chosen.seeds)) for chosen in tasks]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def released_files(sources: Sources) -> Files:
    """The tables, the figure, and a .json with its numbers and runs."""
    tasks = select_released(sources)
    numbers = {
        chosen.task: {
            "records": identities(chosen.records),
            "missing": chosen.missing,
            "left_out": chosen.left_out,
            "curves": line_numbers(chosen, "sqrt_kl"),
        }
        for chosen in tasks
    }
    return {
        "released.md": released_markdown(tasks).encode(),
        "released.csv": csv_text([row for chosen in tasks for row in released_rows(chosen)]).encode(),
        **image_files("released", released_figure(tasks)),
        "released.json": as_json(numbers),
    }
