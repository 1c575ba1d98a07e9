"""Credit records: whole or not there, gone on with after an interruption."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from scar.tracking.credit_records import CREDIT_VERSION, CreditRecord, CreditWriter

MANIFEST = {"credit_version": CREDIT_VERSION, "task": "imdb", "methods": {}}
ROW = {"number": 0, "methods": {}}


def test_committed_record_comes_back_whole(tmp_path: Path) -> None:
    with CreditWriter(tmp_path / "a" / "text-1") as writer:
        writer.append(ROW | {"response": "was\u2028 good \U0001f600"})
        assert not (tmp_path / "a" / "text-1").exists()
        writer.commit(MANIFEST)
    record = CreditRecord(tmp_path / "a" / "text-1")
    assert record.rows == [ROW | {"response": "was\u2028 good \U0001f600"}]
    assert record.manifest == MANIFEST | {"responses": 1}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["text-1"]


def test_an_interrupted_record_goes_on_behind_its_last_whole_row(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), CreditWriter(tmp_path / "r") as writer:
        writer.append(ROW)
        writer.append(ROW | {"number": 1})
        raise KeyboardInterrupt
    assert not (tmp_path / "r").exists()
    file = tmp_path / "r.partial" / "credit.jsonl"
    file.write_text(file.read_text() + '{"number": 2', encoding="utf-8")
    with CreditWriter(tmp_path / "r") as writer:
        assert writer.done == 2
        writer.append(ROW | {"number": 2})
        writer.commit(MANIFEST)
    assert [row["number"] for row in CreditRecord(tmp_path / "r").rows] == [0, 1, 2]
    assert not (tmp_path / "r.partial").exists()


@pytest.mark.parametrize("tail", ['{"number": 1}', '{"number": 1\n{"number": 2}\n', "\n"])
def test_rows_behind_a_broken_one_are_computed_again(tmp_path: Path, tail: str) -> None:
    (tmp_path / "r.partial").mkdir()
    (tmp_path / "r.partial" / "credit.jsonl").write_text('{"number": 0}\n' + tail, encoding="utf-8")
    assert CreditWriter(tmp_path / "r").done == 1


def test_an_error_before_the_first_row_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), CreditWriter(tmp_path / "r"):
        raise ValueError("bad")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_credit_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the folder of a credit record"):
        _ = CreditRecord(tmp_path).manifest
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": 1}), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"not that of a credit record of this code; give the folder of a credit record"
    ):
        _ = CreditRecord(tmp_path).manifest
    (tmp_path / "manifest.json").write_text(json.dumps({"credit_version": 3}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"has credit version 3, this code reads 2; compute the record again"):
        _ = CreditRecord(tmp_path).manifest
