"""Print where each setting of a run comes from: `python experiments/explain.py task=imdb shaping=scar seed=3`.

A line per setting: its value, the file and line that set it last, the comment there, and what it was before. Nothing is run.
"""

import sys
from pathlib import Path

from scar.commands.cli import run_script
from scar.commands.explain import explain
from scar.printing import say

CONF = Path(__file__).resolve().parents[1] / "conf"


def main() -> None:
    """Print the lines."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        say(__doc__ or "")
        return
    say("".join(f"{row}\n" for row in explain(sys.argv[1:], CONF)))


if __name__ == "__main__":
    run_script(main)
