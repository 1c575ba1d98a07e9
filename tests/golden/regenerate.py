"""Write the golden metrics anew: `python tests/golden/regenerate.py`. Do so only when a number is meant to change."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `tests` is found when this runs as a script

from tests.smoke_scale import SmokeScale

GOLDEN = Path(__file__).with_name("smoke_metrics.json")
METHODS = ("sparse", "scar")
NOT_COMPARED = re.compile(r"time/.*|.*hours|device_seconds|memory/.*|kl/sqrt")
"""What time decides, and a square root near zero that would magnify rounding (its square is compared)."""


def versions() -> dict[str, str]:
    """What decides the numbers beside this repository; torch without its build, such as +cpu."""
    found = {package: importlib.metadata.version(package) for package in ("torch", "transformers", "tokenizers")}
    return {package: version.split("+")[0] for package, version in found.items()}


def golden_rows(smoke: SmokeScale, method: str, runs: Path) -> list[dict[str, Any]]:
    """The first three updates of `method` at scale=smoke, without the keys that time decides."""
    record = smoke.run(f"shaping={method}", "ppo.updates=3", runs=runs)
    return [{key: value for key, value in row.items() if not NOT_COMPARED.fullmatch(key)} for row in record.metrics]


def main() -> None:
    """Run both methods and write the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        smoke = SmokeScale(folder)
        rows = {method: golden_rows(smoke, method, folder / "golden") for method in METHODS}
    content = {
        "about": "metrics of the first three updates at scale=smoke; compared by tests/golden/test_golden.py",
        "regenerate": "python tests/golden/regenerate.py",
        "versions": versions(),
        "rows": rows,
    }
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
