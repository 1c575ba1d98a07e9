"""Judge finished runs pairwise (Table 2): `python experiments/judge.py task=tldr judge=gemini judging.pay=true`."""

import sys

import hydra
from omegaconf import DictConfig

from scar.commands.cli import check_flags, one_line_errors, run_script, training_bar
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


def checked() -> None:
    """The same, for a command that is checked first."""
    check_flags(sys.argv[1:], {"--yes": "judging.pay=true"})
    main()


if __name__ == "__main__":
    run_script(checked)
