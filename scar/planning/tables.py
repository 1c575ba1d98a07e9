"""A report of the planner as text: models, runs, tldr beside the paper, what does not fit, what was assumed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from scar.packages import Named
from scar.planning.devices import Device
from scar.planning.estimate import Advice, Estimate
from scar.planning.ranks import Zero
from scar.planning.runs import UNIT_TOKENS, USUAL_TOKENS, Request, Run

WIDTH = 120
GB = 1e9
PARTS = ("policy", "value", "reference", "reward", "optimizer", "gradients", "activations")
STAGES = ("generate", "logprobs", "score", "credit", "update")
ZERO_PARTS = ("states", "frozen", "buffers", "activations")
PAPER_HOURS = {"span": "7", "token": "48"}
"""tldr, 1,000 updates on one A100 80 GB (paper B.1); of token units it does not say with how many evaluations."""
NAME_KEYS = {
    "policy": ("models.policy.name", "models.pretrained.name"),
    "reward": ("models.reward.name", "models.pretrained.name"),
}
"""The settings that name the checkpoint of a model."""


@dataclass(frozen=True)
class Planned:
    """A config that was planned: its estimate (of one of its GPUs) and what to set if it does not fit one GPU; on several GPUs what
    one of them holds at each stage of ZeRO."""

    estimate: Estimate
    advice: Advice | None = None
    zero: list[Zero] = field(default_factory=list)

    @property
    def least_bytes(self) -> float:
        """Of a GPU, at the stage of ZeRO that holds least."""
        return min((zero.peak_bytes for zero in self.zero), default=self.estimate.largest.peak_bytes)


@dataclass(frozen=True)
class Report:
    """All runs of a request, and what each task's configs name; at paper scale the token units beside tldr's SCAR, and what their
    credit would take `as_shap` computes it, by a label; `missing`: why there is no plan for several GPUs."""

    request: Request
    runs: list[Planned]
    tokens: Planned | None
    named: dict[str, list[Named]]
    missing: str | None = None
    as_shap: dict[str, Estimate] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        """Of a run as it was planned."""
        return 1 if self.missing else self.request.gpus

    @property
    def all_fit(self) -> bool:
        """Whether every run fits as it is configured, on several GPUs at one stage of ZeRO at least."""
        return all(planned.least_bytes <= self.request.device.usable_bytes for planned in self.runs)

    @property
    def hours(self) -> float:
        """Of all runs and seeds, one after the other."""
        return self.request.seeds * sum(planned.estimate.hours for planned in self.runs)


def render(report: Report) -> str:
    """Everything, at most WIDTH characters wide."""
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, emoji=False, markup=False)
    for item in _sections(report):
        if isinstance(item, Table):
            console.print(item.title)  # the table itself would wrap it to its own width
            item.title = None
        console.print(item)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def _sections(report: Report) -> Iterator[Table | str]:
    device = report.request.device
    yield _names(report)
    if report.gpus > 1:
        yield _zero(report)
    else:
        yield _memory(report)
        yield _work(report)
        if report.tokens is not None:
            yield _beside_the_paper(report)
            yield SHAP_ROWS
    count = report.request.seeds * len(report.runs)
    spent = f"{hours(report.hours)} hours of one {device.name}"
    if report.gpus > 1:
        spent = (
            f"at least {hours(report.hours)} hours, {hours(report.gpus * report.hours)} GPU-hours: what GPUs exchange is not "
            "counted"
        )
    yield f"{count} runs: {spent}; evaluation and training of models not counted.\n"
    yield from _problems(report)
    yield from _assumptions(device)
    if report.gpus > 1:
        yield f"\n{ZERO_ASSUMPTIONS.strip()}"
    if report.missing:
        yield f"\nThis is the plan for one GPU: {report.missing}."


def _table(title: str, *columns: str, text: Sequence[str] = ("task", "method", "stage")) -> Table:
    """A table whose columns `text` are text and all others numbers."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        left = column in text
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "name", overflow="fold")
    return table


