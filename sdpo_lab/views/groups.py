"""The attempts at one problem as a table: what each got, what its teacher is shown, who demonstrates to whom, who takes part in the update and
why others do not. Each row unfolds its token view; all of them have one scale."""

from __future__ import annotations

import html
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdpo_lab.analysis.credit import Credit, credit
from sdpo_lab.analysis.pictures import clean
from sdpo_lab.core.checks import check_kind, check_range
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import reprompt, teacher_messages
from sdpo_lab.core.rollouts import Rollout, group_rollouts, judge_rollouts
from sdpo_lab.views.tokens import (
    coloured,
    document,
    fragment,
    key,
    page_data,
    view_data,
    visible,
    write_page,
)

COLUMNS = {
    "attempt": "8%",
    "reward": "7%",
    "tokens": "34%",
    "feedback": "23%",
    "its teacher is shown": "15%",
    "update": "13%",
}  # heading: width
MOST_CHARACTERS = 600  # of a feedback in the table
UNFOLD = """
for (const row of root.querySelectorAll("tr[data-view]")) {
  const cell = row.querySelector(".number"), button = document.createElement("button"), below = document.createElement("tr"), place = document.createElement("td");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("data-lm-suppress-shortcuts", "");
  button.setAttribute("aria-label", `attempt ${cell.textContent}, token by token`);
  button.append(...cell.childNodes);
  cell.append(button);
  below.className = "unfolded";
  below.setAttribute("role", "row");
  place.setAttribute("role", "cell");
  place.colSpan = row.children.length;
  below.append(place);
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    if (!open) return below.remove();
    row.after(below);
    if (!place.firstChild) sdpoTokenView(place.appendChild(document.createElement("div")), { ...data, attempts: [data.attempts[row.dataset.view]] });
  });
}"""


class GroupView:
    """The attempts at one problem. In a notebook its repr; `page()` is a whole document, `save(path)` writes it.

    `rows` has an attempt each, in order: {"index", "reward", "text", "feedback", "shown" (what its teacher sees besides the question: "feedback",
    "solution", "attempt"), "demonstration" (index of the attempt shown as solution, or None), "demonstrates_to" (list of indices), "active",
    "why" (the reason when not), "same_as" (index of the first attempt that is the same in all of this, or None), "note"}.
    `credits` has the `Credit` of each, None for an empty attempt.
    """

    def __init__(
        self, question: str, rows: list[dict[str, Any]], credits: list[Credit | None], k: int
    ) -> None:
        self.question, self.rows, self.credits = question, rows, credits
        firsts = [
            n for n, row in enumerate(rows) if row["same_as"] is None and credits[n] is not None
        ]
        self._place = {n: place for place, n in enumerate(firsts)}
        views = [view_data(credits[n], k, f"attempt {rows[n]['index']}") for n in firsts]
        self.data = (
            page_data(views) if views else None
        )  #: what the unfolded token views know; None when every attempt is empty

    def _repr_html_(self) -> str:
        right, active = (
            sum(map(f, self.rows)) for f in (lambda r: r["reward"] >= 1, lambda r: r["active"])
        )
        head = "".join(
            f'<th role="columnheader" scope="col" style="width:{width}">{name}</th>'
            for name, width in COLUMNS.items()
        )
        body = "".join(
            self._row(n, row) for n, row in enumerate(self.rows) if row["same_as"] is None
        )
        table = (
            f'<div class="sdpo-tokens sdpo-group" data-testid="sdpo-group"><div class="title">{len(self.rows)} attempts at one problem: {right} right, {active} in the update'
            f'</div><div class="asked">{visible(self.question, "")}</div><div>{key(self.data) if self.data else ""}</div>'
            f'<table class="group" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{body}</tbody></table></div>'
        )
        return fragment(table, self.data or {"attempts": []}, UNFOLD)

    def _row(self, n: int, row: dict[str, Any]) -> str:
        alike = [row, *(r for r in self.rows if r["same_as"] == row["index"])]
        kind, word, sign = (
            ("good", "right", "✓")
            if row["reward"] >= 1
            else ("part", "partly right", "½")
            if row["reward"] > 0
            else ("bad", "wrong", "✗")
        )
        verdict = f'<span class="verdict {kind}" role="img" aria-label="{word}">{sign}</span>{row["reward"]:g}'
        view = self._place.get(n)
        text = (
            coloured(self.data["attempts"][view], self.data)
            if view is not None
            else '<span class="quiet">(empty)</span>'
        )
        if pupils := sorted(i for r in alike for i in r["demonstrates_to"]):
            text += f'\n<span class="quiet">shown to {numbered(pupils)}</span>'
        update = (
            "takes part"
            if row["active"]
            else "masked: " + html.escape(row["why"] or "it was not active")
        )
        cells = {
            "number": ", ".join(str(r["index"]) for r in alike),
            "reward": verdict,
            "tokens": text,
            "feedback": visible(cut(row["feedback"]), "") or '<span class="quiet">none</span>',
            "shown": html.escape(in_words(alike)),
            "update": update,
        }
        named = {
            name: "" if name == "tokens" else f' data-name="{heading}"'
            for name, heading in zip(cells, COLUMNS)
        }  # where there is no room for headings
        found = "".join(
            f'<td role="cell" class="{name}"{named[name]}>{cell}</td>'
            for name, cell in cells.items()
        )
        place = "" if view is None else f' data-view="{view}"'
        return f'<tr role="row"{place}>{found}</tr>'

    def page(self) -> str:
        """A whole HTML document that needs no network and no kernel."""
        return document(self._repr_html_(), "Attempts at one problem")

    def save(self, path: str | Path) -> Path:
        """Write `page()` to a file and return its path. Raises TypeError or ValueError for what is no file's path, OSError where it cannot be written."""
        return write_page(path, self.page())

    def __repr__(self) -> str:
        return f"GroupView({len(self.rows)} attempts, rewards {', '.join(format(row['reward'], 'g') for row in self.rows)})"


