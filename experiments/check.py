"""What every run of a scale will take, without GPU or download: `python experiments/check.py scale=paper task=tldr gpu=h100-80gb`.

Settings: scale, task, shaping, seed (lists), gpu (a100-80gb, h100-80gb), gpus (of one run; with 2 or more every stage of
DeepSpeed ZeRO is shown), and any of conf/ for every run. Exit status 1 if something does not fit.
"""

import sys
from pathlib import Path

import torch

from scar.commands.check import check
from scar.commands.cli import run_script, training_bar
from scar.planning.tables import render
from scar.printing import say

CONF = Path(__file__).resolve().parents[1] / "conf"


def main() -> int:
    """Print the tables."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        say(__doc__ or "")
        return 0
    torch.set_num_threads(1)
    report = check(sys.argv[1:], conf=CONF, advance=training_bar("check"))
    say(render(report))
    return 0 if report.all_fit else 1


if __name__ == "__main__":
    run_script(main)