def _names(report: Report) -> Table:
    """What the runs of each task name, with the parameters of policy and reward model."""
    columns = ("task", "setting", "name", "revision", "parameters")
    title = f"What scale={report.request.scale} names, checked by form (nothing was asked of the hub)"
    table = _table(title, *columns, text=columns[:4])
    for task, estimate in {planned.estimate.run.task: planned.estimate for planned in report.runs}.items():
        names = report.named[task]
        if not {name.key for name in names} & {key for keys in NAME_KEYS.values() for key in keys}:
            source = estimate.run.models.get("pretrained", {}).get("package", "trained here from scratch")
            table.add_row(task, "models", source, "-", _parameters(estimate, NAME_KEYS))
        for name in names:
            revision = name.state[:12] if len(name.state) == 40 else name.state  # of a commit the first characters
            models = [model for model, keys in NAME_KEYS.items() if name.key in keys]
            table.add_row(task, name.key, name.name, revision, _parameters(estimate, models))
    return table


def _memory(report: Report) -> Table:
    device = report.request.device
    title = f"GB on one {device.name} by part, in the stage that holds most (allowed: {device.usable_bytes / GB:.1f})"
    table = _table(title, "task", "method", *PARTS, "peak", "stage", "fits")
    for planned in report.runs:
        stage = planned.estimate.largest
        sizes = (*(stage.held[name] for name in PARTS), stage.peak_bytes)
        run = planned.estimate.run
        table.add_row(run.task, _method(run), *map(_gigabytes, sizes), stage.name, _fits(stage.peak_bytes, device))
    return table


def _work(report: Report) -> Table:
    seeds = report.request.seeds
    table = _table(
        f"TFLOP of one update by stage, its seconds, hours of a run and of {seeds} on one {report.request.device.name}",
        *("task", "method", *STAGES, "all", "s/update", "updates", "hours", f"{seeds} runs"),
    )
    for estimate in (planned.estimate for planned in report.runs):
        table.add_row(
            *(estimate.run.task, _method(estimate.run)),
            *(_tflop(estimate.tflop(name)) for name in STAGES),
            _tflop(estimate.tflop()),
            f"{estimate.update_seconds:.2f}",
            f"{estimate.run.ppo.updates}",
            hours(estimate.hours),
            hours(seeds * estimate.hours),
        )
    return table


def _beside_the_paper(report: Report) -> Table:
    assert report.tokens is not None
    title = f"tldr, one run on one {report.request.device.name}, beside the paper's hours on one A100 80 GB (B.1)"
    numbers = ("coalitions per response", "s of credit", "s per update", "hours", "times sparse", "the paper's hours")
    table = _table(title, "method", *numbers)
    runs = [planned.estimate for planned in (*report.runs, report.tokens) if planned.estimate.run.task == "tldr"]
    sparse = next((estimate.hours for estimate in runs if estimate.run.method == "sparse"), None)
    for label, estimate in [*((_method(estimate.run), estimate) for estimate in runs), *report.as_shap.items()]:
        credit = next(stage for stage in estimate.stages if stage.name == "credit")
        table.add_row(
            label,
            f"{estimate.coalitions:.0f}" if estimate.coalitions else "-",
            f"{credit.seconds:.2f}",
            f"{estimate.update_seconds:.2f}",
            f"{estimate.hours:.1f}",
            "-" if sparse is None else f"{estimate.hours / sparse:.2f}",
            PAPER_HOURS.get(estimate.run.units or "", "-"),
        )
    return table


SHAP_ROWS = (
    "Rows of shap: token units, each coalition read as a whole text, as the shap package has it; `scar token` reads prompts and "
    "common beginnings once. shap stops at 500 evaluations unless told otherwise; the paper does not say whether it was.\n"
)


def _zero(report: Report) -> Table:
    device, gpus = report.request.device, report.gpus
    table = _table(
        f"GB per GPU on {gpus} x {device.name} by part, in the stage that holds most (allowed: {device.usable_bytes / GB:.1f}); "
        "hours of one run",
        *("task", "method", "ZeRO", *ZERO_PARTS, "all", "stage", "fits", "hours", "GPU-hours"),
        text=("task", "method", "ZeRO", "stage"),
    )
    for planned in (*report.runs, *([report.tokens] if report.tokens else [])):
        run, spent = planned.estimate.run, planned.estimate.hours
        for zero in planned.zero:
            sizes = (*(zero.held[name] for name in ZERO_PARTS), zero.peak_bytes)
            first = (run.task, _method(run)) if zero is planned.zero[0] else ("", "")
            last = (zero.largest, _fits(zero.peak_bytes, device), hours(spent), hours(gpus * spent))
            table.add_row(*first, zero.label, *map(_gigabytes, sizes), *last)
        table.add_section()
    return table


