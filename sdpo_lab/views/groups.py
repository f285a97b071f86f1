"""The attempts at one problem as a table.

What each got, what its teacher is shown, who demonstrates to whom, who takes part in the update and
why others do not. Each row unfolds its token view; all of them have one scale.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sdpo_lab.analysis.credit import Credit, credit
from sdpo_lab.analysis.pictures import clean
from sdpo_lab.core.checks import check_kind, check_range
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import reprompt, teacher_messages
from sdpo_lab.core.rollouts import Rollout, group_rollouts, judge_rollouts
from sdpo_lab.views.html import Html, Saved, fragment, joined, tag, visible
from sdpo_lab.views.token_data import page_data, view_data
from sdpo_lab.views.tokens import coloured, legend

COLUMNS = {
    "attempt": "8%",
    "reward": "7%",
    "tokens": "34%",
    "feedback": "23%",
    "its teacher is shown": "15%",
    "update": "13%",
}  # heading: width
MOST_CHARACTERS = 600  # of a feedback in the table
OTHER_PROMPT = (
    "its prompt in the run was another one: shortened, or of another config; pass config="
)


class GroupView(Saved):
    """The attempts at one problem.

    In a notebook its repr; `page()` is a whole document, `save(path)` writes it. `rows` has an
    attempt each, in order: {"index", "reward", "text", "feedback", "shown" (what its teacher sees
    besides the question: "feedback", "solution", "attempt"), "demonstration" (index of the attempt
    shown as solution, or None), "demonstrates_to" (list of indices), "active", "why" (the reason
    when not), "same_as" (index of the first attempt that is the same in all of this, or None),
    "note"}. `credits` has the `Credit` of each, None for an empty attempt.
    """

    page_title = "Attempts at one problem"

    def __init__(
        self, question: str, rows: list[dict[str, Any]], credits: list[Credit | None], k: int
    ) -> None:
        self.question, self.rows, self.credits = question, rows, credits
        firsts = [
            n for n, row in enumerate(rows) if row["same_as"] is None and credits[n] is not None
        ]
        self._place = {n: place for place, n in enumerate(firsts)}
        views = [view_data(credits[n], k, f"attempt {rows[n]['index']}") for n in firsts]
        #: what the unfolded token views know; None when every attempt is empty
        self.data = page_data(views) if views else None

    def _repr_html_(self) -> Html:
        right = sum(row["reward"] >= 1 for row in self.rows)
        active = sum(row["active"] for row in self.rows)
        words = f"{len(self.rows)} attempts at one problem: {right} right, {active} in the update"
        head = [
            tag("th", name, role="columnheader", scope="col", style=f"width:{width}")
            for name, width in COLUMNS.items()
        ]
        body = [self._row(n, row) for n, row in enumerate(self.rows) if row["same_as"] is None]
        table = tag(
            "table",
            tag("thead", tag("tr", *head, role="row"), role="rowgroup"),
            tag("tbody", *body, role="rowgroup"),
            class_="group",
            role="table",
        )
        inside = tag(
            "div",
            tag("div", words, class_="title"),
            tag("div", visible(self.question, ""), class_="asked"),
            tag("div", legend(self.data) if self.data else ""),
            table,
            class_="sdpo-tokens sdpo-group",
            data_testid="sdpo-group",
        )
        return fragment(inside, self.data or {"attempts": []}, "group_view")

    def _row(self, n: int, row: dict[str, Any]) -> Html:
        """The row of an attempt, and of those that are the same."""
        same = [row, *(r for r in self.rows if r["same_as"] == row["index"])]
        kind, word, sign = verdict(row["reward"])
        mark = tag("span", sign, class_=f"verdict {kind}", role="img", aria_label=word)
        view = self._place.get(n)
        text = (
            quiet("(empty)") if view is None else coloured(self.data["attempts"][view], self.data)
        )
        if pupils := sorted(i for r in same for i in r["demonstrates_to"]):
            text = joined(text, "\n", quiet(f"shown to {numbered(pupils)}"))
        why = row["why"] or "it was not active"
        feedback = visible(clean(row["feedback"], MOST_CHARACTERS), "")
        cells = {
            "number": ", ".join(str(r["index"]) for r in same),
            "reward": joined(mark, f"{row['reward']:g}"),
            "tokens": text,
            "feedback": feedback or quiet("none"),
            "shown": in_words(same),
            "update": "takes part" if row["active"] else f"masked: {why}",
        }
        drawn = []
        for (name, cell), heading in zip(cells.items(), COLUMNS):
            # its heading, where there is no room for one above
            named = {} if name == "tokens" else {"data_name": heading}
            drawn.append(tag("td", cell, role="cell", class_=name, **named))
        place = {} if view is None else {"data_view": view}
        return tag("tr", *drawn, role="row", **place)

    def __repr__(self) -> str:
        rewards = ", ".join(format(row["reward"], "g") for row in self.rows)
        return f"GroupView({len(self.rows)} attempts, rewards {rewards})"


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
    """The attempts at one problem, judged, with what their teachers are shown and their tokens.

    rollouts  of `lab.rollout`, or the part of a training step's `record.rollouts` that is about one
              problem: these are judged and have what their teachers were shown, which is then kept
    task      judges what has no reward yet; its oracle, where it has one, stands beside student
              and teacher
    teacher   another model in the teacher's role, or `trainer.teacher`; the model itself when None
    config    whose templates and rules decide what a teacher is shown; the preset "laptop" if None
    k         as in `token_view`

    The rollouts given are not changed, nor the weights. Raises ValueError for no attempt, attempts
    at several problems, and attempts without reward when there is no task.
    """
    check_range("k", k, int, 1, 64)
    kinds = (SDPOConfig, type(None))
    check_kind("config", config, kinds, "an SDPOConfig, or None for the preset 'laptop'")
    check_kind("rollouts", rollouts, Iterable, "attempts as lab.rollout returns them")
    config = config or SDPOConfig.preset("laptop")
    group = prepared(list(rollouts), task, config)
    firsts: dict[Any, int] = {}  # what makes attempts the same -> place of the first
    rows, credits = [], []
    for place, r in enumerate(group):
        first = firsts.setdefault(identity(r), place)
        rows.append(row_of(r, group, config, None if first == place else group[first].index))
        if first < place:
            credits.append(credits[first])
        elif not r.completion_ids:
            credits.append(None)
        else:
            roles = {"teacher": teacher, "task": task, "config": config}
            credits.append(credit(model, tokenizer, r.problem, r, **shown_to(r), **roles))
    return GroupView(group[0].problem.messages[-1]["content"], rows, credits, k)


def shown_to(r: Rollout) -> dict[str, str]:
    """What an attempt's teacher is shown besides the question; "" for what it is not."""
    return {
        "feedback": r.shown_feedback,
        "solution": r.shown_solution,
        "attempt": r.shown_attempt,
    }


