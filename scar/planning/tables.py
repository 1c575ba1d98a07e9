"""A report of the planner as text: models, runs, tldr beside the paper, what does not fit, what was assumed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from scar.planning.assumed import assumptions
from scar.planning.check import Planned, Report, SharedReport
from scar.planning.devices import Device
from scar.planning.formats import GB, gigabytes, hours, label, lay_out, names_table, new_table
from scar.planning.rank_tables import rank_parts

PARTS = ("policy", "value", "reference", "reward", "optimizer", "gradients", "activations")
STAGES = ("generate", "logprobs", "score", "credit", "update")
PAPER_HOURS = {"span": 7, "token": 48}
"""tldr, 1,000 updates on one A100 80 GB (paper B.1)."""


def render(report: Report | SharedReport) -> str:
    """Everything, at most 120 characters wide."""
    return lay_out(rank_parts(report) if isinstance(report, SharedReport) else _parts(report))


def _parts(report: Report) -> Iterator[Table | str]:
    device = report.request.device
    estimates = {planned.estimate.run.task: planned.estimate for planned in report.runs}
    models = {task: estimate.parameters for task, estimate in estimates.items()}
    runs = {task: estimate.run for task, estimate in estimates.items()}
    yield names_table(report.request.scale, report.named, models, runs)
    yield _memory(report)
    yield _work(report)
    if report.tokens is not None:
        yield _beside_the_paper(report)
    count = report.request.seeds * len(report.runs)
    yield f"{count} runs: {hours(report.hours)} hours of one {device.name}; evaluation and training of models not counted.\n"
    yield from (_problem(planned, device) for planned in report.runs if planned.advice is not None)
    yield from assumptions(device)


def _memory(report: Report) -> Table:
    device = report.request.device
    title = f"GB on one {device.name} by part, in the stage that holds most (allowed: {device.usable_bytes / GB:.1f})"
    table = new_table(title, "task", "method", *PARTS, "peak", "stage", "fits", text=("task", "method", "stage"))
    for planned in report.runs:
        stage = planned.estimate.largest
        sizes = (*(stage.held[part] for part in PARTS), stage.peak_bytes)
        fits = "yes" if planned.advice is None else "NO"
        table.add_row(*label(planned.estimate.run), *(gigabytes(size) for size in sizes), stage.name, fits)
    return table


def _work(report: Report) -> Table:
    seeds = report.request.seeds
    table = new_table(
        f"TFLOP of one update by stage, its seconds, hours of a run and of {seeds} on one {report.request.device.name}",
        *("task", "method", *STAGES, "all", "s/update", "updates", "hours", f"{seeds} runs"),
    )
    for planned in report.runs:
        estimate = planned.estimate
        table.add_row(
            *label(estimate.run),
            *(_tflop(estimate.tflop(name)) for name in STAGES),
            _tflop(estimate.tflop()),
            f"{estimate.update_seconds:.2f}",
            f"{estimate.run.ppo.updates}",
            hours(estimate.hours),
            hours(seeds * estimate.hours),
        )
    return table


def _tflop(amount: float) -> str:
    return "-" if not amount else f"{amount:.3g}" if amount < 1000 else f"{amount:.0f}"


def _beside_the_paper(report: Report) -> Table:
    assert report.tokens is not None
    title = f"tldr, one run on one {report.request.device.name}, beside the paper's hours on one A100 80 GB (B.1)"
    columns = (
        "method",
        "coalitions a response",
        "s of credit",
        "s an update",
        "hours",
        "times sparse",
        "the paper's hours",
    )
    table = new_table(title, *columns)
    runs = [planned.estimate for planned in (*report.runs, report.tokens) if planned.estimate.run.task == "tldr"]
    sparse = next((one.hours for one in runs if one.run.method == "sparse"), None)
    for one in runs:
        credit = next(stage for stage in one.stages if stage.name == "credit")
        table.add_row(
            label(one.run)[1],
            f"{one.coalitions:.0f}" if one.coalitions else "-",
            f"{credit.seconds:.2f}",
            f"{one.update_seconds:.2f}",
            f"{one.hours:.1f}",
            "-" if sparse is None else f"{one.hours / sparse:.2f}",
            f"{PAPER_HOURS.get(one.run.units or '', '-')}",
        )
    return table


def _problem(planned: Planned, device: Device) -> str:
    run, advice = planned.estimate.run, planned.advice
    assert advice is not None
    peak = advice.estimate.largest.peak_bytes
    fits = peak <= device.usable_bytes
    settings = " ".join(f"{key}={value}" for key, value in advice.settings.items()) or "no setting that helps"
    size = f"{gigabytes(peak)} GB"
    then = f"then {size}" if fits else f"then still {size}: a smaller model or a larger GPU"
    return f"{run.task} {run.method} does not fit ({planned.estimate.largest.name}). Set: {settings} ({then}).\n"
