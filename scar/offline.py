"""What to do when something of the hub is not on this machine: one message for models and data sets."""

from __future__ import annotations

from huggingface_hub import constants


def not_on_hub(kind: str, name: str, revision: str | None, error: BaseException) -> str:
    """Why the `kind` ("model", "data set") `name` could not be loaded, and the command that fetches it."""
    command = "hf download" + (" --repo-type dataset" if kind == "data set" else "") + f" {name}"
    command += f" --revision {revision}" if revision else ""
    switch = (
        "HF_HUB_OFFLINE=1 forbids to ask the hub"
        if constants.HF_HUB_OFFLINE
        else "the hub cannot be reached or refuses"
    )
    return (
        f"the {kind} {name}{f' at {revision}' if revision else ''} is neither a local folder nor in the cache "
        f"{constants.HF_HUB_CACHE}, and {switch} ({_reason(error)}); fetch it once with a network: `{command}` "
        "(a gated or private one needs access on its page and `hf auth login`; HF_HOME chooses another cache)"
    )


def _reason(error: BaseException) -> str:
    """The innermost cause by type: it tells a gated repository from an unknown name and a missing network."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__
