"""The code in docs/your_own_task.md, run as it stands."""

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "your_own_task.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- runs -->\n```python\n(.*?)```", TEXT, re.S)
(TRAINS,) = re.findall(r"<!-- trains -->\n```python\n(.*?)```", TEXT, re.S)


def test_every_block_of_the_page_is_run():
    assert len(BLOCKS) == TEXT.count("```python") - 1 == 4


@pytest.mark.parametrize("code", BLOCKS, ids=["list", "function", "trl", "class"])
def test_a_block_is_short_and_runs(code):
    assert (
        len(
            [
                line
                for line in code.splitlines()
                if line.strip() and not re.match(r"(import|from) ", line)
            ]
        )
        <= 10
    )
    names = {}
    exec(compile(code, "docs/your_own_task.md", "exec"), names)
    trainer, task = names["trainer"], names["task"]
    record = trainer.history[-1]
    assert (
        len(trainer.history) == 1
        and len(record.rollouts) == 16
        and all(r.reward is not None for r in record.rollouts)
    )
    assert not {p.id for p in task.problems(8, "train")} & {p.id for p in task.problems(8, "test")}


def test_the_task_of_a_newcomer_trains(capsys):
    """Forty of its sixty steps: what the page says of the end is true of the way there."""
    names = {}
    exec(
        compile(
            TRAINS.replace("trainer.train(60)", "trainer.train(40, progress=False)"),
            "docs/your_own_task.md",
            "exec",
        ),
        names,
    )
    assert "SDPO should learn here" in capsys.readouterr().out
    history = names["trainer"].history.rows()
    assert history[0]["success_fraction"] <= 0.1 and names["trainer"].evaluate(90).accuracy >= 0.8
