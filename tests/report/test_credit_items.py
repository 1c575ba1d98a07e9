from __future__ import annotations

import json

import pytest

from scar.report.credit_items import credit_records, credit_verdicts, figure1_files, measured_files
from scar.report.selection import NoRunError, Sources
from tests.report.credit_records import PIECES, example_row, on_units, plain, row_of, write_record


@pytest.fixture
def sources(tmp_path):
    return Sources(scale="local", records=tmp_path / "runs", credit=tmp_path / "credit")


def two_methods(number):
    """ABC gives all to the last content token; SCAR tokens give half of |credit| to one negative unit in the middle."""
    units = on_units(
        PIECES, [1, 2, 3, 4, 5, 6], [2.0, 2.0, 0.0, -2.0, 0.0, 0.0], [[0, 1], [2, 3], [4, 5], [6, 7], [9, 8]]
    )
    return row_of(PIECES, {"abc": plain([0, 0, 0, 0, 0, 2.0, 0]), "scar:token": units}, number=number)


def test_figure1_is_of_the_typed_text_and_names_its_record(sources, tmp_path):
    record = write_record(tmp_path / "credit" / "text", [example_row()], **origin("text"))
    files = figure1_files(sources)
    assert set(files) == {"figure1.png", "figure1.pdf", "figure1.json"}
    assert json.loads(files["figure1.json"])["path"] == record.path.as_posix()


def origin(kind, **more):
    return {"source": {"kind": kind}, "fingerprint": "f00d", "model_seed": 1} | more


@pytest.mark.slow
def test_measurements_of_each_task_have_files_of_their_own(sources, tmp_path):
    for task in ("imdb", "hh"):
        rows = [two_methods(number) for number in range(10)]
        write_record(tmp_path / "credit" / task, rows, **origin("sft", task=task))
    files = measured_files(sources)
    assert {"credit_imdb.md", "credit_imdb.png", "credit_hh.csv", "credit_hh.json"} <= set(files)
    assert "Spearman" in files["credit_imdb.md"].decode()  # words have a sense on imdb
    assert "Spearman" not in files["credit_hh.md"].decode()


def test_what_the_paper_says_of_credit_gets_a_verdict(sources, tmp_path):
    write_record(tmp_path / "credit" / "sft", [two_methods(n) for n in range(10)], **origin("sft"))
    found = {verdict.claim: verdict for verdict in credit_verdicts(sources)}
    negative = found["SCAR (token units) gives negative credit on IMDB"]
    assert (negative.verdict, negative.evidence) == ("yes", "share of units 0.17 [0.17, 0.17], 10 responses")
    last = found["ABC puts more on the last content token than SCAR (token units) on IMDB"]
    assert (last.verdict, last.evidence[:48]) == ("yes", "share of |credit| 1.00 [1.00, 1.00] against 0.00")
    assert "SCAR (token units) agrees better than ABC with people's ratings of words on IMDB" in found


def test_nothing_credited_is_no_verdict_and_says_what_makes_it(sources):
    assert credit_verdicts(sources) == []
    with pytest.raises(NoRunError, match="make reproduce-fig1"):
        figure1_files(sources)


def test_of_several_records_of_one_task_the_newest_is_shown_and_named(sources, tmp_path):
    for name, day in (("a", 1), ("b", 3), ("c", 2)):  # as methods=[scar,mine] leaves one beside Figure 1's own
        finished = f"2025-01-0{day}T00:00:00+00:00"
        write_record(tmp_path / "credit" / name, [example_row()], finished=finished, **origin("text"))
    assert [record.path.name for record in credit_records(sources, "text")] == ["b"]
    assert json.loads(figure1_files(sources)["figure1.json"])["path"].endswith("/b")
