"""Table 2: how often a judge prefers a method's responses to a baseline's, from judgement records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from scar.report.claims import Verdict
from scar.report.statistics import CONFIDENCE, even_p, mean_std, wilson_interval
from scar.report.style import comparability, method_name, task_name, tasks_in_order
from scar.report.tables import paper_results
from scar.report.writing import count_of, csv_text, markdown_table
from scar.tracking.judgements import VERDICTS, JudgementRecord

DEFINITIONS = f"""\
Win rate: wins and half the ties over all items with a readable answer, all seeds together; brackets: Wilson's \
{CONFIDENCE:.0%} interval, which takes items for independent. By seed: mean ± sample standard deviation (ddof 1) of the seeds' \
own win rates, which shows how far they are not. Which response is shown first is drawn item by item and recorded."""


def win_rate(counts: Counter[str]) -> tuple[float, int] | None:
    """Wins and half the ties over the items with a readable answer, and how many those are; None without any."""
    n = counts["win"] + counts["tie"] + counts["loss"]
    return ((counts["win"] + counts["tie"] / 2) / n, n) if n else None


def table2_rows(judgements: Sequence[JudgementRecord]) -> list[dict[str, Any]]:
    """One row per task and baseline: counts of `VERDICTS`, `win_rate` with `low` and `high`, `n` items, `seeds`, mean and std of
    the seeds' rates, `first_share` (how often the method was shown first), `preference` where the judge gives one,
    `agreement` of both orders where both were asked, and the paper's rate (0 to 1).

    Raises ValueError for no record, several judges, judge settings, scales or model seeds, or two records of one seed.
    """
    if not judgements:
        raise ValueError("no judgement to make a table of")
    _refuse_mix(judgements)
    cells: dict[tuple[str, str, str], dict[int, JudgementRecord]] = defaultdict(dict)
    for record in judgements:
        manifest = record.manifest
        cell = cells[manifest["task"], manifest["method"], manifest["baseline"]]
        if (twin := cell.setdefault(manifest["seed"], record)) is not record:
            raise ValueError(
                f"two judgements of one pair of runs: {twin.path} / {record.path}; delete one of the two folders"
            )
    tasks = tasks_in_order(task for task, _, _ in cells)
    order = sorted(cells, key=lambda cell: (tasks.index(cell[0]), cell[1], cell[2] != "sparse", cell[2]))
    return [_row(*cell, cells[cell]) for cell in order]


def _refuse_mix(judgements: Sequence[JudgementRecord]) -> None:
    first = judgements[0]
    for record in judgements[1:]:
        for key in ("judge", "settings", "scale", "model_seed", "both_orders", "order_seed"):
            expected, value = first.manifest.get(key), record.manifest.get(key)
            if expected != value:
                shown = f"{key} ({expected} / {value})" if key != "settings" else "the judge's settings"
                raise ValueError(
                    f"judgements that differ in {shown} do not share a table: {first.path} / {record.path}; "
                    "choose one with judge=NAME, or move the others away"
                )


def _row(task: str, method: str, baseline: str, runs: dict[int, JudgementRecord]) -> dict[str, Any]:
    verdicts = [row for record in runs.values() for row in record.verdicts]
    counts = Counter(row["verdict"] for row in verdicts)
    row: dict[str, Any] = {"task": task, "method": method, "baseline": baseline}
    row |= {verdict: counts[verdict] for verdict in VERDICTS} | {"seeds": len(runs)}
    rate, n = win_rate(counts) or (None, 0)
    row |= {"n": n, "win_rate": rate, "low": None, "high": None}
    if rate is not None:
        row["low"], row["high"] = wilson_interval(rate * n, n)
    by_seed = [win_rate(Counter(verdict["verdict"] for verdict in record.verdicts)) for record in runs.values()]
    row["seed_mean"], row["seed_std"] = mean_std([rate[0] for rate in by_seed if rate is not None])
    row["first_share"] = sum(item["answers"][0]["method_first"] for item in verdicts) / len(verdicts)
    preferences = [item["preference"] for item in verdicts if item["preference"] is not None]
    row["preference"] = sum(preferences) / len(preferences) if preferences else None
    orders = [item["by_order"] for item in verdicts if len(item["by_order"]) > 1]
    row["agreement"] = sum(len(set(order)) == 1 for order in orders) / len(orders) if orders else None
    published = paper_results()["table2"].get(task, {})
    paper = published.get(baseline) if method == "scar" else None
    return row | {"paper": None if paper is None else paper / 100, "paper_judge": published.get("judge")}


def table2_csv(judgements: Sequence[JudgementRecord]) -> str:
    """`table2_rows` as CSV, unrounded."""
    return csv_text(table2_rows(judgements))


def table2_markdown(judgements: Sequence[JudgementRecord], *, wanted_seeds: int) -> str:
    """`table2_rows` as a markdown table with the judge's name above it; `wanted_seeds` were asked for."""
    rows, manifest = table2_rows(judgements), judgements[0].manifest
    header = ["task", "pair", "win / tie / loss", "unread", "win rate", "items", "seeds", "by seed", "shown first"]
    header += [name for name in ("preference", "agreement") if any(row[name] is not None for row in rows)] + ["paper"]
    lines = []
    for row in rows:
        line = [task_name(row["task"]), _pair(row), f"{row['win']} / {row['tie']} / {row['loss']}"]
        line += [str(row["unparsed"]), _rate(row), str(row["n"]), count_of(row["seeds"], wanted_seeds)]
        std = "-" if row["seed_std"] is None else f"{row['seed_std']:.1%}"
        line += ["-" if row["seed_mean"] is None else f"{row['seed_mean']:.1%} ± {std}", f"{row['first_share']:.0%}"]
        line += [_percent(row[name]) for name in ("preference", "agreement") if name in header]
        paper = "-" if row["paper"] is None else f"{row['paper']:.1%} ({row['paper_judge']})"
        lines.append([*line, paper])
    text = [f"# Table 2, scale {manifest['scale']}: judged by {manifest['label']}", *_about_gold(judgements)]
    if manifest["scale"] != "paper":
        text.append(f"Numbers at scale {manifest['scale']}: {comparability(manifest['scale'])}.")
    return "\n\n".join([*text, markdown_table(header, lines), DEFINITIONS]) + "\n"


