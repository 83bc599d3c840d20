"""The device that a stage alone runs on."""

import torch

from cluster.errors import BadInput


def device_of(wanted: str) -> str:
    """cpu or cuda as asked for; `auto` is a GPU where there is one.

    Raises:
        BadInput: a GPU is asked for and none is here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput("no GPU here", wanted, "cpu", "pass --device cpu")
    return wanted
