"""The list of faults still fits the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.listing import Fault, find, nearest_tests, read_code, read_faults

ROOT = Path(__file__).resolve().parents[2]


def test_every_snippet_stands_once_in_the_code_and_compiles_when_broken() -> None:
    code = read_code(ROOT)
    for fault in read_faults():
        file = find(fault, code)
        assert fault.old != fault.new
        compile(code[file].replace(fault.old, fault.new), str(file), "exec")


def test_a_snippet_that_is_not_there_once_is_named() -> None:
    fault, file = Fault("some-name", "", "x = 1", "x = 2"), Path("scar/a.py")
    assert find(fault, {file: "x = 1\n", Path("scar/b.py"): ""}) == file
    for text, times in (("x = 3\n", "0 times in scar/ (no file)"), ("x = 1; x = 1", "2 times in scar/ (a.py)")):
        with pytest.raises(ValueError) as caught:
            find(fault, {file: text})
        assert f"fault some-name: its snippet is {times}" in str(caught.value)


def test_tests_that_name_the_module_come_first(tmp_path: Path) -> None:
    texts = {
        "scar/ppo/losses.py": "def first():\n    x = 1\n\ndef second():\n    y = 1\n",
        "tests/test_run.py": "import scar.ppo.losses, scar.ppo.losses, scar.ppo.losses",
        "tests/test_second.py": "from scar.ppo.losses import second",
        "tests/ppo/test_losses.py": "import scar.ppo.losses",
        "tests/test_other.py": "",
        "tests/test_whole.py": "def test(smoke: SmokeScale): ...",
        "tests/ppo/test_near.py": "import scar.ppo.losses",
        "tests/helper.py": "import scar.ppo.losses",
        "tests/test_helped.py": "from tests.helper import some",
        "tests/ppo/test_masked.py": "import scar.ppo.advantages",
        "tests/faults/test_faults.py": "scar.ppo.losses",
    }
    for name, text in texts.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    fault = Fault("some-name", "", "y = 1", "y = 2")
    near, far = nearest_tests(fault, tmp_path / "scar" / "ppo" / "losses.py", tmp_path)
    assert near == [
        "tests/ppo/test_losses.py",
        "tests/test_second.py",
        "tests/ppo/test_near.py",
        "tests/test_run.py",
        "tests/test_helped.py",
    ]
    assert far == ["tests/test_whole.py", "tests/ppo/test_masked.py", "tests/test_other.py"]
