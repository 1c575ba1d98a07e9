"""A report on several GPUs as text: models, each run at every stage of ZeRO, what is refused or does not fit, what was assumed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from scar.planning.assumed import assumptions, rank_assumptions
from scar.planning.check import SharedReport
from scar.planning.devices import Device
from scar.planning.estimate import Estimate
from scar.planning.formats import GB, gigabytes, hours, label, names_table, new_table
from scar.planning.links import NODE
from scar.planning.ranks import Shared
from scar.planning.zero import Plan

COLUMNS = {
    "weights": "weights",
    "buffers": "buffers",
    "gradients": "grads",
    "optimizer": "optim.",
    "activations": "activ.",
}
"""Parts of what a rank holds, and the columns that they are in."""


def rank_parts(report: SharedReport) -> Iterator[Table | str]:
    """Tables and sentences, in order."""
    request = report.request
    runs = {shared.run.task: shared for shared in report.runs}
    models = {task: shared.parameters for task, shared in runs.items()}
    yield names_table(request.scale, report.named, models, {task: shared.run for task, shared in runs.items()})
    for task in runs:
        beside = [report.tokens] if report.tokens is not None and task == report.tokens.run.task else []
        yield _task(task, [shared for shared in report.runs if shared.run.task == task] + beside, report)
    yield from _totals(report)
    yield from _problems(report)
    yield from assumptions(request.device)
    yield from rank_assumptions(request.device, request.network)


def _task(task: str, runs: list[Shared], report: SharedReport) -> Table:
    device, gpus = report.request.device, report.request.gpus
    nodes = f" ({gpus // NODE} nodes)" if gpus > NODE else ""
    table = new_table(
        f"{task} on {gpus} x {device.name}{nodes}: GB a GPU by part, in the stage that holds most (allowed: "
        f"{device.usable_bytes / GB:.1f}); hours of one run",
        *("method", "ZeRO", *COLUMNS.values(), "all", "stage", "fits", "s/update", "hours", "GPU-hours"),
        text=("method", "ZeRO", "stage"),
    )
    for shared in runs:
        for plan, found in shared.plans:
            first = plan is shared.plans[0][0]
            table.add_row(label(shared.run)[1] if first else "", *_cells(plan, found, device))
        table.add_section()
    return table


def _cells(plan: Plan, found: Estimate, device: Device) -> Iterator[str]:
    stage = found.largest
    yield plan.label
    yield from (gigabytes(stage.held[part]) for part in COLUMNS)
    yield gigabytes(stage.peak_bytes)
    yield stage.name
    yield "yes" if stage.peak_bytes <= device.usable_bytes else "NO"
    yield f"{found.update_seconds:.2f}"
    yield hours(found.hours)
    yield hours(plan.ranks * found.hours)


def _totals(report: SharedReport) -> Iterator[str]:
    """Of all runs and seeds, each at the fastest stage that fits."""
    request = report.request
    fastest = [
        min(found.hours for _, found in shared.fitting(request.device)) for shared in report.runs if report.all_fit
    ]
    if fastest:
        wall = request.seeds * sum(fastest)
        yield (
            f"{request.seeds * len(fastest)} runs, each at the fastest stage that fits, one after the other: {hours(wall)} "
            f"hours, {hours(request.gpus * wall)} GPU-hours; evaluation and training of models not counted.\n"
        )


def _problems(report: SharedReport) -> Iterator[str]:
    device = report.request.device
    for task, refused in {shared.run.task: shared.refused for shared in report.runs if shared.refused}.items():
        yield f"{task}: no {refused}.\n"
    for shared in report.runs:
        if not shared.fits(device):
            least = min(found.largest.peak_bytes for _, found in shared.plans)
            yield (
                f"{' '.join(label(shared.run))} fits at no stage of ZeRO ({gigabytes(least)} GB at least): more GPUs, "
                "engine.offload_optimizer=true, memory.gradient_checkpointing=true or a smaller ppo.microbatch_size.\n"
            )
