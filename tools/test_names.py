"""What became of the tests of ff4735b: `python tools/test_names.py` compares names with today's.

A test may move to another file and keeps its name; what is gone or has other parameters is listed,
with the reason that stands in REASONS, and without one the command fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEFORE = ROOT / "tests" / "goldens" / "test_names_ff4735b.txt"
#: A pattern of "name" or "name[parameters]", and why such a test is not there any more.
REASONS: dict[str, str] = {
    r"test_(every_parameter_has_a_row|public_functions)\[LiveRun\.errand.*": (
        "LiveRun.errand is LiveRun.call_between_steps now, and has its row"
    ),
    r"test_gradient_of_every_jensen_shannon_divergence_by_finite_differences\[.*": (
        "one with test_gradient_by_finite_differences, at the values of alpha of both"
    ),
    r"test_gradient_by_finite_differences\[.*": (
        "the same cases, with the parameters in another order"
    ),
    r"test_a_live_run\[(errand|wait)-.*": (
        "the same rows, with call_between_steps for errand, and so another number in the name"
    ),
    r"test_(a_run_at_rest_stays_so_while_an_errand_is_done|an_errand_that_fails_is_told_.*)": (
        "the same tests, of a call instead of an errand"
    ),
    r"test_the_sources_are_one_function_and_rules_for_one_class": (
        "scripts are modules now: test_every_module_loads_as_it_stands_... holds them"
    ),
    r"test_the_first_lesson_is_to_copy_and_ends": (
        "the recipe of e9dc4cf has other lessons, each with its test"
    ),
}


def case(node: str) -> str:
    """The name of a test with its parameters, without its file."""
    return node.split("::", 1)[1]


def now() -> list[str]:
    """The tests that pytest finds, slow ones too."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    found = subprocess.run(
        [*command, "tests"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    return [line for line in found.stdout.splitlines() if line.startswith("tests/")]


def compare(before: list[str], after: list[str]) -> tuple[dict[str, str], list[str]]:
    """({file: where most of its tests are now}, the cases that are gone), duplicates counted."""
    gone = list((Counter(map(case, before)) - Counter(map(case, after))).elements())
    places: dict[str, Counter] = {}
    home = {}
    for node in after:
        home.setdefault(case(node), node.split("::")[0])
    for node in before:
        if case(node) in home:
            places.setdefault(node.split("::")[0], Counter())[home[case(node)]] += 1
    moved = {
        file: ", ".join(f"{place} ({n})" for place, n in counts.most_common())
        for file, counts in places.items()
        if list(counts) != [file]
    }
    return moved, gone


def main() -> int:
    before = BEFORE.read_text(encoding="utf-8").splitlines()
    after = now()
    moved, gone = compare(before, after)
    print(f"{len(before)} tests before, {len(after)} now")
    for file, places in moved.items():
        print(f"  {file}: {places}")
    unexplained = 0
    print(f"{len(gone)} cases are not there under their name:")
    for name in sorted(gone):
        reason = next((why for word, why in REASONS.items() if re.fullmatch(word, name)), "")
        unexplained += not reason
        print(f"  {name}: {reason or 'NO REASON GIVEN'}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
