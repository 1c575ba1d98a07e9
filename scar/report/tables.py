"""Table 1: final test rewards beside the paper's, and what each method took to get there.

`table1_rows` holds the numbers at full precision; the CSV is those rows, the markdown a rounded view of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scar.report.frames import SMOOTHING, device_kind, device_names, first_update_at
from scar.report.selection import Cells, setting
from scar.report.statistics import mean_std
from scar.report.style import comparability, method_name, task_name
from scar.report.writing import NOISE, count_of, csv_text, markdown_table, show_mean, show_noise
from scar.tracking.records import RunRecord

NUMBERS = ("final_reward", "final_kl", "curve_area", "distinct_bigrams", "reward_queries", "device_seconds")
"""The columns of `runs_frame` whose mean and sample std over seeds a table gives."""
SHOWN_LEFT_OUT = 4
"""Runs of other settings that a table names; of more it says how many."""

_DEFINITIONS = f"""\
Each ± is the sample standard deviation (ddof 1) over seeds of per-seed means; `-` where there is one seed. \
Noise: {NOISE}.
Area: mean over updates of the training batch's mean raw reward. Updates to sparse's end: the first update at which a \
run's training reward (trailing mean of {SMOOTHING} updates) is at least the same seed's sparse run's mean over its \
last {SMOOTHING} updates; median over the seeds that got there, and how many did. Above sparse: seeds whose final \
reward is higher than the same seed's sparse run's. Reward queries: reward-model evaluations per response beyond the one \
that scores it."""


def paper_results() -> dict[str, Any]:
    """The paper's published numbers: `source` and `table1[task][method]` with `mean` and `std` (raw reward)."""
    return json.loads(Path(__file__).with_name("paper_results.json").read_text(encoding="utf-8"))


def _setting(record: RunRecord) -> str:
    """What a method's result depends on beside the shared settings: sparse reads no alpha, only SCAR reads the rest."""
    manifest = record.manifest
    if manifest["method"] == "sparse":
        return "-"
    units = [manifest["segmentation"]] if manifest["segmentation"] else []
    estimator = [setting(record, "estimator")] if manifest["estimator"] else []
    return ", ".join([*units, *estimator, f"alpha {manifest['alpha']:g}"])


