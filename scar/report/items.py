"""What there is to report: each table and figure of the paper with its title, the command that makes its runs, its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from scar.report.claims import (
    Verdict,
    critic_verdicts,
    kl_verdict,
    reward_verdicts,
    time_verdicts,
    units_verdicts,
    verdicts_markdown,
)
from scar.report.credit_items import CREDIT_ITEMS, credit_verdicts
from scar.report.curves import FIGURES
from scar.report.judged import judged_verdicts
from scar.report.outputs import Files, cost_files, curve_files, sweep_files, table1_files, table2_files
from scar.report.page import Section, page
from scar.report.selection import TASKS, Cells, select_cells
from scar.report.sources import NoRunError, Sources
from scar.report.variants import Variant, Variants, select_variants
from scar.tracking.judgements import JudgementRecord, find_judgements


@dataclass(frozen=True)
class Item:
    """A table or figure: `command` makes what it needs, `build` turns records into its files."""

    title: str
    command: str
    build: Callable[[Sources], Files]


def _table1(sources: Sources) -> Files:
    return table1_files(sources.cells())


def _costs(sources: Sources) -> Files:
    """Table 1's runs and, where there are any, those of other units."""
    runs = sources.runs()
    with suppress(NoRunError):
        runs += sources.runs(sources.units)
    return cost_files(runs, scale=sources.scale)


def _variants(name: str, sources: Sources) -> Variants:
    """The runs of Figure 3, 4 or 5: Table 1's, and those of other units where the figure has several."""
    task, variants, _, _ = FIGURES[name]
    folders = [sources.records, sources.units] if Variant("scar", "token") in variants else [sources.records]
    own = sources.of_task(task)
    return select_variants(own.runs(*folders), task, variants, seeds=sources.seeds)


def _curves(name: str, sources: Sources) -> Files:
    return curve_files(name, _variants(name, sources))


def _judgements(sources: Sources) -> list[JudgementRecord]:
    """The judgings that fit what was asked for; NoRunError if there is none."""
    wanted: dict[str, Any] = {"scale": sources.scale, "seed": list(sources.seeds)}
    wanted |= {"task": list(sources.tasks)} if sources.tasks else {}
    wanted |= {"model_seed": sources.model_seed} if sources.model_seed is not None else {}
    wanted |= {"judge": sources.judge} if sources.judge else {}
    found = find_judgements(sources.judgements, **wanted)
    if not found:
        raise NoRunError(
            f"no judgement in {sources.judgements} of scale={sources.scale}; make reproduce-table2 makes them"
        )
    return found


def _table2(sources: Sources) -> Files:
    return table2_files(_judgements(sources), wanted_seeds=len(sources.seeds))


ITEMS = {
    "table1": Item("Table 1 and Figure 2: rewards of all methods", "make reproduce-table1", _table1),
    "table2": Item("Table 2: pairwise preference", "make reproduce-table2", _table2),
    "figure3": Item("Figure 3: reward and KL", "make reproduce-fig3", partial(_curves, "figure3")),
    "figure4": Item("Figure 4: reward and device time", "make reproduce-fig4", partial(_curves, "figure4")),
    "figure5": Item("Figure 5: token and span units", "make reproduce-fig5", partial(_curves, "figure5")),
    "costs": Item("What runs cost", "make reproduce-table1", _costs),
    **{name: Item(title, "make reproduce-fig1", build) for name, (title, build) in CREDIT_ITEMS.items()},
}
"""Every item by the name of its target, in the order of the page."""


def report(target: str, sources: Sources, *, name: str = "sweep") -> Files:
    """The files of one target: a key of `ITEMS`, "sweep" (all runs in `sources.records`, as files called `name`) or "all"."""
    if target == "all":
        return _everything(sources)
    if target == "sweep":
        return sweep_files(sources.runs(), name=name)
    return ITEMS[target].build(sources)


def _everything(sources: Sources) -> Files:
    """Every item that has what it needs, the verdicts, and a page of all, which says what is missing and why."""
    files: Files = {}
    sections = []
    for item in ITEMS.values():
        try:
            own = item.build(sources)
        except (ValueError, OSError) as error:
            sections.append(Section(item.title, {}, f"{error} ({item.command} SCALE={sources.scale})"))
            continue
        files |= own
        sections.append(Section(item.title, own, None))
    if not files:
        raise ValueError(f"nothing to report: {sections[0].missing}")
    found = verdicts(sources)
    title = f"The paper's claims, scale {sources.scale}"
    files["verdicts.md"] = verdicts_markdown(found, title=title).encode()
    first = Section(title, {"verdicts.md": files["verdicts.md"]}, None)
    unfinished = [str(path) for path in sources.unfinished()]
    return files | {"report.html": page(sources.scale, [first, *sections], unfinished)}


def verdicts(sources: Sources) -> list[Verdict]:
    """A verdict on every claim: "not run" where its runs are missing, "cannot be said" where they cannot be compared."""
    curves = {name: partial(_variants_or_none, name, sources) for name in FIGURES}
    groups: list[tuple[str, Callable[[], list[Verdict]]]] = [
        ("Table 1", lambda: reward_verdicts(_cells_or_none(sources))),
        ("Figure 3", lambda: [kl_verdict(curves["figure3"]())]),
        ("Figure 4", lambda: time_verdicts(curves["figure4"]())),
        ("Figure 5", lambda: units_verdicts(curves["figure5"]())),
        ("Table 2", lambda: judged_verdicts(_judgements_or_none(sources))),
        ("Figure 1", lambda: credit_verdicts(sources)),
        ("value function", lambda: _critic(sources)),
    ]
    found: list[Verdict] = []
    for source, make in groups:
        try:
            found += make()
        except ValueError as error:
            found.append(Verdict(f"the claims of {source}", source, "cannot be said", str(error)))
    return found


def _cells_or_none(sources: Sources) -> Cells:
    """Table 1's runs; cells without any where there is none."""
    try:
        return sources.cells()
    except NoRunError:
        tasks, methods = list(sources.tasks or TASKS), list(sources.methods)
        return Cells(tasks, methods, list(sources.seeds), {(t, m): {} for t in tasks for m in methods})


def _variants_or_none(name: str, sources: Sources) -> Variants:
    try:
        return _variants(name, sources)
    except NoRunError:
        return Variants(FIGURES[name][0], list(sources.seeds), {})


def _judgements_or_none(sources: Sources) -> list[JudgementRecord]:
    try:
        return _judgements(sources)
    except NoRunError:
        return []


def _critic(sources: Sources) -> list[Verdict]:
    """What a better value function leaves of the main claim, where that ablation was run."""
    try:
        runs = sources.runs(sources.critic, method=["sparse", "scar"])
    except NoRunError:
        return []
    separate = [record for record in runs if record.manifest["settings"]["ppo"]["value_net"] == "separate"]
    found = select_cells(separate, methods=["sparse", "scar"], seeds=sources.seeds) if separate else None
    return critic_verdicts(_cells_or_none(sources), found) if found else []


TARGETS: Sequence[str] = (*ITEMS, "sweep", "all")
