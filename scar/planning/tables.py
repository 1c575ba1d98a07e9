"""A report of the planner as text: models, runs, tldr beside the paper, what does not fit, what was assumed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from scar.packages import Named
from scar.planning.devices import NODE, Device, Network
from scar.planning.estimate import Advice, Estimate
from scar.planning.ranks import PREFETCH_BUCKET, REDUCE_BUCKET, REUSE_DISTANCE, Plan, Shared
from scar.planning.runs import UNIT_TOKENS, USUAL_TOKENS, Request, Run


@dataclass(frozen=True)
class Planned:
    """A config that was planned: its estimate, and what to set if it does not fit."""

    estimate: Estimate
    advice: Advice | None


@dataclass(frozen=True)
class Report:
    """All runs of a request, and what each task's configs name; at paper scale the token units beside tldr's SCAR."""

    request: Request
    runs: list[Planned]
    tokens: Planned | None
    named: dict[str, list[Named]]

    @property
    def all_fit(self) -> bool:
        """Whether every run fits on the device as it is configured."""
        return all(planned.advice is None for planned in self.runs)

    @property
    def hours(self) -> float:
        """Device-hours of all runs and seeds."""
        return self.request.seeds * sum(planned.estimate.hours for planned in self.runs)


@dataclass(frozen=True)
class SharedReport:
    """The same on several GPUs, with DeepSpeed ZeRO."""

    request: Request
    runs: list[Shared]
    tokens: Shared | None
    named: dict[str, list[Named]]

    @property
    def all_fit(self) -> bool:
        """Whether every run fits at one stage of ZeRO at least."""
        return all(run.fits(self.request.device) for run in self.runs)


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


# How planned numbers are written, and the tables that every report has.


WIDTH = 120
GB = 1e9
KEYS = {
    "policy": ("models.policy.name", "models.pretrained.name"),
    "reward": ("models.reward.name", "models.pretrained.name"),
}
"""The settings that name the checkpoint of a model."""


def lay_out(parts: Iterable[Table | str]) -> str:
    """Everything, at most WIDTH characters wide."""
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, emoji=False, markup=False)
    for part in parts:
        if isinstance(part, Table):
            console.print(part.title)  # the table itself would wrap it to its own width
            part.title = None
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def new_table(title: str, *columns: str, text: Sequence[str] = ("task", "method")) -> Table:
    """A table whose columns `text` are text and all others numbers."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        left = column in text
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "name", overflow="fold")
    return table


def label(run: Run) -> tuple[str, str]:
    """Task and method of a run."""
    return run.task, f"{run.method} {run.units or ''}".rstrip()


def gigabytes(size: float) -> str:
    """10^9 bytes."""
    return "-" if not size else f"{size / GB:.1f}" if size >= 0.05 * GB else f"{size / GB:.3f}"


def hours(count: float) -> str:
    """Two digits below one hour."""
    return f"{count:.2g}" if count < 1 else f"{count:.1f}"


def names_table(
    scale: str, named: Mapping[str, list[Named]], models: Mapping[str, Mapping[str, int]], runs: Mapping[str, Run]
) -> Table:
    """What the runs of each task name, with the parameters `models` of policy and reward model."""
    columns = ("task", "setting", "name", "revision", "parameters")
    title = f"What scale={scale} names, checked by form (nothing was asked of the hub)"
    table = new_table(title, *columns, text=columns[:4])
    for task, run in runs.items():
        if not {one.key for one in named[task]} & {key for keys in KEYS.values() for key in keys}:
            source = run.models.get("pretrained", {}).get("package", "trained here from scratch")
            table.add_row(task, "models", source, "-", _parameters(models[task], KEYS))
        for one in named[task]:
            kinds = [kind for kind, keys in KEYS.items() if one.key in keys]
            table.add_row(task, one.key, one.name, _revision(one.state), _parameters(models[task], kinds))
    return table


def _parameters(numbers: Mapping[str, int], kinds: Iterable[str]) -> str:
    return " + ".join(_short(numbers[kind]) for kind in kinds)


