from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from scar.report.files import write_files

SCRIPT = Path(__file__).parents[2] / "experiments" / "report.py"
FILES = ["table1.md", "table1.csv", "table1.json", "figure2.png", "figure2.pdf", "figure2.json"]
FILES += ["comparisons.md", "comparisons.csv"]


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    """Run the script in `tmp_path`, in this process (its imports take seconds); relative folders are its own defaults."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        status = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as ended:
            status = ended.code
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, out, err)

    return run


def assert_one_line_error(done, *parts):
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


def test_table1_is_shown_and_written_with_the_records_behind_it(make_run, report, tmp_path):
    for seed in (1, 2, 6):
        make_run("scar", seed, final=float(seed))
    make_run("scar", 1, folder="other-scale", scale="smoke")
    done = report("target=table1", "seeds=[1,2]", "methods=[sparse, scar]")
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "results" / "local"
    assert sorted(os.listdir(folder)) == sorted(FILES)  # no temporary file is left either
    table = (folder / "table1.md").read_text(encoding="utf-8")
    assert "| IMDB | 0.50 | n=0/2 | 1.50 ± 0.71 (n=2) |" in table
    assert done.stdout.startswith(table)
    assert "## Comparisons" in done.stdout
    wrote = [line for line in done.stdout.splitlines() if line.startswith("wrote ")]
    assert wrote == [f"wrote results/local/{name}" for name in FILES]
    for name in ("table1.json", "figure2.json"):
        origin = json.loads((folder / name).read_text(encoding="utf-8"))
        assert [record["path"] for record in origin["records"]] == ["runs/imdb-scar-1", "runs/imdb-scar-2"]
        assert [(r["fingerprint"], r["commit"], r["dirty"]) for r in origin["records"]] == [
            ("f00d", "c0ffee", False)
        ] * 2
        assert origin["missing"] == [{"task": "imdb", "method": "sparse", "seeds": [1, 2]}]
    assert len(json.loads((folder / "figure2.json").read_text(encoding="utf-8"))["curves"]) == 1


def test_a_user_starts_it_as_a_program(make_run, tmp_path):
    make_run("scar", 1)
    command = [sys.executable, str(SCRIPT), "target=table1", "scale=smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, encoding="utf-8")
    assert_one_line_error(done, "scale=smoke")


def test_five_seeds_are_expected_unless_told(make_run, report):
    make_run("scar", 1)
    assert "(n=1/5)" in report("target=table1").stdout


def test_no_fitting_record_is_one_line_that_says_what_to_do(make_run, report, tmp_path):
    make_run("scar", 1)
    done = report("target=table1", "tasks=[hh]", "records=runs", "scale=smoke")
    assert_one_line_error(done, "runs", "scale=smoke", "task=['hh']", "make reproduce-table1 SCALE=smoke")
    assert not (tmp_path / "results").exists()


def test_unwritable_results_folder_is_one_line(make_run, report, tmp_path):
    make_run("scar", 1)
    (tmp_path / "file").write_text("in the way")
    assert_one_line_error(report("target=table1", "results=file/results"), "file/results/local", "results=")


def test_mixed_settings_are_one_line_and_its_flag_narrows_them(make_run, report):
    make_run("scar", 1, folder="low", alpha=0.5, final=1.0)
    make_run("scar", 1, folder="high", alpha=0.8, final=2.0)
    assert_one_line_error(report("target=table1"), "runs/low", "runs/high", "alpha=0.8")
    done = report("target=table1", "alpha=0.8", "seeds=[1]", "methods=[scar]")
    assert "2.00 ± - (n=1)" in done.stdout


def test_model_seed_narrows(make_run, report):
    make_run("scar", 1, folder="a", model_seed=1, final=1.0)
    make_run("scar", 1, folder="b", model_seed=2, final=2.0)
    assert "2.00 ± - (n=1)" in report("target=table1", "model_seed=2", "seeds=[1]", "methods=[scar]").stdout


def test_broken_record_is_one_line(make_run, report):
    (make_run("scar", 1).path / "metrics.jsonl").write_text('{"update": 1')
    assert_one_line_error(report("target=table1"), "metrics.jsonl", "line 1", "run it again")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("table1", "table1: write target=table1"),
        ("--seeds=1,2", "--seeds=1,2: write seeds=1,2"),
        ("seeds=1,2", 'seeds=1,2: write "seeds=[1,2]"'),
        ("seeds=range(1,4)", 'seeds=range(1,4): write "seeds=[1,2,3]"'),
        ("seeds=3", 'seeds=3: write a list: "seeds=[3]"'),
        ("tasks=imdb", 'tasks=imdb: write a list: "tasks=[imdb]"'),
        ("methods=sparse,scar", 'methods=sparse,scar: write "methods=[sparse,scar]"'),
        ("seeds=[one]", "seeds=[one]; allowed: different whole numbers"),
        ("seeds=[1,1]", "seeds=[1,1]; allowed: different whole numbers"),
        ("tasks=[]", "tasks=[]; allowed: different names"),
        ("target=tabel1", "target=tabel1: did you mean target=table1? allowed: table1 table2"),
        ("seed=[1]", "seed: no such setting; did you mean seeds?"),
        ("+method=[scar]", "method: no such setting; did you mean methods?"),
        ("++bogus=1", "bogus: no such setting; allowed: target, scale, tasks"),
        ("alpha=high", "alpha=high; allowed: int or float"),
        ("item=2", "report.py target=credit record=FOLDER item=0"),
    ],
)
def test_what_is_no_setting_or_an_old_spelling_is_one_line(report, argument, says):
    assert_one_line_error(report(argument), says)


def test_its_settings_are_shown_and_flags_of_hydra_stay(report):
    done = report("--cfg", "job", "scale=smoke")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"target: all", "scale: smoke", "tasks: null"} <= set(done.stdout.splitlines())


def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    write_files(tmp_path / "out", {"a": b"old"})

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space left on device"):
        write_files(tmp_path / "out", {"a": b"new"})
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "out").iterdir()] == [("a", b"old")]


def test_a_source_of_records_that_is_none_is_one_line(report):
    assert_one_line_error(
        report("target=table1", "records=wandb:nothing"), "records=wandb:nothing", "wandb:ENTITY/PROJECT"
    )


def test_without_a_target_there_is_a_page_of_everything(make_run, report, tmp_path):
    make_run("scar", 1)
    done = report("seeds=[1]")
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote results/local/report.html" in done.stdout
    assert (tmp_path / "results" / "local" / "report.html").stat().st_size > 10_000