def group_view(
    model: Any,
    tokenizer: Any,
    rollouts: Iterable[Rollout],
    *,
    task: Any = None,
    teacher: Any = None,
    config: SDPOConfig | None = None,
    k: int = 8,
) -> GroupView:
    """The attempts at one problem, judged, with what their teachers are shown and the token view of each.

    rollouts  of `lab.rollout`, or the part of a training step's `record.rollouts` that is about one problem: these are judged and have
              what their teachers were shown already, which is then kept
    task      judges what has no reward yet; its oracle, where it has one, stands beside student and teacher
    teacher   another model in the teacher's role, or `trainer.teacher`; the model itself when None
    config    whose templates and rules decide what a teacher is shown; the preset "laptop" when None
    k         as in `token_view`

    The rollouts given are not changed, nor the weights. Raises ValueError for no attempt, attempts at several problems, and attempts without
    reward when there is no task.
    """
    check_range("k", k, int, 1, 64)
    check_kind(
        "config", config, (SDPOConfig, type(None)), "an SDPOConfig, or None for the preset 'laptop'"
    )
    check_kind("rollouts", rollouts, Iterable, "attempts as lab.rollout returns them")
    config, group = (
        config or SDPOConfig.preset("laptop"),
        prepared(list(rollouts), task, config or SDPOConfig.preset("laptop")),
    )
    firsts: dict[Any, int] = {}  # what makes attempts the same -> place of the first
    rows, credits = [], []
    for place, r in enumerate(group):
        first = firsts.setdefault(
            (
                tuple(r.completion_ids),
                r.shown_solution,
                r.shown_feedback,
                r.shown_attempt,
                r.reward,
                r.feedback,
                r.active,
                r.why,
            ),
            place,
        )
        shown = {
            "feedback": r.shown_feedback,
            "solution": r.shown_solution,
            "attempt": r.shown_attempt,
        }
        if first < place or not r.completion_ids:
            credits.append(credits[first] if first < place else None)
        else:
            credits.append(
                credit(
                    model,
                    tokenizer,
                    r.problem,
                    r,
                    **shown,
                    teacher=teacher,
                    task=task,
                    config=config,
                )
            )
        expected = teacher_messages(
            r.problem.messages, r.shown_solution, r.shown_feedback, config, r.shown_attempt
        )
        rows.append(
            {
                "index": r.index,
                "reward": r.reward,
                "text": r.text,
                "feedback": r.feedback,
                "shown": {n: text for n, text in shown.items() if text},
                "demonstration": r.demonstration,
                "demonstrates_to": [
                    o.index for o in group if o.demonstration == r.index and o.shown_solution
                ],
                "active": r.active,
                "why": r.why,
                "same_as": None if first == place else group[first].index,
                "note": ""
                if r.teacher_messages == expected
                else "its prompt in the run was another one: shortened, or of another config; pass config=",
            }
        )
    return GroupView(group[0].problem.messages[-1]["content"], rows, credits, k)


def prepared(rollouts: list[Rollout], task: Any, config: SDPOConfig) -> list[Rollout]:
    """Copies of attempts at one problem that are judged and have what their teachers are shown."""
    if not rollouts:
        raise ValueError("there is no attempt to show: rollouts must hold one or more; got []")
    for r in rollouts:
        if not isinstance(r, Rollout):
            raise TypeError(
                f"rollouts must be attempts as lab.rollout returns them; got {type(r).__name__}"
            )
    problems = list(dict.fromkeys(r.problem.id for r in rollouts))
    if len(problems) > 1:
        named = ", ".join(map(repr, problems[:4])) + (", ..." if len(problems) > 4 else "")
        raise ValueError(
            f"a group view shows the attempts at one problem, these are at {len(problems)} ({named}); choose one: "
            f"[r for r in rollouts if r.problem.id == {problems[0]!r}]"
        )
    group = group_rollouts([replace(r) for r in rollouts])[0]
    unjudged = [r.index for r in group if r.reward is None]
    if unjudged and task is None:
        raise ValueError(f"attempt {unjudged[0]} has no reward yet; pass task= to have it judged")
    if unjudged:
        judge_rollouts(task, group)
    if unjudged or not all(r.teacher_messages for r in group):
        reprompt(group, config, random.Random(0))
    return group


def in_words(alike: list[dict[str, Any]]) -> str:
    """What the teacher of some attempts that are the same is shown besides the question."""
    demonstrators = sorted({row["demonstration"] for row in alike} - {None})
    words = {
        "solution": f"{numbered(demonstrators)} as a demonstration",
        "feedback": "the feedback",
        "attempt": "this attempt",
    }
    found = (
        ", ".join(
            words[name] for name in ("solution", "feedback", "attempt") if name in alike[0]["shown"]
        )
        or "nothing more"
    )
    return found + (f" ({alike[0]['note']})" if alike[0]["note"] else "")


def numbered(indices: list[int]) -> str:
    return f"attempt{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def cut(text: str) -> str:
    return clean(text, MOST_CHARACTERS)