def _short(count: int) -> str:
    """A count of parameters in millions or billions."""
    return f"{count / 1e6:.3g}M" if count < 1e9 else f"{count / 1e9:.2f}B"


def _revision(state: str) -> str:
    """A commit's first characters; names whole."""
    return state[:12] if len(state) == 40 else state


# What the planner assumes, in the words that its reports end with.


ERROR = (
    "Beside small models measured on a CPU (`make bench BENCH=planning`) memory is 0 to 6 % too high; time, with rates measured "
    "there, is 0.4 to 1.6 times what it was. No GPU has been measured: the shares below are assumptions."
)


def assumptions(device: Device) -> Iterator[str]:
    """Of every report."""
    lengths = ", ".join(f"{task} {prompt} + {response}" for task, (prompt, response) in USUAL_TOKENS.items())
    units = ", ".join(f"{tokens} a {unit}" for unit, tokens in UNIT_TOKENS.items())
    yield (
        "How: the run's own code is traced at full size on tensors that have shapes and no numbers. GB are 10^9 bytes. "
        f"{ERROR}\n"
    )
    yield (
        f"Memory: {device.reserve:.0%} of {device.memory_bytes / GB:.1f} GB are left to CUDA, cuBLAS and the allocator's "
        "holes. Batches are as wide as the config allows; SCAR's credit takes all of coalitions.memory_mib; evaluation "
        "counts with its own batch size.\n"
    )
    yield (
        f"Time: {device.product_share:.0%} of {device.narrow_rate / 1e12:.0f} (bfloat16) and {device.wide_rate / 1e12:.1f} "
        f"(float32) TFLOP/s in matrix products, {device.memory_share:.0%} of {device.memory_rate / 1e12:.2f} TB/s in all "
        f"else, an operation every {device.start_seconds * 1e6:.0f} microseconds at most; every response is sampled to the "
        f"longest length. Credit is of usual lengths (prompt + response tokens: {lengths}; else the config's own) and units "
        f"({units} tokens). Parsing on the CPU is not counted."
    )


def rank_assumptions(device: Device, network: Network) -> Iterator[str]:
    """Of a report on several GPUs, beside the others."""
    yield (
        f"\nZeRO: every batch is split over the {network.ranks} GPUs, so that a rank computes 1/{network.ranks} of its rows. As "
        "DeepSpeed 0.19 does with float32 parameters, it keeps another float32 copy of its part of what is trained (optimizer), "
        "at every stage; gradients are whole at stage 1 and a part at stages 2 and 3, where stage 3 keeps them between updates. "
        f"Buffers: a bucket of {REDUCE_BUCKET:.0e} gradients and a copy of what is in it (reduce_bucket_size: 2 GB however small "
        "the model); at stage 3 also gathered parameters: all of policy and value function to sample, else at most those of one "
        f"layer, {PREFETCH_BUCKET:.0e} fetched ahead and {REUSE_DISTANCE / 2:.0e} that are needed again soon "
        "(stage3_max_reuse_distance). Frozen models that are sharded too are gathered whole to score coalitions, else layer by "
        "layer. What loading and flattening models takes at the start is not counted. Sizes were compared with DeepSpeed on "
        "two CPU ranks only.\n"
    )
    yield (
        f"Exchange: rings of {network.rate / 1e9:.0f} GB/s a GPU, {device.link_share:.0%} of {device.link_rate / 1e9:.0f} GB/s "
        f"over NVLink in a node of {NODE}, or of {NODE} network cards of {device.network_rate / 1e9:.0f} GB/s where they are "
        "slower and there are several nodes. Stages 1 and 2 reduce gradients to every rank (stage 1 at each optimizer step, "
        "stage 2 at each backward pass) and gather new parameters; stage 3 gathers parameters in each forward and each backward "
        "pass and reduces gradients to their owners. Nothing is exchanged while something is computed, and starting takes no "
        "time. GPU-hours are hours times GPUs."
    )


# A report on several GPUs as text: models, each run at every stage of ZeRO, what is refused or does not fit, what was assumed.


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