def statistics(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Over the seeds of each group of `keys`: `n`, `<number>_mean` and `<number>_std` (ddof 1, nan for one seed) of `NUMBERS`,
    and `credit_share_mean`. This is where the numbers of Table 1 are averaged."""
    groups = runs.groupby(list(keys), sort=False, dropna=False)
    table = groups[list(NUMBERS)].agg(["mean", "std"])
    table.columns = [f"{name}_{statistic}" for name, statistic in table.columns]
    return table.assign(credit_share_mean=groups["credit_share"].mean(), n=groups.size())


def _paired_with_sparse(cells: Cells, task: str, method: str) -> dict[str, Any]:
    """How a cell stands to the sparse runs of the same seeds: when it gets to where they end, and how often above them."""
    runs, sparse = cells.of(task, method), cells.of(task, "sparse")
    final, base = (cells.numbers(task, name, "final_reward") for name in (method, "sparse"))
    seeds = runs.keys() & sparse.keys()
    reached = []
    for seed in seeds:
        own, other = (curve_of(cells, task, name, seed) for name in (method, "sparse"))
        reached.append(first_update_at(own["reward"], other["smooth_reward"].iloc[-1]))
    arrived = [update for update in reached if update is not None]
    return {
        "pairs": len(seeds),
        "reached_sparse_end": len(arrived),
        "updates_to_sparse_end_median": float(np.median(arrived)) if arrived else None,
        "above_sparse": sum(final[seed] > base[seed] for seed in seeds),
    }


def curve_of(cells: Cells, task: str, method: str, seed: int) -> pd.DataFrame:
    """The rows of `cells.curves` of one run."""
    curves = cells.curves
    return curves[(curves["task"] == task) & (curves["method"] == method) & (curves["seed"] == seed)]


def table1_rows(cells: Cells) -> list[dict[str, Any]]:
    """Table 1 as one row per task and method; None where there is no number. Method "sft" is row zero, the policy that
    every run starts from: the mean, `lowest` and `highest` of its evaluation in each of `n` runs.

    Units: rewards raw reward-model outputs, KL nats per response, device_seconds seconds of `device`, shares 0 to 1.
    `n` runs of `n_wanted`; `pairs`: seeds with a sparse run too; `paper_mean`, `paper_std`: the paper's Table 1.
    """
    paper, rows = paper_results()["table1"], []
    averaged = statistics(cells.runs, ["task", "method"])
    for task in cells.tasks:
        starts = cells.runs[cells.runs["task"] == task]
        rewards = starts["initial_reward"].tolist()
        sft: dict[str, Any] = {"task": task, "method": "sft", "n": len(starts)}
        sft |= {"final_reward_mean": mean_std(rewards)[0]}
        sft |= {"distinct_bigrams_mean": mean_std(starts["initial_bigrams"].tolist())[0]}
        rows.append(sft | {"lowest": min(rewards, default=None), "highest": max(rewards, default=None)})
        for method in cells.methods:
            runs = list(cells.of(task, method).values())
            row: dict[str, Any] = {"task": task, "method": method, "n": len(runs), "n_wanted": len(cells.seeds)}
            row["setting"] = _setting(runs[0]) if runs else "-"
            row |= averaged.loc[(task, method)].to_dict() if runs else {}
            row["evaluation_noise"] = cells.noise(task, method)
            row |= {"n": len(runs)} | _paired_with_sparse(cells, task, method)
            row["device"] = device_kind(runs[0]) if runs else None
            published = paper.get(task, {}).get(method, {})
            rows.append(row | {"paper_mean": published.get("mean"), "paper_std": published.get("std")})
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def table1_csv(cells: Cells) -> str:
    """`table1_rows` as CSV text."""
    return csv_text(table1_rows(cells))


def _sft_cell(row: dict[str, Any]) -> str:
    """One policy, evaluated under one protocol in each run: a spread is shown as a range, it is no std over seeds."""
    if not row["n"]:
        return "n=0"
    mean, low, high = f"{row['final_reward_mean']:z.2f}", f"{row['lowest']:z.2f}", f"{row['highest']:z.2f}"
    return mean if low == high else f"{mean} ({low} to {high})"


def _reward_block(rows: list[dict[str, Any]], cells: Cells, paper_label: str) -> str:
    lines = []
    for task in cells.tasks:
        sft, *own = (row for row in rows if row["task"] == task)
        complete = len(own) > 1 and all(row["n"] == row["n_wanted"] for row in own)
        best = max(row["final_reward_mean"] for row in own) if complete else None
        name = task_name(task)
        line, published = [name, _sft_cell(sft)], [f"{name} ({paper_label})", "-"]
        for row in own:
            text = show_mean(row.get("final_reward_mean"), row.get("final_reward_std"))
            text = f"**{text}**" if complete and row["final_reward_mean"] == best else text
            line.append(f"{text} ({_n(row)})" if row["n"] else _n(row))
            published.append(show_mean(row["paper_mean"], row["paper_std"]))
        lines += [line, published] if any(row["paper_mean"] is not None for row in own) else [line]
    return markdown_table(["final test reward", *(method_name(m) for m in ("sft", *cells.methods))], lines)


def _n(row: dict[str, Any]) -> str:
    return f"n={count_of(row['n'], row['n_wanted'])}"


def _paired(row: dict[str, Any], key: str, unit: str = "") -> str:
    short = "" if row["pairs"] == row["n_wanted"] else f", pairs={row['pairs']}/{row['n_wanted']}"
    return f"{row[key]} of {row['pairs']}{unit}{short}"


def _method_block(rows: list[dict[str, Any]], cells: Cells, task: str) -> str:
    rows = [row for row in rows if row["task"] == task]
    devices = {row["device"] for row in rows if row.get("device")}
    timed = devices.pop() if len(devices) == 1 else ""
    header = ["method", "setting", "n", "final reward", "noise", "KL at the end", "area under training reward"]
    header += [
        "updates to sparse's end",
        "above sparse",
        "distinct bigrams per response",
        "reward queries per response",
    ]
    header += [f"{timed}-seconds per run" if timed else "seconds per run", "time in credit"]
    lines = []
    for row in rows:
        if row["method"] == "sft":
            bigrams = f"{row['distinct_bigrams_mean']:.1f}" if row["n"] else "-"
            lines.append(["SFT policy", "-", "-", _sft_cell(row), *["-"] * 5, bigrams, *["-"] * 3])
            continue
        line = [method_name(row["method"]), row["setting"], _n(row)]
        if not row["n"]:
            lines.append(line + ["-"] * 10)
            continue
        line += [show_mean(row[f"{k}_mean"], row[f"{k}_std"]) for k in ("final_reward", "final_kl", "curve_area")]
        line.insert(4, show_noise(row["evaluation_noise"]))
        median = row["updates_to_sparse_end_median"]
        line.append(f"{'-' if median is None else f'{median:g}'} ({_paired(row, 'reached_sparse_end', ' seeds')})")
        line.append("-" if row["method"] == "sparse" else _paired(row, "above_sparse"))
        if not row["pairs"]:
            line[-2:] = ["- (no sparse runs)", "- (no sparse runs)"]
        line += [
            show_mean(row["distinct_bigrams_mean"], row["distinct_bigrams_std"], 1),
            f"{row['reward_queries_mean']:.1f}",
        ]
        seconds = show_mean(row["device_seconds_mean"], row["device_seconds_std"], 1)
        line += [seconds if timed else f"{seconds} ({row['device']})", f"{row['credit_share_mean']:.0%}"]
        lines.append(line)
    return markdown_table(header, lines)


def origin(records: Sequence[RunRecord], seeds: Sequence[int]) -> str:
    """One sentence on where the numbers come from: devices, seeds, runs, model seed, commits, dirty trees."""
    manifests = [record.manifest for record in records]
    commits: dict[str, list[RunRecord]] = {}
    for record in records:
        commits.setdefault((record.manifest["commit"] or "unknown")[:10], []).append(record)
    counts = [f"{commit} ({len(runs)} runs, as {runs[0].path})" for commit, runs in sorted(commits.items())]
    dirty = sum(bool(m["dirty"]) for m in manifests)
    return (
        f"Device: {device_names(records)}. Seeds {', '.join(map(str, seeds))}; {len(manifests)} runs; "
        f"model seed {', '.join(map(str, sorted({m['model_seed'] for m in manifests})))} (one SFT policy and one "
        "reward model per task: ± does not cover their variation). "
        + (
            f"Commit {next(iter(commits))}"
            if len(commits) == 1
            else f"From {len(commits)} commits: {', '.join(counts)}"
        )
        + (f"; {dirty} of {len(manifests)} runs from a tree with uncommitted changes." if dirty else ".")
    )


def table1_markdown(cells: Cells) -> str:
    """Table 1 as markdown: final test rewards with the paper's rows beside them, then one block per task, a row per method.

    A cell with fewer seeds than asked for shows `n=3/5`; seeds without a run, and runs of other settings, are named.
    """
    rows, scale = table1_rows(cells), cells.records[0].manifest["scale"]
    label = "paper" if scale == "paper" else "paper, other models and data"
    text = [f"# Table 1, scale {scale}", origin(cells.records, cells.seeds)]
    if scale != "paper":
        text.append(f"Numbers at scale {scale}: {comparability(scale)}.")
    text.append(_reward_block(rows, cells, label))
    gaps = [f"{t} {m} (seed {', '.join(map(str, seeds))})" for (t, m), seeds in cells.missing().items()]
    text += [f"No finished run for: {'; '.join(gaps)}."] if gaps else []
    text += left_out_line(cells.left_out)
    for task in cells.tasks:
        text += [f"## {task_name(task)}, method by method", _method_block(rows, cells, task), *task_notes(cells, task)]
    return "\n\n".join([*text, _DEFINITIONS]) + "\n"


def left_out_line(left_out: Sequence[str]) -> list[str]:
    """One line that names runs of other settings; none where there is no such run."""
    more = len(left_out) - SHOWN_LEFT_OUT
    shown = [*left_out[:SHOWN_LEFT_OUT], *([f"and {more} more"] if more > 0 else [])]
    return [f"Left out, runs of other settings: {'; '.join(shown)}."] if left_out else []


# What a reader must know of a task beside its numbers: which preferences its reward model learned, and what a task's rule
# for responses without EOS does to the score.


def task_notes(cells: Cells, task: str) -> list[str]:
    """Sentences for the block of `task`."""
    first = next((record for record in cells.records if record.manifest["task"] == task), None)
    return [] if first is None else _preferences(first) + _missing_eos(cells, task, first)


def _preferences(record: RunRecord) -> list[str]:
    """How the reward model's preferences came about, and how it does on held-out pairs beside length alone."""
    report = record.manifest["models"]["reward"].get("report", {})
    if "preferences" not in report:
        return []
    low, high = report["accuracy_interval"]
    length = report["accuracy_by_length"]
    kind = report["preferences"]
    origin = f"{kind} preferences, not on people's" if kind == "constructed" else f"{kind} preferences"
    blanked = report.get("accuracy_half_blanked")  # only models that are trained on blanked texts are tested on them
    sentence = (
        f"Rewards are those of a model trained on {origin}: it is right on "
        f"{report['accuracy']:.2f} of held-out pairs (95 % interval {low:.2f} to {high:.2f}"
        f"{'' if blanked is None else f'; with half of both texts blanked {blanked:.2f}'}); the longer text is the better one "
        f"in {length['longer']:.2f}, the shorter in {length['shorter']:.2f} of them"
    )
    if "ranked_accuracy" in report:
        low, high = report["ranked_accuracy_interval"]
        sentence += (
            f"; on {report['ranked_pairs']} held-out machine-ranked pairs it is right on {report['ranked_accuracy']:.2f} "
            f"({low:.2f} to {high:.2f})"
        )
    return [sentence + "."]


def _missing_eos(cells: Cells, task: str, first: RunRecord) -> list[str]:
    """Mean test score after the rule, and the share of responses that end with EOS, where the task has a rule."""
    value = first.manifest["settings"]["scoring"].get("missing_eos_score")
    if value is None:
        return []
    means = cells.runs[cells.runs["task"] == task].groupby("method", sort=False)[["final_score", "eos_share"]].mean()
    shown = [f"{method_name(m)} {row.final_score:z.2f} ({row.eos_share:.0%})" for m, row in means.iterrows()]
    return [
        f"The rewards above are raw scores. In training a response without EOS scores {value:g}; test scores after that rule, "
        f"and the share that ends with EOS: {', '.join(shown)}."
    ]
