"""One job a card: each takes one that is free of those it may see, and waits where there is none."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from odm.hold import HeldError, held

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Seconds between two looks for a free card.
PATIENCE = 2.0


@contextmanager
def taken(device: str, job: str) -> Iterator[None]:
    """Have a job that asks for `cuda` or `auto` see one card, which no other of the user's jobs on this machine takes
    while the block runs; of any other device, and where there is no card, nothing is changed.

    To be entered before torch looks at cards. What a dead process held is free. Who a job waits for is said once.
    """
    cards = visible() if device in ("cuda", "auto") else []
    if not cards:
        yield
        return
    before = os.environ.get(VISIBLE)
    with ExitStack() as stack:
        os.environ[VISIBLE] = _first_free(cards, job, stack)
        try:
            yield
        finally:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before


def _first_free(cards: list[str], job: str, stack: ExitStack) -> str:
    """A card that is held from here on, until the stack is closed."""
    is_said = False
    while True:
        others = []
        for card in cards:
            try:
                stack.enter_context(held(_lock(card), job))
                return card
            except HeldError as error:
                others.append(f"{card}: {error.who}")
        if not is_said:
            print(f"{job}: waits for a card ({'; '.join(others)})", flush=True)
            is_said = True
        time.sleep(PATIENCE)


def visible() -> list[str]:
    """The cards that a process here may compute on, in the environment's order: each by its UUID, since the number of a
    card is another one under another environment, and in each of a scheduler's jobs."""
    cards = installed()
    told = os.environ.get(VISIBLE)
    if told is None:
        return cards
    found: list[str] = []
    for each in filter(None, map(str.strip, told.split(","))):
        if each.lstrip("-").isdecimal():
            if not 0 <= int(each) < len(cards):
                break  # CUDA sees none of what comes after
            found.append(cards[int(each)])
        else:  # a UUID, which may be cut short; that of a part of a card (MIG) is not in the list
            found.append(next((card for card in cards if card.startswith(each)), each))
    return found


def installed() -> list[str]:
    """UUIDs of all cards that the driver lets this process see, as it counts them; none where there is no driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return re.findall(r"^GPU \d+: .*\(UUID: (GPU-[\w-]+)\)", listed, re.MULTILINE)


def _lock(card: str) -> Path:
    """Of this machine, and of one user: nobody may open another's."""
    user = os.getuid() if hasattr(os, "getuid") else "mine"
    return Path(tempfile.gettempdir()) / f"odm-gpus-{user}" / f"{card.replace('/', '_')}.lock"
