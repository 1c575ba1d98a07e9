"""Check make's variables: `make_variables.py GOAL ... NAME=value ...` prints "fine", or in one line what cannot be meant.

The Makefile calls it before anything is installed, so the standard library of any Python from 3.8 on must do.
"""

from __future__ import annotations

import os
import sys

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")

LIMITS = {
    "help test test-all test-peers faults lint format type clean-results": {
        "TASKS METHODS SEEDS SCALE": "there is no task, method, seed or scale in it",
    },
    "setup pretrained": {"TASKS METHODS SEEDS": "packages are the same for all tasks and methods"},
    "models prefetch": {
        "METHODS SEEDS": "models and data are the same for all methods and seeds (MODEL_SEED=2 trains other models)",
    },
    "smoke": {"SCALE=smoke": "its scale is smoke"},
    "explain": {"SEEDS": "a seed changes no other setting"},
    "credit": {"TASKS SEEDS": "the run in SAMPLE has its own"},
    "reproduce-table2": {"TASKS=tldr,hh": "Table 2 is of tldr and hh"},
    "reproduce-fig1": {"TASKS=imdb": "figure 1 is of imdb", "SEEDS": "figure 1 is of the SFT policy and of no run"},
    "reproduce-fig3": {"TASKS=imdb": "figure 3 is of imdb"},
    "reproduce-fig4": {"TASKS=tldr": "figure 4 is of tldr"},
    "reproduce-fig5": {"TASKS=tldr": "figure 5 is of tldr", "METHODS=scar": "figure 5 is of the units of scar"},
    "reproduce-released": {"METHODS": "its variants are those of conf/experiment/released.yaml"},
    "study": {
        "TASKS=imdb": "the study is of imdb",
        "METHODS=sparse,red,prefix,scar": "the study is of sparse red and scar",
    },
    "ablation:fill ablation:empty ablation:segmentation": {"METHODS=scar": "{kind} is a setting of scar"},
    "ablation:alpha sweep-alpha": {"METHODS=abc,scar": "alpha is a setting of abc and scar"},
    "bench": {"TASKS METHODS SEEDS": "there is no task, method or seed in it"},
    "bench:attribution bench:memory bench:planning bench:scaling": {
        "SCALE": "{kind} measures models of its own sizes",
    },
}
"""What a target does not take, and why: no value of "SEEDS", of "TASKS=imdb" no other. All else it takes.

"ablation:fill" is `make ablation ABLATION=fill`, "bench:memory" is `make bench BENCH=memory`; {kind} is fill or memory there.
"""

GONE = {
    "gpu-study": "on one GPU run: make reproduce-table1 SCALE=small TASKS=imdb, make reproduce-fig4 SCALE=small, "
    "make costs SCALE=small",
    "test-slow": "make test-all runs those tests beside the default ones",
}


def files(folder: str) -> list[str]:
    """What may be chosen from a folder of `conf/`."""
    return sorted(name[: -len(".yaml")] for name in os.listdir(os.path.join(CONF, folder)) if name.endswith(".yaml"))


LISTS = {"TASKS": files("task"), "METHODS": files("shaping")}
CHOICES = {
    "SCALE": files("scale"),
    "JUDGE": files("judge"),
    "LAUNCHER": ["joblib", "slurm"],
    "LAUNCH": ["torch", "deepspeed"],
}
KINDS = {
    "ablation": ("ABLATION", "", [name[9:] for name in files("experiment") if name.startswith("ablation_")]),
    "bench": ("BENCH", "attribution", ["agreement", "attribution", "estimators", "memory", "planning", "scaling"]),
}
"""Targets of several kinds: the variable that names one, the one that it names if not given, all of them."""


def wrong_values(given: dict[str, str]) -> str:
    """Of variables that mean the same for every target: the first that is wrong, or nothing."""
    for old in ("TASK", "METHOD", "SEED"):
        if old in given:
            example = "one or several between commas: make train TASKS=imdb METHODS=sparse,scar SEEDS=1,2"
            return f"{old}={given[old]}: write {old}S={given[old]}, {example}"
    for name in ("TASKS", "METHODS", "SEEDS"):
        values = given[name].split(",") if name in given else []
        if len({"red" if value == "prefix" else value for value in values}) < len(values) or any(
            [value] != value.split() for value in values
        ):
            example = "TASKS=imdb,tldr METHODS=sparse,scar SEEDS=1,2,3"
            return f"{name}={given[name]}: write different ones between commas, without spaces: {example}"
        if name == "SEEDS" and not all(value.isascii() and value.isdigit() for value in values):
            return f"SEEDS={given[name]}: write whole numbers between commas: SEEDS=1,2,3"
        if not set(values) <= set(LISTS.get(name, values)):
            return f"{name}={given[name]}; allowed: {' '.join(LISTS[name])}"
    for name, allowed in CHOICES.items():
        if name in given and given[name] not in allowed:
            return f"{name}={given[name]}; allowed: {' '.join(allowed)}"
    return ""


def wrong_for(goal: str, given: dict[str, str]) -> str:
    """What this target does not take, or nothing."""
    if goal in GONE:
        return f"make {goal} is gone; {GONE[goal]}"
    variable, default, kinds = KINDS.get(goal, ("", "", [""]))
    kind = given.get(variable, default)
    if kind not in kinds:
        return f"{variable}={kind}; allowed: {' '.join(kinds)}"
    for targets, limits in LIMITS.items():
        if {goal, f"{goal}:{kind}"} & set(targets.split()):
            for limit, why in limits.items():
                names, _, allowed = limit.partition("=")
                for name in names.split():
                    if name in given and not set(given[name].split(",")) <= set(allowed.split(",")):
                        return f"make {goal}: {why.format(kind=kind)}; {name}={given[name]}"
    if goal == "reproduce-table2" and "METHODS" in given:
        methods = given["METHODS"].split(",")
        if "scar" not in methods or methods == ["scar"]:
            return f"Table 2 is of scar beside others; METHODS={given['METHODS']}"
    if goal == "credit" and not given.get("SAMPLE"):
        return "SAMPLE is empty; give a run: SAMPLE=runs/local/imdb/scar/seed1-..."
    return ""


def main(arguments: list[str]) -> None:
    """Print the first thing that is wrong."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    goals = [argument for argument in arguments if "=" not in argument] or ["help"]
    found = [wrong_values(given), *(wrong_for(goal, given) for goal in goals)]
    sys.stdout.write(next(filter(None, found), "fine") + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
