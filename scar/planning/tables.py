"""A report of the planner as text: models, runs, tldr beside the paper, what does not fit, what was assumed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from scar.planning.check import Planned, Report
from scar.planning.devices import Device
from scar.planning.estimate import Estimate
from scar.planning.runs import UNIT_TOKENS, USUAL_TOKENS, Run

WIDTH = 120
GB = 1e9
PARTS = ("policy", "value", "reference", "reward", "optimizer", "gradients", "activations")
STAGES = ("generate", "logprobs", "score", "credit", "update")
KEYS = {
    "policy": ("models.policy.name", "models.pretrained.name"),
    "reward": ("models.reward.name", "models.pretrained.name"),
}
"""The settings that name the checkpoint of a model."""
PAPER_HOURS = {"span": 7, "token": 48}
"""tldr, 1,000 updates on one A100 80 GB (paper B.1)."""
ERROR = (
    "Beside small models measured on a CPU (`make bench BENCH=planning`) memory is 0 to 6 % too high; time, with rates measured "
    "there, is 0.4 to 1.6 times what it was. No GPU has been measured: the shares below are assumptions."
)


def render(report: Report) -> str:
    """Everything, at most WIDTH characters wide."""
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, emoji=False, markup=False)
    for part in _parts(report):
        if isinstance(part, Table):
            console.print(part.title)  # the table itself would wrap it to its own width
            part.title = None
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def _parts(report: Report) -> Iterator[Table | str]:
    device = report.request.device
    yield _names(report)
    yield _memory(report)
    yield _work(report)
    if report.tokens is not None:
        yield _beside_the_paper(report)
    count = report.request.seeds * len(report.runs)
    yield f"{count} runs: {_hours(report.hours)} hours of one {device.name}; evaluation and training of models not counted.\n"
    yield from (_problem(planned, device) for planned in report.runs if planned.advice is not None)
    yield from _assumptions(report)


def _table(title: str, *columns: str, text: Sequence[str] = ("task", "method")) -> Table:
    """A table whose columns `text` are text and all others numbers."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        left = column in text
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "name", overflow="fold")
    return table


def _names(report: Report) -> Table:
    columns = ("task", "setting", "name", "revision", "parameters")
    title = f"What scale={report.request.scale} names, checked by form (nothing was asked of the hub)"
    table = _table(title, *columns, text=columns[:4])
    estimates = {planned.estimate.run.task: planned.estimate for planned in report.runs}
    for task, estimate in estimates.items():
        named = report.named[task]
        models = {one.key for one in named} & {key for keys in KEYS.values() for key in keys}
        if not models:
            source = estimate.run.models.get("pretrained", {}).get("package", "trained here from scratch")
            table.add_row(task, "models", source, "-", _parameters(estimate, KEYS))
        for one in named:
            kinds = [kind for kind, keys in KEYS.items() if one.key in keys]
            table.add_row(task, one.key, one.name, _revision(one.state), _parameters(estimate, kinds))
    return table


def _parameters(estimate: Estimate, kinds: Iterable[str]) -> str:
    return " + ".join(_short(estimate.parameters[kind]) for kind in kinds)


def _revision(state: str) -> str:
    """A commit's first characters; names whole."""
    return state[:12] if len(state) == 40 else state


def _label(run: Run) -> tuple[str, str]:
    return run.task, f"{run.method} {run.units or ''}".rstrip()


def _memory(report: Report) -> Table:
    device = report.request.device
    title = f"GB on one {device.name} by part, in the stage that holds most (allowed: {device.usable_bytes / GB:.1f})"
    table = _table(title, "task", "method", *PARTS, "peak", "stage", "fits", text=("task", "method", "stage"))
    for planned in report.runs:
        stage = planned.estimate.largest
        sizes = (*(stage.held[part] for part in PARTS), stage.peak_bytes)
        fits = "yes" if planned.advice is None else "NO"
        table.add_row(*_label(planned.estimate.run), *(_gigabytes(size) for size in sizes), stage.name, fits)
    return table


def _gigabytes(size: float) -> str:
    return "-" if not size else f"{size / GB:.1f}" if size >= 0.05 * GB else f"{size / GB:.3f}"


def _work(report: Report) -> Table:
    seeds = report.request.seeds
    table = _table(
        f"TFLOP of one update by stage, its seconds, hours of a run and of {seeds} on one {report.request.device.name}",
        *("task", "method", *STAGES, "all", "s/update", "updates", "hours", f"{seeds} runs"),
    )
    for planned in report.runs:
        estimate = planned.estimate
        table.add_row(
            *_label(estimate.run),
            *(_tflop(estimate.tflop(name)) for name in STAGES),
            _tflop(estimate.tflop()),
            f"{estimate.update_seconds:.2f}",
            f"{estimate.run.ppo.updates}",
            _hours(estimate.hours),
            _hours(seeds * estimate.hours),
        )
    return table


def _tflop(amount: float) -> str:
    return "-" if not amount else f"{amount:.3g}" if amount < 1000 else f"{amount:.0f}"


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 1 else f"{hours:.1f}"


def _short(count: int) -> str:
    """A count of parameters in millions or billions."""
    return f"{count / 1e6:.3g}M" if count < 1e9 else f"{count / 1e9:.2f}B"


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
    table = _table(title, *columns)
    runs = [planned.estimate for planned in (*report.runs, report.tokens) if planned.estimate.run.task == "tldr"]
    sparse = next((one.hours for one in runs if one.run.method == "sparse"), None)
    for one in runs:
        credit = next(stage for stage in one.stages if stage.name == "credit")
        table.add_row(
            _label(one.run)[1],
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
    size = f"{_gigabytes(peak)} GB"
    then = f"then {size}" if fits else f"then still {size}: a smaller model or a larger GPU"
    return f"{run.task} {run.method} does not fit ({planned.estimate.largest.name}). Set: {settings} ({then}).\n"


def _assumptions(report: Report) -> Iterator[str]:
    device = report.request.device
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
