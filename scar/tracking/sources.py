"""Where run records come from: a folder, or W&B, whose runs are imported into a folder first."""

from __future__ import annotations

from pathlib import Path

from scar.config import fingerprint

FORMS = "a folder, wandb:ENTITY/PROJECT or wandb-offline:PATH"


def open_records(source: str, *, cache: Path) -> Path:
    """The folder with the records of `source`: a folder itself, or one under `cache` into which W&B's runs are imported.

    ValueError for any other source or for damaged runs, ConnectionError if W&B does not answer.
    """
    kind, colon, where = source.partition(":")
    if not colon or Path(source).exists():
        return Path(source)
    if kind not in ("wandb", "wandb-offline") or not where:
        raise ValueError(f"records={source}; allowed: {FORMS}")
    # Only who asks for W&B waits for it.
    from scar.tracking.wandb_import import records_from_offline, records_from_project

    if kind == "wandb-offline":
        into = cache / f"offline-{fingerprint({'path': str(Path(where).resolve())})}"
        records_from_offline(Path(where), into)
        return into
    entity, slash, project = where.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise ValueError(f"records={source}; allowed: {FORMS}")
    records_from_project(where, cache / entity / project)
    return cache / entity / project