def identity(r: Rollout) -> tuple:
    """Equal for attempts that would have the same row."""
    shown = tuple(shown_to(r).values())
    return (tuple(r.completion_ids), *shown, r.reward, r.feedback, r.active, r.why)


def row_of(
    r: Rollout, group: list[Rollout], config: SDPOConfig, same_as: int | None
) -> dict[str, Any]:
    """An attempt's row of `GroupView.rows`."""
    expected = teacher_messages(
        r.problem.messages, r.shown_solution, r.shown_feedback, config, r.shown_attempt
    )
    pupils = [o.index for o in group if o.demonstration == r.index and o.shown_solution]
    return {
        "index": r.index,
        "reward": r.reward,
        "text": r.text,
        "feedback": r.feedback,
        "shown": {name: text for name, text in shown_to(r).items() if text},
        "demonstration": r.demonstration,
        "demonstrates_to": pupils,
        "active": r.active,
        "why": r.why,
        "same_as": same_as,
        "note": "" if r.teacher_messages == expected else OTHER_PROMPT,
    }


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
            f"a group view shows the attempts at one problem, these are at {len(problems)} "
            f"({named}); choose one: [r for r in rollouts if r.problem.id == {problems[0]!r}]"
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


def in_words(same: list[dict[str, Any]]) -> str:
    """What the teacher of some attempts that are the same is shown besides the question."""
    demonstrators = sorted({row["demonstration"] for row in same} - {None})
    words = {
        "solution": f"{numbered(demonstrators)} as a demonstration",
        "feedback": "the feedback",
        "attempt": "this attempt",
    }
    shown = [words[name] for name in words if name in same[0]["shown"]]
    note = f" ({same[0]['note']})" if same[0]["note"] else ""
    return (", ".join(shown) or "nothing more") + note


def verdict(reward: float) -> tuple[str, str, str]:
    """(class, word, sign) of an attempt's reward, as in numbers.js."""
    if reward >= 1:
        return "good", "right", "✓"
    return ("part", "partly right", "½") if reward > 0 else ("bad", "wrong", "✗")


def quiet(text: str) -> Html:
    return tag("span", text, class_="quiet")


def numbered(indices: list[int]) -> str:
    return f"attempt{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"
