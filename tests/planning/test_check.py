"""`make check` as a whole: what it composes, what it prints, what it refuses."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from scar.commands.check import check, run_of
from scar.config import LoadConfig, MemoryConfig
from scar.planning.devices import DEVICES
from scar.planning.tables import WIDTH, Report, hours, render
from tests.smoke_scale import CONF, REPOSITORY, composed, silent_progress


def checked(*arguments: str) -> Any:
    return check(arguments, conf=CONF, advance=lambda done, total, numbers: None)


@pytest.fixture(scope="module")
def local() -> Report:
    return checked("scale=local", "task=imdb,tldr", "shaping=sparse,scar", "seed=1,2,3", "ppo.updates=7")


@pytest.fixture(scope="module")
def paper() -> Report:
    return checked("task=imdb", "shaping=sparse", "gpu=h100-80gb", "models.policy.revision=main")


def rows(text: str, task: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.split()[:1] == [task]]


@pytest.mark.slow
def test_one_task_of_the_papers_scale(paper: Report) -> None:
    assert [planned.estimate.parameters["policy"] for planned in paper.runs] == [124_439_808]
    assert paper.all_fit
    assert paper.tokens is None
    text = render(paper)
    assert ["imdb", "models.policy.name", "lvwerra/gpt2-imdb", "main", "124M"] in rows(text, "imdb")
    assert ["imdb", "models.reward.name", "XanderJC/gpt2-rm-imdb", "newest", "124M"] in rows(text, "imdb")
    assert ["imdb", "task.sources.hub.path", "stanfordnlp/imdb", "e6281661ce1c"] in rows(text, "imdb")
    assert "H100 80 GB" in text
    assert "A100" not in text
    memory = next(row for row in rows(text, "imdb") if "yes" in row)
    assert memory[2:6] == ["0.5", "0.000", "0.5", "0.5"]  # 124M float32 numbers; the value head's 769


def test_every_run_is_a_row_and_counts_once_a_seed(local: Report) -> None:
    labels = [(p.estimate.run.task, p.estimate.run.method, p.estimate.run.units) for p in local.runs]
    assert labels == [
        ("imdb", "sparse", None),
        ("imdb", "scar", "token"),
        ("tldr", "sparse", None),
        ("tldr", "scar", "span"),
    ]
    assert local.hours == pytest.approx(3 * sum(planned.estimate.hours for planned in local.runs))
    assert all(planned.estimate.run.ppo.updates == 7 for planned in local.runs)
    text = render(local)
    assert len(rows(text, "imdb")) == 1 + 2 + 2
    assert "12 runs: " in text
    assert "trained here from scratch" in text
    assert "hub" not in text.replace("nothing was asked of the hub", "")


@pytest.mark.slow
def test_the_output_is_at_most_120_wide_and_plain(local: Report, paper: Report) -> None:
    for report in (local, paper):
        lines = render(report).splitlines()
        assert max(map(len, lines)) <= WIDTH == 120
        assert not any("\x1b" in line or line != line.rstrip() for line in lines)


@pytest.fixture
def tiny_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 40 MB, in which an update of the local scale's imdb does not fit."""
    monkeypatch.setitem(DEVICES, "tiny", replace(DEVICES["a100-80gb"], name="tiny", memory_bytes=40e6, reserve=0.0))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_gpu")
def test_what_does_not_fit_is_said_with_what_to_set() -> None:
    report = checked("scale=local", "task=imdb", "shaping=sparse", "gpu=tiny", "evaluation.batch_size=16")
    assert not report.all_fit
    advice = report.runs[0].advice
    assert advice is not None
    assert advice.settings == {"memory.gradient_checkpointing": "true"}
    assert advice.estimate.largest.peak_bytes <= 40e6 < report.runs[0].estimate.largest.peak_bytes
    text = render(report)
    assert "imdb sparse does not fit (update). Set: memory.gradient_checkpointing=true (then 0.0" in text
    assert "NO" in next(row for row in rows(text, "imdb") if "update" in row)


