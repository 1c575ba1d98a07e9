"""Table 1: final test rewards beside the paper's, and what each method took to get there.

`table1_rows` holds the numbers at full precision; the CSV is those rows, the markdown a rounded view of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scar.report.numbers import REACH_WINDOW, RunNumbers, first_update_at, mean_std, run_numbers, trailing_mean
from scar.report.selection import Cells, device_kind, device_names, select_cells, setting
from scar.tracking.records import RunRecord

METHOD_NAMES = {"sft": "SFT policy", "sparse": "Sparse RLHF", "uniform": "Uniform", "abc": "ABC", "scar": "SCAR"}
TASK_NAMES = {"imdb": "IMDB", "tldr": "TL;DR", "hh": "HH"}

_DEFINITIONS = f"""\
Each ± is the sample standard deviation (ddof 1) over seeds of per-seed means; `-` where there is one seed.
Area: mean over updates of the training batch's mean raw reward. Updates to sparse's end: the first update at which a \
run's training reward (trailing mean of {REACH_WINDOW} updates) is at least the same seed's sparse run's mean over its \
last {REACH_WINDOW} updates; median over the seeds that got there, and how many did. Above sparse: seeds whose final \
reward is higher than the same seed's sparse run's. Reward queries: reward-model evaluations a response beyond the one \
that scores it."""


def paper_results() -> dict[str, Any]:
    """The paper's published numbers: `source` and `table1[task][method]` with `mean` and `std` (raw reward)."""
    return json.loads(Path(__file__).with_name("paper_results.json").read_text(encoding="utf-8"))


def method_name(method: str) -> str:
    """The name shown for a method; those that the paper does not have say so."""
    return METHOD_NAMES.get(method) or f"{method.capitalize()} (not in the paper)"


def comparability(scale: str) -> str:
    """What numbers of a scale other than the paper's may be compared with."""
    order = "and a smoke run's order means nothing either" if scale == "smoke" else "only their order is"
    return f"not comparable with the paper's, {order}"


def _setting(record: RunRecord) -> str:
    """What a method's result depends on beside the shared settings: sparse reads no alpha, only SCAR reads the rest."""
    manifest = record.manifest
    if manifest["method"] == "sparse":
        return "-"
    units = f"{manifest['segmentation']}, {setting(record, 'estimator')}, " if manifest["method"] == "scar" else ""
    return f"{units}alpha {manifest['alpha']:g}"


def _method_row(numbers: dict[int, RunNumbers], sparse: dict[int, RunNumbers]) -> dict[str, Any]:
    """The statistics of one cell over its seeds; `sparse` are the same task's sparse runs, paired by seed."""
    row: dict[str, Any] = {}
    for name in ("final_reward", "final_kl", "curve_area", "distinct_bigrams", "reward_queries", "device_seconds"):
        row[f"{name}_mean"], row[f"{name}_std"] = mean_std([getattr(one, name) for one in numbers.values()])
    row["credit_share_mean"], _ = mean_std([one.credit_share for one in numbers.values()])
    pairs = [(one, sparse[seed]) for seed, one in numbers.items() if seed in sparse]
    reached = [first_update_at(one.curve, trailing_mean(base.curve, REACH_WINDOW)[-1]) for one, base in pairs]
    arrived = [update for update in reached if update is not None]
    row["pairs"], row["reached_sparse_end"] = len(pairs), len(arrived)
    row["updates_to_sparse_end_median"] = float(np.median(arrived)) if arrived else None
    row["above_sparse"] = sum(one.final_reward > base.final_reward for one, base in pairs)
    return row


