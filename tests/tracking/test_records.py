"""Run records: whole or not there at all, one schema, and messages that say what to do with a broken one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scar.tracking import records
from scar.tracking.records import (
    RunRecord,
    RunWriter,
    find_records,
    read_jsonl,
    unfinished_runs,
    write_json,
    write_jsonl,
)

MANIFEST: dict[str, Any] = dict.fromkeys(records.ESSENTIAL, "any") | {
    "schema_version": records.SCHEMA_VERSION,
    "method": "scar",
    "seed": 1,
    "commit": "c0ffee",
}


def write_run(folder: Path, **manifest: Any) -> RunRecord:
    writer = RunWriter(folder)
    writer.append({"update": 1, "reward/raw_mean": 0.5})
    writer.append({"update": 2, "reward/raw_mean": 1.5})
    writer.write("evaluation.json", {"final": {"reward_mean": 1.0}})
    writer.write("samples.jsonl", [{"prompt": "The fílm", "response": "was\ngood\u2028.", "reward": 1.0}])
    writer.write("manifest.json", MANIFEST | manifest)
    return writer.commit()


def test_committed_run_comes_back_whole(tmp_path: Path) -> None:
    record = write_run(tmp_path / "runs" / "seed1")
    assert record.path == tmp_path / "runs" / "seed1"
    assert record.manifest == MANIFEST
    assert record.metrics == [{"update": 1, "reward/raw_mean": 0.5}, {"update": 2, "reward/raw_mean": 1.5}]
    assert record.evaluation == {"final": {"reward_mean": 1.0}}
    assert sorted(path.name for path in record.path.iterdir()) == [
        "evaluation.json",
        "manifest.json",
        "metrics.jsonl",
        "samples.jsonl",
    ]


def test_unfinished_run_is_invisible_until_it_is_committed(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "runs" / "seed1")
    writer.append({"update": 1})
    writer.write("manifest.json", MANIFEST)
    assert find_records(tmp_path / "runs") == []
    assert not (tmp_path / "runs" / "seed1").exists()
    writer.commit()
    assert [record.path.name for record in find_records(tmp_path / "runs")] == ["seed1"]


def test_discarded_run_leaves_nothing(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "seed1")
    writer.append({"update": 1})
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    killed = RunWriter(tmp_path / "seed1")
    killed.append({"update": 99})
    (killed.partial / "leftover.txt").write_text("old")
    record = write_run(tmp_path / "seed1")
    assert [row["update"] for row in record.metrics] == [1, 2]
    assert not (record.path / "leftover.txt").exists()


def test_a_second_commit_replaces_the_first_run(tmp_path: Path) -> None:
    write_run(tmp_path / "seed1", commit="old")
    assert write_run(tmp_path / "seed1", commit="new").manifest["commit"] == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["seed1"]


def test_values_that_json_does_not_have_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    write_json(file, {"old": 1})
    with pytest.raises(ValueError):
        write_json(file, {"new": float("nan")})
    assert json.loads(file.read_text()) == {"old": 1}
    with pytest.raises(ValueError):
        write_jsonl(tmp_path / "rows.jsonl", [{"reward": float("inf")}])
    writer = RunWriter(tmp_path / "seed1")
    with pytest.raises(ValueError):
        writer.append({"reward": float("nan")})
    writer.discard()


def test_other_schema_version_names_the_folder_both_versions_and_the_commit(tmp_path: Path) -> None:
    record = write_run(tmp_path / "seed1", schema_version=0)
    with pytest.raises(ValueError, match=f"{record.path}.*schema version 0, this code reads 2; .*c0ffee"):
        _ = record.manifest


def test_broken_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    record = write_run(tmp_path / "seed1")
    with open(record.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"update": 3, "rew')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 3, is not JSON .*delete that run folder") as caught:
        _ = record.metrics
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda file: file.write_text("{"), lambda file: file.unlink()])
@pytest.mark.parametrize("name", ["manifest", "evaluation"])
def test_broken_or_missing_file_is_named_with_the_way_out(tmp_path: Path, name: str, damage: Any) -> None:
    record = write_run(tmp_path / "seed1")
    damage(record.path / f"{name}.json")
    with pytest.raises(ValueError, match=rf"{name}\.json cannot be read .*; delete the folder {record.path}"):
        getattr(record, name)


def test_find_records_filters_by_value_and_by_any_of_several_in_a_stable_order(tmp_path: Path) -> None:
    for seed in (3, 1, 2):
        for method in ("sparse", "scar"):
            write_run(tmp_path / "smoke" / method / f"seed{seed}", method=method, seed=seed)

    def found(**wanted: Any) -> list[tuple[str, int]]:
        return [(r.manifest["method"], r.manifest["seed"]) for r in find_records(tmp_path, **wanted)]

    assert found() == [("scar", 1), ("scar", 2), ("scar", 3), ("sparse", 1), ("sparse", 2), ("sparse", 3)]
    assert found(method="scar", seed=[1, 3]) == [("scar", 1), ("scar", 3)]
    assert found(method=("sparse",), seed={2}) == [("sparse", 2)]
    assert found(method="uniform") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", r"manifest\.json cannot be read \(a list in place of an object\)"),
        ('{"name": "of another program"}', "is not that of a run of this code; move that folder away"),
        ('{"schema_version": 2, "scale": "local"}', "has no task, method, seed, .*; delete that folder"),
    ],
)
def test_foreign_and_incomplete_manifests_are_named_with_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        find_records(tmp_path, scale="local")
    assert str(folder) in str(caught.value)


def test_unfinished_runs_are_found(tmp_path: Path) -> None:
    RunWriter(tmp_path / "local" / "seed1")
    write_run(tmp_path / "local" / "seed2")
    assert unfinished_runs(tmp_path) == [tmp_path / "local" / "seed1.partial"]


def test_run_that_goes_on_keeps_the_rows_that_count_and_misses_none(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "seed1")
    for update in (1, 2, 3):
        writer.append({"update": update})
    writer.close()
    going_on = RunWriter(tmp_path / "seed1", done=2)
    going_on.append({"update": 3})
    going_on.close()
    assert [row["update"] for row in read_jsonl(going_on.partial / "metrics.jsonl")] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"metrics\.jsonl has 3 of 5 rows; delete .*seed1\.partial and run again"):
        RunWriter(tmp_path / "seed1", done=5)
    assert len(read_jsonl(going_on.partial / "metrics.jsonl")) == 3