def test_a_run_is_read_off_its_config() -> None:
    run = run_of(composed("scale=paper", "task=hh", "memory.offload=true", "coalitions.memory_mib=77"))
    assert (run.task, run.method, run.units) == ("hh", "scar", "sentence")
    assert run.coalitions is not None
    assert (run.coalitions.memory_mib, run.coalitions.max_units, run.coalitions.fill) == (77, 12, "space")
    assert run.memory == MemoryConfig(gradient_checkpointing=False, offload=True)
    assert (run.load.weights, run.evaluation_rows, run.longest) == ("nf4", 16, (255, 256))
    assert run_of(composed("scale=paper", "task=imdb", "shaping=abc")).coalitions is None
    assert run_of(composed("scale=paper", "task=imdb")).prompt_tokens == (4, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpu=v100"], "gpu=v100; allowed: a100-80gb, h100-80gb"),
        (["task=imdb", "models.reward.revision=abcdef0"], r"models\.reward\.revision=abcdef0; allowed: null"),
        (["task=imdb", "task.sources.hub.path=a/b/c"], r"task\.sources\.hub\.path=a/b/c; allowed: owner/name"),
        (["scale=local", "task=imdb", "task.sources.hub.path=a/b/c"], "allowed: owner/name"),
        (["task=imdb", "shaping=scar", "coalitions.backend=plain"], r"coalitions\.backend=plain cannot be planned"),
        (
            ["shaping=sparse", "task=hh", "evaluation.prompts=1000"],
            r"task=hh evaluation\.prompts=1000; allowed: at most 694, the test prompts of its data",
        ),
        (["task=tldr", "evaluation.prompts=6554"], "at most 6553, the test prompts"),
        (["task=imdb", "evaluation.prompts=25000"], "at most 24534, the test prompts"),
        (["task=imdb", "memory.offload=1"], r"memory\.offload=1; allowed: true or false"),
        (["scale=local", "task=imdb", "gpus=3"], r"ppo\.minibatch_size=\d+ is not divisible by gpus=3"),
    ],
)
def test_what_is_refused(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(*arguments)


SHARED = ("scale=local", "task=imdb", "shaping=sparse,scar", "seed=1,2,3", "gpus=2", "ppo.updates=7")


@pytest.fixture(scope="module")
def shared() -> Report:
    pytest.importorskip("deepspeed")
    return checked(*SHARED)


@pytest.mark.slow
def test_on_several_gpus_every_run_has_a_row_a_stage(shared: Report) -> None:
    assert [planned.estimate.run.method for planned in shared.runs] == ["sparse", "scar"]
    assert shared.all_fit
    text = render(shared)
    lines = text.splitlines()
    assert "GB per GPU on 2 x A100 80 GB by part" in text
    for label in (["imdb", "sparse"], ["imdb", "scar", "token"]):
        first = next(at for at, line in enumerate(lines) if line.split()[: len(label)] == label)
        assert lines[first].split()[len(label)] == "1"
        assert [line.split()[0] for line in lines[first + 1 : first + 4]] == ["2", "3", "3"]
        assert [line.split()[-3] for line in lines[first : first + 4]] == ["yes"] * 4
    assert max(map(len, lines)) <= WIDTH
    wall = 3 * sum(planned.estimate.hours for planned in shared.runs)
    assert f"6 runs: at least {hours(wall)} hours, {hours(2 * wall)} GPU-hours" in text


@pytest.mark.slow
def test_what_fits_at_no_stage_or_is_refused_is_said(shared: Report) -> None:
    small = replace(shared.request.device, memory_bytes=2e9, reserve=0.0)  # the bucket alone takes as much
    load = LoadConfig("nf4", "bfloat16", {"rank": 4, "alpha": 4})
    runs = [
        replace(planned, estimate=replace(planned.estimate, run=replace(planned.estimate.run, load=load)))
        for planned in shared.runs
    ]
    report = replace(shared, request=replace(shared.request, device=small), runs=runs)
    assert report.all_fit is False
    text = render(report)
    assert text.count("imdb: no ZeRO 3 with models.policy.load.weights=nf4: DeepSpeed cannot") == 1
    problems = [line for line in text.splitlines() if " fits at no stage of ZeRO (" in line]
    assert [line.split(" fits ")[0] for line in problems] == ["imdb sparse", "imdb scar token"]


@pytest.mark.slow
def test_without_deepspeed_the_plan_is_for_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as if it were not installed
    report = checked(*SHARED)
    alone = checked(*SHARED, "gpus=1")
    assert [planned.estimate for planned in report.runs] == [planned.estimate for planned in alone.runs]
    text = " ".join(render(report).split())
    before, after = text.split(" This is the plan for one GPU: ")
    assert before == " ".join(render(alone).split())
    assert after == (
        "the plan for 2 GPUs needs the package deepspeed, which is not installed; install it with "
        "`python -m pip install 'scar[deepspeed]'`."
    )


def run_script(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit status and output of experiments/check.py."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the script sets it: so it is taken back
    monkeypatch.setattr("scar.commands.cli.training_bar", silent_progress)  # a bar would be drawn until pytest ends
    monkeypatch.setattr(sys, "argv", ["check.py", *arguments])
    status: Any = 0
    try:
        runpy.run_path(str(REPOSITORY / "experiments" / "check.py"), run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    return status, *capsys.readouterr()


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_gpu")
@pytest.mark.parametrize(("gpu", "status", "fits"), [("tiny", 1, "NO"), ("a100-80gb", 0, "yes")])
def test_the_script_says_by_its_status_whether_all_runs_fit(
    gpu: str, status: int, fits: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["scale=local", "task=imdb", "shaping=sparse", f"gpu={gpu}", "evaluation.batch_size=16"]
    found, out, err = run_script(settings, monkeypatch, capsys)
    assert (found, err) == (status, "")
    assert fits in next(row for row in rows(out, "imdb") if "update" in row)


def test_the_script_ends_in_one_line_for_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for argument, message in (
        ("gpu=v100", "gpu=v100; allowed: a100-80gb, h100-80gb"),
        ("task=imbd", "'task/imbd'"),
        ("ppo.microbatch_size=7", "set microbatch_size to one of 1, 2, 4"),
    ):
        status, _, err = run_script([argument], monkeypatch, capsys)
        assert status == 1
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_all_60_runs_of_the_paper() -> None:
    report = checked()
    assert report.request.seeds * len(report.runs) == 60
    assert report.all_fit
    assert report.tokens is not None
    found = {(p.estimate.run.task, p.estimate.run.method): p.estimate for p in report.runs}
    assert {task: found[task, "sparse"].parameters["policy"] for task in ("imdb", "tldr", "hh")} == {
        "imdb": 124_439_808,
        "tldr": 1_011_781_632,
        "hh": 6_738_415_616 + 16_777_216,
    }
    hours = [found["tldr", "sparse"].hours, found["tldr", "scar"].hours, report.tokens.estimate.hours]
    assert hours == sorted(hours)
    assert hours[1] < 7 < 48
    # Products of a 1B model's layers (16 of 12 x 2,048^2), 2 FLOPs a weight and token, in texts of 360 + 40 tokens.
    layers = 16 * 12 * 2048**2
    cut, usual, longest = report.as_shap.values()
    assert cut.tflop("credit") == pytest.approx(2 * layers * 400 * 500 * 64 / 1e12, rel=0.1)
    assert [round(estimate.coalitions) for estimate in (cut, usual, longest)] == [500, 1196, 2028]
    assert found["tldr", "scar"].hours < report.tokens.estimate.hours < cut.hours < usual.hours < longest.hours
    text = render(report)
    assert [row[0:2] + row[-1:] for row in rows(text, "shap,")] == [
        ["shap,", "500", "48"],
        ["shap,", "all", "48"],
        ["shap,", "all", "48"],
    ]
    assert "60 runs: " in text
    assert [row[-1] for row in rows(text, "scar")] == ["7", "48"]
    assert max(map(len, text.splitlines())) <= WIDTH
