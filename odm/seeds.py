"""Named seeds: one number in the settings drives every draw, and no draw disturbs another."""

import hashlib


def named(seed: int, name: str) -> int:
    """A 63-bit seed for one purpose (`weights`, `patches`, ...) of a run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1
