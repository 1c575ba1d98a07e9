"""Judge finished runs pairwise (Table 2): `python experiments/judge.py task=tldr judge=gemini --yes`."""

import sys

import hydra
from omegaconf import DictConfig

from scar.commands.cli import one_line_errors, run_script, training_bar
from scar.printing import say
from scar.report.selection import select_cells


@hydra.main(config_path="../conf", config_name="judging", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Judge every pair of runs of the config that was not judged yet."""
    from scar.commands.judge import SETTINGS, judge_runs
    from scar.commands.settings import prepared

    with one_line_errors():
        folders = judge_runs(prepared(cfg, SETTINGS), select_cells, training_bar)
        say("".join(f"judgement: {folder}\n" for folder in folders))


if __name__ == "__main__":
    sys.argv = ["judging.pay=true" if argument == "--yes" else argument for argument in sys.argv]
    run_script(main)
