from __future__ import annotations

import json

import pytest

from scar.report.credit import printed_credit
from scar.report.credit_figures import figure1
from scar.report.credit_items import credit_files, credit_records, credit_verdicts, figure1_files, measured_files
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


EXAMPLE = (
    " initi",
    "ally",
    " disturbing",
    " to",
    " sit",
    " through",
    ",",
    " they",
    " ultimately",
    " contributed",
    " to",
    " a",
)
EXAMPLE += (" deeply", " powerful", " and", " moving", " story", ".", "")
"""The paper's example in 18 tokens and EOS; "initially" and "through," have two each."""
ABC = [0.0] * 12 + [0.8, 0.8, 0.2, 1.3, 1.6, 5.3, 0.0]
SCAR = [0.0, 0.8, -0.5, -0.1, -1.8, 0.0, -0.8, -0.2, 1.0, 0.7, 0.0, 0.5, 1.8, 2.2, 0.5, 4.0, 0.7, 0.8, 0.0]
"""What the paper prints, each on its word's last token."""


def example(folder, credit, *, scale="paper", prompt="While some scenes were", finished="2025-01-01", **method):
    """A record of the paper's example in which ABC has the printed numbers and SCAR's tokens have `credit`."""
    tree = [[k if k == 0 else 18 + k - 1, k + 1] for k in range(17)]
    scar = on_units(EXAMPLE, range(1, 19), credit[:18], tree)
    row = row_of(EXAMPLE, {"abc": plain(ABC), "scar:token": scar}, prompt=prompt)
    settings = {"scar:token": {"method": {"name": "scar", "fill": "space", "empty": "drop"} | method}}
    settings["scar:token"]["estimator"] = {"name": "owen", "max_coalitions": 2048}
    settings["abc"] = {"method": {"name": "abc"}, "estimator": None}
    models = {"reward": {"name": "gpt2-rm"}}
    return write_record(
        folder, [row], scale=scale, methods=settings, finished=finished, models=models, **origin("text")
    )


def test_printed_numbers_stand_on_the_last_token_of_their_word(tmp_path):
    record = example(tmp_path / "r", SCAR)
    printed = printed_credit(record, record.rows[0])
    assert list(printed) == ["abc (paper)", "scar (paper)"]
    assert printed["abc (paper)"] == {"per_token": ABC, "sum": 10.0}
    assert printed["scar (paper)"] == {"per_token": SCAR, "sum": 9.6}


@pytest.mark.parametrize("other", [{"scale": "local"}, {"prompt": "While few scenes were"}])
def test_nothing_is_printed_for_another_text_or_scale(tmp_path, other):
    record = example(tmp_path / "r", SCAR, **other)
    assert printed_credit(record, record.rows[0]) == {}
    assert "figure1.md" not in credit_files(record)
    assert all("as printed" not in text.get_text() for text in figure1(record).axes[0].texts)


def test_figure1_at_paper_scale_shows_the_papers_rows_below_ours(tmp_path):
    shown = [text.get_text() for text in figure1(example(tmp_path / "r", SCAR)).axes[0].texts]
    names = ["ABC", "SCAR,\ntoken units", "ABC,\nas printed", "SCAR,\nas printed"]
    assert [text for text in shown if text in names] == names
    last = shown[shown.index(names[-1]) :]
    assert last[last.index("story.") + 1] == "+1.50"  # 0.7 on "story" and 0.8 on "."
    assert "= +9.60" in last
    assert "As printed: the numbers in the paper's Figure 1. SCAR's sum to 9.6" in " ".join(last)


def test_settings_are_in_the_order_of_their_difference_from_what_is_printed(tmp_path):
    sources = Sources(scale="paper", records=tmp_path / "runs", credit=tmp_path / "credit")
    example(tmp_path / "credit" / "b", [0.1 * (k == 4) + value for k, value in enumerate(SCAR)], fill="delete")
    example(tmp_path / "credit" / "a", [value + 0.2 for value in SCAR], finished="2025-01-02")  # the newest is drawn
    lines = figure1_files(sources)["figure1.md"].decode().splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("| token")]
    # One word of 17 is 0.1 away: mean 0.1 / 17. Each of 18 tokens 0.2: 14 words by 0.2, two of two tokens by 0.4, EOS by 0.
    assert rows == [
        ["token units, owen, fill delete, empty drop, max_coalitions 2048", "+10.00", "+9.70", "0.006", "0.10", "16"],
        ["token units, owen, fill space, empty drop, max_coalitions 2048", "+10.00", "+13.20", "0.212", "0.40", "1"],
    ]
    assert "| sit | 0.00 | \u22121.70 | 0.00 | \u22121.80 |" in lines
    assert "| <EOS> | 0.00 | 0.00 | 0.00 | 0.00 |" in lines
    assert "| sum | +10.00 | +9.70 | +10.00 | +9.60 |" in lines
