"""SIGKILL at random moments, while saving too: what is resumed is the run that was never killed, to
the last bit."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "lora, kills",
    [
        (0, 4),
        (4, 1),
        pytest.param(0, 50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param(4, 10, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, root, lora, kills):
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed", str(tmp_path), str(kills), str(lora), "1"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    print(found)
    assert found["different"] == [] and found["killed"] == kills and found["steps"] >= 1
    if kills >= 50:
        assert sum(n for what, n in found["cut short"].items() if what) >= 5, (
            found
        )  # saves were hit, not only steps
