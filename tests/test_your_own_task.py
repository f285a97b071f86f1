"""The code in docs/your_own_task.md, run as it stands."""

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "your_own_task.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- runs -->\n```python\n(.*?)```", TEXT, re.S)


def test_every_block_of_the_page_is_run():
    assert len(BLOCKS) == TEXT.count("```python") == 3


@pytest.mark.parametrize("code", BLOCKS, ids=["list", "function", "trl"])
def test_a_block_is_short_and_runs(code):
    assert len([line for line in code.splitlines() if line.strip() and not re.match(r"(import|from) ", line)]) <= 10
    names = {}
    exec(compile(code, "docs/your_own_task.md", "exec"), names)
    trainer, task = names["trainer"], names["task"]
    record = trainer.history[-1]
    assert len(trainer.history) == 1 and len(record.rollouts) == 16 and all(r.reward is not None for r in record.rollouts)
    assert not {p.id for p in task.problems(8, "train")} & {p.id for p in task.problems(8, "test")}