def _pair(row: dict[str, Any]) -> str:
    return f"{method_name(row['method'])} against {method_name(row['baseline'])}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _rate(row: dict[str, Any]) -> str:
    return "-" if row["win_rate"] is None else f"{row['win_rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"


def _about_gold(judgements: Sequence[JudgementRecord]) -> list[str]:
    """How good the gold reward model of each task is on held-out data, as its report says."""
    by_task = {}
    for record in judgements:
        report = record.manifest.get("gold", {}).get("report", {})
        shown = [
            f"{key} {report[key]:.2f}"
            for key in report
            if key.endswith("accuracy") or key.startswith("accuracy_review")
        ]
        if shown:
            by_task[record.manifest["task"]] = f"{task_name(record.manifest['task'])}: {', '.join(shown)}"
    return [f"The gold reward model on held-out data: {'; '.join(by_task.values())}."] if by_task else []


def judged_verdicts(judgements: Sequence[JudgementRecord]) -> list[Verdict]:
    """Table 2's claims: the method is preferred, that is, the interval of its win rate lies above one half."""
    verdicts = []
    for row in table2_rows(judgements) if judgements else []:
        claim = f"{_pair(row).replace(' against ', ' is preferred to ')} on {task_name(row['task'])}"
        claim += f", judged by {judgements[0].manifest['label']}"
        if row["win_rate"] is None:
            verdicts.append(
                Verdict(claim, "Table 2", "cannot be said", f"{row['unparsed']} answers, none of which can be read")
            )
            continue
        word = "yes" if row["low"] > 0.5 else "no" if row["high"] < 0.5 else "not shown"
        evidence = f"{_rate(row)}, n={row['n']}, {row['seeds']} seeds"
        verdicts.append(Verdict(claim, "Table 2", word, evidence, even_p(row["win_rate"] * row["n"], row["n"])))
    return verdicts