def table1_rows(
    records: Iterable[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Table 1 as one row per task and method; None where there is no number. Method "sft" is row zero, the policy that
    every run starts from: the mean, `lowest` and `highest` of its evaluation in each of `n` runs.

    Units: rewards raw reward-model outputs, KL nats a response, device_seconds seconds of `device`, shares 0 to 1.
    `n` runs of `n_wanted`; `pairs`: seeds with a sparse run too; `paper_mean`, `paper_std`: the paper's Table 1.
    """
    return _rows(select_cells(records, tasks=tasks, methods=methods, seeds=seeds))


def _rows(cells: Cells) -> list[dict[str, Any]]:
    paper, rows = paper_results()["table1"], []
    for task in cells.tasks:
        numbers = {m: {s: run_numbers(r) for s, r in cells.runs[task, m].items()} for m in cells.methods}
        starts = [one for runs in numbers.values() for one in runs.values()]
        rewards = [one.initial_reward for one in starts]
        sft: dict[str, Any] = {
            "task": task,
            "method": "sft",
            "n": len(starts),
            "final_reward_mean": mean_std(rewards)[0],
        }
        sft |= {"distinct_bigrams_mean": mean_std([one.initial_bigrams for one in starts])[0]}
        rows.append(sft | {"lowest": min(rewards, default=None), "highest": max(rewards, default=None)})
        for method in cells.methods:
            runs = cells.runs[task, method]
            row: dict[str, Any] = {"task": task, "method": method, "n": len(runs), "n_wanted": len(cells.seeds)}
            row["setting"] = _setting(next(iter(runs.values()))) if runs else "-"
            row |= _method_row(numbers[method], numbers.get("sparse", {}))
            row["device"] = device_kind(next(iter(runs.values()))) if runs else None
            published = paper.get(task, {}).get(method, {})
            rows.append(row | {"paper_mean": published.get("mean"), "paper_std": published.get("std")})
    return rows


def table1_csv(
    records: Iterable[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> str:
    """`table1_rows` as CSV text, unrounded; a missing number is an empty field."""
    rows = table1_rows(records, tasks=tasks, methods=methods, seeds=seeds)
    # dtype=object keeps counts whole: beside a missing one, pandas would turn them into floats.
    return pd.DataFrame(rows, dtype=object).to_csv(index=False)


def _number(mean: float | None, std: float | None, digits: int = 2) -> str:
    if mean is None:
        return "-"
    return f"{mean:z.{digits}f} ± " + ("-" if std is None else f"{std:.{digits}f}")


def _count(row: dict[str, Any]) -> str:
    return f"n={row['n']}" if row["n"] == row["n_wanted"] else f"n={row['n']}/{row['n_wanted']}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table of ready texts; a bar within a text stays one."""
    lines = [[text.replace("|", "\\|") for text in line] for line in (header, ["---"] * len(header), *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
        name = TASK_NAMES.get(task, task)
        line, published = [name, _sft_cell(sft)], [f"{name} ({paper_label})", "-"]
        for row in own:
            text = _number(row["final_reward_mean"], row["final_reward_std"])
            text = f"**{text}**" if complete and row["final_reward_mean"] == best else text
            line.append(f"{text} ({_count(row)})" if row["n"] else _count(row))
            published.append(_number(row["paper_mean"], row["paper_std"]))
        lines += [line, published] if any(row["paper_mean"] is not None for row in own) else [line]
    return markdown_table(["final test reward", *(method_name(m) for m in ("sft", *cells.methods))], lines)


def _paired(row: dict[str, Any], key: str, unit: str = "") -> str:
    short = "" if row["pairs"] == row["n_wanted"] else f", pairs={row['pairs']}/{row['n_wanted']}"
    return f"{row[key]} of {row['pairs']}{unit}{short}"


def _method_block(rows: list[dict[str, Any]], cells: Cells, task: str) -> str:
    rows = [row for row in rows if row["task"] == task]
    devices = {row["device"] for row in rows if row.get("device")}
    timed = devices.pop() if len(devices) == 1 else ""
    header = ["method", "setting", "n", "final reward", "KL at the end", "area under training reward"]
    header += ["updates to sparse's end", "above sparse", "distinct bigrams a response", "reward queries a response"]
    header += [f"{timed}-seconds a run" if timed else "seconds a run", "time in credit"]
    lines = []
    for row in rows:
        if row["method"] == "sft":
            bigrams = f"{row['distinct_bigrams_mean']:.1f}" if row["n"] else "-"
            lines.append(["SFT policy", "-", "-", _sft_cell(row), *["-"] * 4, bigrams, *["-"] * 3])
            continue
        line = [method_name(row["method"]), row["setting"], _count(row)]
        if not row["n"]:
            lines.append(line + ["-"] * 9)
            continue
        line += [_number(row[f"{k}_mean"], row[f"{k}_std"]) for k in ("final_reward", "final_kl", "curve_area")]
        median = row["updates_to_sparse_end_median"]
        line.append(f"{'-' if median is None else f'{median:g}'} ({_paired(row, 'reached_sparse_end', ' seeds')})")
        line.append("-" if row["method"] == "sparse" else _paired(row, "above_sparse"))
        if not row["pairs"]:
            line[-2:] = ["- (no sparse runs)", "- (no sparse runs)"]
        line += [
            _number(row["distinct_bigrams_mean"], row["distinct_bigrams_std"], 1),
            f"{row['reward_queries_mean']:.1f}",
        ]
        seconds = _number(row["device_seconds_mean"], row["device_seconds_std"], 1)
        line += [seconds if timed else f"{seconds} ({row['device']})", f"{row['credit_share_mean']:.0%}"]
        lines.append(line)
    return markdown_table(header, lines)


def origin(cells: Cells) -> str:
    """One sentence on where the numbers come from: devices, seeds, runs, model seed, commits, dirty trees."""
    manifests = [record.manifest for record in cells.records]
    commits: dict[str, list[RunRecord]] = {}
    for record in cells.records:
        commits.setdefault((record.manifest["commit"] or "unknown")[:10], []).append(record)
    counts = [f"{commit} ({len(runs)} runs, as {runs[0].path})" for commit, runs in sorted(commits.items())]
    dirty = sum(bool(m["dirty"]) for m in manifests)
    return (
        f"Device: {device_names(cells.records)}. Seeds {', '.join(map(str, cells.seeds))}; {len(manifests)} runs; "
        f"model seed {', '.join(map(str, sorted({m['model_seed'] for m in manifests})))} (one SFT policy and one "
        "reward model a task: ± does not cover their variation). "
        + (
            f"Commit {next(iter(commits))}"
            if len(commits) == 1
            else f"From {len(commits)} commits: {', '.join(counts)}"
        )
        + (f"; {dirty} of {len(manifests)} runs from a tree with uncommitted changes." if dirty else ".")
    )


def table1_markdown(
    records: Iterable[RunRecord],
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> str:
    """Table 1 as markdown: final test rewards with the paper's rows beside them, then one block a task, a row a method.

    A cell with fewer seeds than asked for shows `n=3/5`, and the seeds without a run are listed.
    """
    cells = select_cells(records, tasks=tasks, methods=methods, seeds=seeds)
    rows, scale = _rows(cells), cells.records[0].manifest["scale"]
    label = "paper" if scale == "paper" else "paper, other models and data"
    text = [f"# Table 1, scale {scale}", origin(cells)]
    if scale != "paper":
        text.append(f"Numbers at scale {scale}: {comparability(scale)}.")
    text.append(_reward_block(rows, cells, label))
    gaps = [f"{t} {m} (seed {', '.join(map(str, seeds))})" for (t, m), seeds in cells.missing().items()]
    text += [f"No finished run for: {'; '.join(gaps)}."] if gaps else []
    for task in cells.tasks:
        text += [f"## {TASK_NAMES.get(task, task)}, method by method", _method_block(rows, cells, task)]
        text += task_notes(cells, task, {method: method_name(method) for method in cells.methods})
    return "\n\n".join([*text, _DEFINITIONS]) + "\n"


# What a reader must know of a task beside its numbers: which preferences its reward model learned, and what a task's rule
# for responses without EOS does to the score.


def task_notes(cells: Cells, task: str, names: dict[str, str]) -> list[str]:
    """Sentences for the block of `task`; `names` are the methods' names as shown."""
    runs = {method: list(cells.runs[task, method].values()) for method in cells.methods}
    records = [record for found in runs.values() for record in found]
    if not records:
        return []
    return _preferences(records[0]) + _rule(runs, names)


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


def _rule(runs: dict[str, list[RunRecord]], names: dict[str, str]) -> list[str]:
    """Mean test score after the rule, and the share of responses that end with EOS, where the task has a rule."""
    first = next(record for found in runs.values() for record in found)
    value = first.manifest["settings"]["scoring"].get("missing_eos_score")
    if value is None:
        return []
    parts = []
    for method, found in runs.items():
        if found:
            final: list[dict[str, Any]] = [record.evaluation["final"] for record in found]
            score, _ = mean_std([one["score_mean"] for one in final])
            share, _ = mean_std([one["eos_frac"] for one in final])
            parts.append(f"{names[method]} {score:z.2f} ({share:.0%})")
    return [
        f"The rewards above are raw scores. In training a response without EOS scores {value:g}; test scores after that rule, "
        f"and the share that ends with EOS: {', '.join(parts)}."
    ]
