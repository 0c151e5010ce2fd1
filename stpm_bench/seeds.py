"""Separate streams of random numbers from one seed."""

import hashlib


def stream(seed: int, purpose: str) -> int:
    """Return the seed (0 to 2^63 - 1) of the stream for `purpose`, the same on every machine.

    Streams are independent: how many numbers the order of batches draws does not affect the
    initialisation, and an untrained teacher never equals the initial student of the same seed.
    """
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