def _problems(report: Report) -> Iterator[str]:
    device = report.request.device
    for run in {planned.estimate.run.task: planned.estimate.run for planned in report.runs}.values():
        if report.gpus > 1 and run.load.weights == "nf4":
            yield f"{run.task}: no ZeRO 3 with models.policy.load.weights=nf4: DeepSpeed cannot partition 4-bit weights.\n"
    for planned in report.runs:
        run, size = planned.estimate.run, f"{_gigabytes(planned.least_bytes)} GB"
        if planned.least_bytes <= device.usable_bytes:
            continue
        if planned.advice is None:
            yield (
                f"{run.task} {_method(run)} fits at no stage of ZeRO ({size} at least): more GPUs, "
                "engine.offload_optimizer=true, memory.gradient_checkpointing=true or a smaller ppo.microbatch_size.\n"
            )
            continue
        peak = planned.advice.estimate.largest.peak_bytes
        settings = (
            " ".join(f"{key}={value}" for key, value in planned.advice.settings.items()) or "no setting that helps"
        )
        then = f"{_gigabytes(peak)} GB"
        then = f"then {then}" if peak <= device.usable_bytes else f"then still {then}: a smaller model or a larger GPU"
        yield f"{run.task} {run.method} does not fit ({planned.estimate.largest.name}). Set: {settings} ({then}).\n"


def _method(run: Run) -> str:
    return f"{run.method} {run.units or ''}".rstrip()


def _fits(size: float, device: Device) -> str:
    return "yes" if size <= device.usable_bytes else "NO"


def _gigabytes(size: float) -> str:
    return "-" if not size else f"{size / GB:.1f}" if size >= 0.05 * GB else f"{size / GB:.3f}"


def _tflop(amount: float) -> str:
    return "-" if not amount else f"{amount:.3g}" if amount < 1000 else f"{amount:.0f}"


def hours(count: float) -> str:
    """Two digits below one hour."""
    return f"{count:.2g}" if count < 1 else f"{count:.1f}"


def _parameters(estimate: Estimate, models: Iterable[str]) -> str:
    """Of each model, in millions or billions."""
    counts = [estimate.parameters[model] for model in models]
    return " + ".join(f"{count / 1e6:.3g}M" if count < 1e9 else f"{count / 1e9:.2f}B" for count in counts)


# What the planner assumes, in the words that its reports end with.


def _assumptions(device: Device) -> Iterator[str]:
    lengths = ", ".join(f"{task} {prompt} + {response}" for task, (prompt, response) in USUAL_TOKENS.items())
    units = ", ".join(f"{unit} {tokens}" for unit, tokens in UNIT_TOKENS.items())
    yield (
        "How: the run's own code is traced at full size on tensors that have shapes and no numbers. GB are 10^9 bytes. "
        "Beside small models measured on a CPU (`make bench BENCH=planning`) memory is 0 to 6 % too high; time, with rates "
        "measured there, is 0.4 to 1.6 times what it was. No GPU has been measured: the shares below are assumptions.\n"
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
        f"(tokens in each: {units}). Parsing on the CPU is not counted."
    )


ZERO_ASSUMPTIONS = """
ZeRO: every batch is split over the GPUs. States are weights, gradients and optimizer of what is trained: DeepSpeed's own
estimate for ZeRO 2 and 3 in 16-bit training, two bytes per weight added because these are float32; at ZeRO 1 whole gradients
are added. Frozen are reference policy, reward model and untrained weights of the policy. Buffers are DeepSpeed's bucket of
gradients and a copy of it; at ZeRO 3 also the policy, which is gathered to sample. Sharded frozen models are gathered to
score coalitions. Parameters that ZeRO 3 fetches ahead (stage3_max_reuse_distance) and what loading takes are not counted.
No multi-GPU run has been measured.
""".replace("\n", " ")
