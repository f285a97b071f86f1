"""Write the measured numbers into README.md and small_models/README.md from the recorded runs and
the cards: `python tools/measured.py`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from sdpo_lab.experiments import recorded
from sdpo_lab.runs.recorded import RunRecord
from sdpo_lab.views.charts import smooth

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- measured -->", "<!-- /measured -->"
ARMS = {
    "SDPO, default: what is wrong and the accepted names (dial 2)": dict(name="sdpo", feedback=2),
    "SDPO, what is wrong and the right name (dial 3)": dict(name="sdpo", feedback=3),
    "SDPO, what is wrong (dial 1)": dict(name="sdpo", feedback=1),
    "SDPO, no message, siblings' solutions only (dial 0)": dict(name="sdpo", feedback=0),
    "GRPO": dict(name="grpo"),
    "GRPO paid per right argument": dict(name="grpo-shaped"),
}


def attempts_until(run: RunRecord, share: float = 0.8) -> float:
    """Attempts used until `share` of them succeeded, mean over five steps; inf when that never
    happened."""
    success = smooth([row["success_fraction"] for row in run.rows], 5)
    step = next((i for i, s in enumerate(success, 1) if s >= share), float("inf"))
    return step * run.config["generation_batch_size"]


def block() -> str:
    """The text between the marks."""
    card = json.loads((ROOT / "small_models" / "lab-1m" / "card.json").read_text())
    some = recorded("quickstart")[0]
    rows = []
    for label, wanted in ARMS.items():
        runs = recorded("quickstart", **wanted)
        before, after = ([run.evaluations[i]["accuracy"] for run in runs] for i in (0, -1))
        needed = statistics.median(attempts_until(run) for run in runs)
        rows.append(
            f"| {label} | {statistics.mean(before):.2f} | {statistics.mean(after):.3f} | "
            f"{' '.join(f'{a:.3f}' for a in after)} | "
            f"{needed:,.0f} | "
            f"{statistics.median(run.evaluations[-1]['seconds'] for run in runs):.0f} |"
        )
    summary = card["summary"]
    return f"""
Recorded runs on five conventions that no setting was chosen on, {len(some.rows)} steps of
{some.config["generation_batch_size"]} attempts each, every method at the learning rate that was
best for it on two other conventions. Accuracy of one attempt at T = 1 on
{some.evaluations[0]["n"]} test problems; "attempts to 80 %" is the median number of attempts
until four of five succeeded; seconds are of training on 2 shared CPU cores, other work beside it.

| method | before | after, mean | each convention | attempts to 80 % | seconds |
|---|---|---|---|---|---|
{chr(10).join(rows)}

The shipped model `{card["name"]}` has {card["parameters"]:,} parameters. From the bare question
it is right {summary["pass@1"]:.1%} of the time, after one message about its own failed attempt
{summary["teacher, feedback"]:.1%}, shown a solution {summary["teacher, solution"]:.1%}; in words
no pre-training document used it keeps {summary["kept in new words"]:.0%} of what a message
brings. All of it: [its card](small_models/{card["name"]}/README.md).

What was predicted before these runs: [docs/predictions.md](docs/predictions.md).
"""


def cards() -> list[dict]:
    """Of every shipped model, the smaller and the less trained first."""
    found = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (ROOT / "small_models").glob("*/card.json")
    ]
    return sorted(
        found, key=lambda card: (card["parameters"], card.get("step") or card["recipe"]["steps"])
    )


def family_block() -> str:
    """The text between the marks of small_models/README.md: every model on every task, and what
    SDPO makes of the default one."""
    tasks = list(cards()[0]["tasks"])
    rows = []
    for card in cards():
        cells = []
        for found in card["tasks"].values():
            told = found.get("teacher, feedback")
            cells.append(
                " / ".join(
                    f"{m['accuracy']:.2f}" if m else "–"
                    for m in (found["pass@1"], told, found.get("teacher, solution"))
                )
            )
        steps = card.get("step") or card["recipe"]["steps"]
        rows.append(
            f"| `{card['name']}` | {card['parameters']:,} | {steps:,} | {' | '.join(cells)} |"
        )
    gains = []
    for task in tasks:
        runs = recorded("tasks", on=task)
        ends = ", ".join(
            f"{run.evaluations[0]['accuracy']:.3f} → {run.evaluations[-1]['accuracy']:.3f}"
            for run in runs
        )
        active = statistics.mean(row["active_fraction"] for run in runs for row in run.rows)
        gains.append(
            f"| `{task}` | {ends} | {runs[0].config['learning_rate']:g} | "
            f"{len(runs[0].rows)} | {active:.0%} | "
            f"{max(run.evaluations[-1]['seconds'] for run in runs):.0f} |"
        )
    evaluated = recorded("tasks")[0].evaluations[0]["n"]
    return f"""
Each cell: one attempt from the bare question / the teacher's fresh answer shown the feedback on a
failed attempt / shown a solution. Training problems of a seed that serves for nothing else;
intervals stand in the cards.

| model | parameters | steps | {" | ".join(f"`{task}`" for task in tasks)} |
|---|---:|---:|{"---|" * len(tasks)}
{chr(10).join(rows)}

What SDPO makes of the default model, recorded: three seeds that nothing was chosen on, accuracy
of one attempt at T = 1 on {evaluated} test problems, before → after. The learning rate of each
task was chosen on two other seeds (`python -m sdpo_lab.experiments task-tuning`). "Active" is the
mean share of attempts that had something to learn from; seconds are of training, the slowest of
the three, on 2 shared CPU cores.

| task | before → after | learning rate | steps | active | seconds |
|---|---|---|---|---|---|
{chr(10).join(gains)}
"""


PARTS = {"README.md": block, "small_models/README.md": family_block}


def main() -> None:
    for name, write in PARTS.items():
        readme = ROOT / name
        before, rest = readme.read_text(encoding="utf-8").split(START)
        readme.write_text(before + START + write() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
