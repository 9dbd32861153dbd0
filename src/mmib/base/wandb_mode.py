"""Whether W&B is used, by its environment variables and its login. Does not import W&B."""

from __future__ import annotations

import netrc
import os
from typing import Literal

WandbMode = Literal["online", "offline", "disabled"]
HOST = "api.wandb.ai"


def wandb_mode() -> WandbMode:
    """Return the mode in which W&B is used unless an option sets it: `WANDB_MODE`, but online only with a key."""
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return "disabled"
    return "online" if _has_key() and mode not in ("offline", "dryrun") else "offline"


def _has_key() -> bool:
    """Return whether the environment or `~/.netrc` has a W&B key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False
