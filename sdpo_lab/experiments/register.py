"""Which conventions serve for what. A number chosen on a convention says nothing about it.

A convention is the `seed` of a task. Five sets, which share no seed with one another, with the
cards (200 to 205) or with what notebooks, tests and the runs recorded so far show:

development   settings are chosen on these
gate          a preset is held to its promises on these; never tuned on
sealed A      the shipped model and preset, opened once
sealed B      the comparisons of the paper, opened once
replication   rows drawn by lot are run again on these

Sealed sets are drawn by a rule (`drawn`), so that nobody picked them. A recorded comparison gets
them from `opening`, which first writes down what is opened, for what, and when. None has been.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sdpo_lab.core.checks import check_choice, check_text

OPENINGS = Path(__file__).parent / "records" / "openings.json"


def drawn(name: str, n: int) -> tuple[int, ...]:
    """`n` seeds between 1,000,000 and 2,000,000 that follow from the name of their set."""
    seeds: list[int] = []
    count = 0
    while len(seeds) < n:
        digest = hashlib.sha256(f"sdpo_lab/{name}/{count}".encode()).digest()
        seed = 1_000_000 + int.from_bytes(digest[:8], "big") % 1_000_000
        if seed not in seeds:
            seeds.append(seed)
        count += 1
    return tuple(seeds)


OPEN = {"development": tuple(range(1000, 1020)), "gate": tuple(range(2000, 2020))}
SEALED = {
    "sealed A": drawn("sealed A", 10),
    "sealed B": drawn("sealed B", 10),
    "replication": drawn("replication", 10),
}

_opened: set[str] = set()


def conventions(name: str) -> tuple[int, ...]:
    """The seeds of a set.

    Raises PermissionError for a sealed set outside `opening`, ValueError for a name that is no set.
    """
    check_choice("set of conventions", name, (*OPEN, *SEALED))
    if name in SEALED and name not in _opened:
        raise PermissionError(
            f"{name!r} is sealed: its conventions are opened once, by a recorded comparison "
            "(opening(name, comparison)). Develop on 'development', check on 'gate'"
        )
    return {**OPEN, **SEALED}[name]


@contextmanager
def opening(name: str, comparison: str, log: Path = OPENINGS) -> Iterator[tuple[int, ...]]:
    """The seeds of a sealed set, for one recorded comparison; every opening is written down first.

    name        "sealed A", "sealed B" or "replication"
    comparison  what it is opened for; going on with an interrupted one adds no second line
    log         the file of all openings, a JSON list of {"set", "comparison", "at"}
    """
    check_choice("sealed set", name, SEALED)
    check_text("comparison", comparison)
    openings = json.loads(log.read_text(encoding="utf-8")) if log.exists() else []
    if not any((o["set"], o["comparison"]) == (name, comparison) for o in openings):
        at = datetime.now(UTC).isoformat(timespec="seconds")
        openings.append({"set": name, "comparison": comparison, "at": at})
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps(openings, indent=1) + "\n", encoding="utf-8")
    _opened.add(name)
    try:
        yield SEALED[name]
    finally:
        _opened.discard(name)
