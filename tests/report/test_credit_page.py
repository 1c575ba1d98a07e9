"""The credit viewer: data that cannot become HTML, and in a headless browser the right numbers and nothing from outside."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scar.report.credit_page import credit_page, page_data, script_json
from tests.report.credit_records import example_row, on_units, plain, row_of, write_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: the page is not looked at")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=2000",
]
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"> @DATA@ &amp; <!--"
PIECES = [" <b>bold</b>", " \U0001f600", " \u05e9\u05dc\u05d5\u05dd", "", "\u00e9\n", "&lt;\u2028", ""]


def hostile_row():
    tree = ["S", ["</svg>", "<b>bold</b>"], ["X", "\u05e9\u05dc\u05d5\u05dd"]]
    methods = {
        "sparse": plain([0, 0, 0, 0, 0, 0, -1.5]),
        "abc": plain([-0.5, -0.25, -0.25, 0, -0.25, -0.25, 0]),
        "scar:token": on_units(
            PIECES, [1, 2, 3, 4, 5, 6], [0.5, -1.0, 0, 0, -1.0, 0], [[0, 1], [2, 3], [4, 5], [6, 7], [9, 8]]
        ),
        "scar:span": on_units(PIECES, [2, 6], [0.5, -2.0], [[0, 1]], trees=[tree]),
    }
    return row_of(PIECES, methods, number=1, prompt=HOSTILE)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return write_record(tmp_path_factory.mktemp("page") / "sft-f00d", [example_row(), hostile_row()])


class Dom(HTMLParser):
    """Elements with their attributes and text, by tag."""

    def __init__(self, text):
        super().__init__()
        self.found, self._open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.found.append(element)
        if tag not in ("meta", "input", "col", "img", "link", "br"):
            self._open.append(element)

    def handle_endtag(self, tag):
        while self._open and self._open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [e for e in self.found if e["tag"] == tag and all(e.get(k) == v for k, v in attributes.items())]

    def rows(self):
        """The name and the numbers of each row of the credit tables, lines joined."""
        rows = {}
        for element in self.found:
            if element["tag"] == "th" and element.get("scope") == "row":
                cells = rows.setdefault(element["text"], [])
            elif element["tag"] == "td":
                cells.append(element["text"])
        return rows

    def heads(self):
        return [element["text"] for element in self.all("th", scope="col")]


def browse(tmp_path, page, *flags, fragment="", script=""):
    """What the browser prints of the page, with `script` run at its end."""
    file = tmp_path / "credit.html"
    file.write_bytes(page + f"<script>{script}</script>".encode())
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, f"file://{file}{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, encoding="utf-8")
    return done.stdout


def dom_of(tmp_path, page, **options):
    return Dom(browse(tmp_path, page, "--dump-dom", "--window-size=1400,900", **options))


def test_json_in_a_script_element_is_inert_and_comes_back():
    value = {"a": HOSTILE + "\u2028\ud800"}
    text = script_json(value)
    assert not set(text) & set("<>&\u2028")
    assert text.isascii()
    assert json.loads(text) == value


def test_page_is_one_file_that_asks_for_nothing(record):
    page = credit_page(record).decode()
    assert page.count("<script") == 2
    assert re.findall(r"https?://[^\"' ]*", page) == ["http://www.w3.org/2000/svg"]  # a name of SVG, never loaded
    assert not re.search(r"<link|<iframe|<img|@import|url\(|src=(?!x)", page)
    assert "default-src 'none'" in page
    assert credit_page(record) == page.encode()


def test_data_of_the_page(record):
    data = page_data(record)
    assert data["about"] == "2 responses of the SFT policy, on test prompts"
    assert data["methods"][2] == {"label": "scar:token", "name": "SCAR, token units"}
    sample = data["samples"][0]
    assert sample["words"] == [(0, 1), (1, 3), (3, 5), (5, 6), (6, 7)]
    assert sample["methods"]["scar:span"]["pieces"]["words"] == [(0, 3), (3, 6), (6, 7)]
    assert sample["methods"]["scar:span"]["units"] == [(0, 3, 2.5), (3, 6, -0.5)]
    assert any("not read by the estimator of SCAR, token units" in note for note in data["notes"])


def test_notes_count_trees_that_were_changed(tmp_path):
    rows = [example_row() for _ in range(3)]
    for row in rows[1:]:
        row["methods"]["scar:span"]["diagnostics"] = {"scar/coarsened_frac": 1.0, "scar/rebalanced_frac": 0.0}
    notes = page_data(write_record(tmp_path / "r", rows))["notes"]
    assert "The tree of 2 units' games was coarsened to fit the estimator's budget." in notes
    assert not [note for note in notes if "rebalanced" in note]


@needs_browser
def test_hostile_texts_are_text_and_keys_change_the_view(record, tmp_path):
    keys = "for (const key of ['w', 's']) document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));"
    tree = (
        "const which = document.getElementById('which'); which.value = 'scar:token units';"
        "which.dispatchEvent(new Event('change'));"
    )
    dom = dom_of(tmp_path, credit_page(record), fragment="#1", script=keys + tree)
    assert dom.all("img") == dom.all("iframe") == []
    [title] = dom.all("title")
    assert title["text"] == "Credit token by token: IMDB, scale local"
    [prompt] = dom.all("span", id="prompt-text")
    assert prompt["text"] == HOSTILE
    assert dom.heads() == [
        " <b>bold</b>",
        " \U0001f600",
        " \u05e9\u05dc\u05d5\u05dd\u00e9\u21b5",
        "&lt;\u2028",
        "<EOS>",
    ]
    rows = dom.rows()
    assert rows["SCAR, token units"] == ["+0.50", "\u22121.00", "\u22121.00", "0.00", "0.00", "= \u22121.50"]
    assert rows["SCAR, span units"] == ["+0.50", "\u22122.00", "0.00", "= \u22121.50"]
    [own] = dom.all("button", id="own")
    assert own["aria-pressed"] == "true"
    largest = {row["class"] for row in dom.all("td") if "--strength: 0.8" in row.get("style", "")}
    assert any("negative" in kind for kind in largest)
    assert (
        len([row for row in dom.all("td") if "--strength: 0.8" in row.get("style", "")]) >= 4
    )  # each method has its own largest
    assert "\u22121.50" in dom.all("svg")[0]["text"]  # the root of the tree over units
    [current] = dom.all("button", **{"aria-current": "true"})
    assert current["text"].startswith("\u22121.50")


@pytest.mark.slow
def test_the_script_draws_a_record_again_without_models(record, tmp_path):
    script = Path(__file__).parents[2] / "experiments" / "report.py"

    def run(*arguments):
        command = [sys.executable, str(script), "target=credit", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, encoding="utf-8")

    done = run(f"record='{record.path}'", "item=0")
    assert (done.returncode, done.stderr) == (0, "")
    folder = "results/local/credit/imdb-sft-f00d"
    assert done.stdout.split() == [
        w for n in ("credit.html", "figure1.png", "figure1.pdf") for w in ("wrote", f"{folder}/{n}")
    ]
    assert (tmp_path / folder / "credit.html").read_bytes() == credit_page(record)
    failed = run(f"record='{record.path}'", "item=2")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: item 2 of")
    assert failed.stderr.count("\n") == 1
    failed = run("item=2")
    assert failed.returncode == 1
    assert "report.py target=credit record=FOLDER item=0" in failed.stderr
