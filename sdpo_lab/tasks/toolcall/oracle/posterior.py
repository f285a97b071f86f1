"""What can be known of the convention after some attempts and what was said of them."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from sdpo_lab.core.checks import check_choice
from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.toolcall import judge as judging
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, TOOLS, combinations, names_of

Ranks = tuple[int, ...]  # which of its four names each argument has, 0 the most common


class NoPosterior(ValueError):
    """No convention of the prior explains what was seen of a tool."""


@dataclass(frozen=True)
class FallibleAuthor:
    """Who wrote an attempt that is not shown, only the feedback on it. Begins anew until the judge
    finds an error. The defaults are those of the pre-training documents
    (`small_models.worlds.fail_call`)."""

    knows: float = 0.2  #: probability, for each argument, of using the right name
    guesses: tuple[float, ...] = (0.55, 0.2, 0.13, 0.12)  #: else its name is drawn so, by rank
    wrong_value: float = 0.05  #: how often one value is wrong
    cut: float = 0.03  #: how often the text ends too early
    left_out: float = 0.03  #: how often all arguments after the first are missing

    def attempts(self, call: dict) -> list[tuple[float, Ranks, str]]:
        """(share, ranks, text) of every attempt; the shares of each `ranks` sum to one."""
        tool, values, attempts = BY_NAME[call["tool"]], call["values"], []
        first = tool.arguments[0].role
        for ranks in itertools.product(range(4), repeat=len(tool.arguments)):
            names = names_of(tool, ranks)
            text = write_call(tool.name, names, values)
            attempts += [
                (1 - self.wrong_value - self.cut - self.left_out, ranks, text),
                (self.cut, ranks, text[:-1]),
                (self.left_out, ranks, f"{tool.name}({names[first]}={values[first]!r})"),
            ]
            for role in values:  # a value unlike any other, so that it points to no argument
                text = write_call(tool.name, names, {**values, role: "?"})
                attempts.append((self.wrong_value / len(values), ranks, text))
        return attempts

    def likelihood(self, call: dict, combos: list[Ranks], level: int, feedback: str) -> np.ndarray:
        """p(feedback | convention, the attempt was wrong) for each of `combos`, (C,)."""
        values = tuple(call["values"].items())
        known = likelihoods(self, call["tool"], values, tuple(combos), level)
        return known.get(feedback, np.zeros(len(combos)))


@lru_cache(maxsize=64)
def likelihoods(
    author: FallibleAuthor,
    tool: str,
    values: tuple[tuple[str, Any], ...],
    combos: tuple[Ranks, ...],
    level: int,
) -> dict[str, np.ndarray]:
    """{feedback: p(feedback | convention, the attempt was wrong), (C,)} of everything the judge can
    say of this author's attempts at a call."""
    call = {"tool": tool, "values": dict(values)}
    by_feedback: dict[str, np.ndarray] = {}
    wrong = np.zeros(len(combos))
    names = [names_of(BY_NAME[tool], c) for c in combos]
    for share, ranks, text in author.attempts(call):
        parsed = judging.parse_calls(text)
        for i, c in enumerate(combos):
            error = _first_error(parsed, call, names[i])
            if error:
                p = share * math.prod(
                    author.knows * (r == right) + (1 - author.knows) * author.guesses[r]
                    for r, right in zip(ranks, c)
                )
                wrong[i] += p
                by_feedback.setdefault(judging.say(error, level), np.zeros(len(combos)))[i] += p
    return {feedback: p / wrong for feedback, p in by_feedback.items()}


class Posterior:
    """What is known of a convention, exactly.

    feedback  0 to 3, the dial of the task whose judge spoke
    reward    "exact" or "fraction", as the task's
    prior     {tool: [(probability, ranks), ...]}; the `combinations` of all `TOOLS` when None

    Once nothing in the prior explains what was seen of a tool (a convention of novelty
    "combination", "pair" or "nonsense" lies outside it), that tool is in `empty`, stays there, and
    asking about it raises `NoPosterior`.
    """

    def __init__(
        self,
        feedback: int = 2,
        *,
        reward: str = "exact",
        prior: dict[str, list[tuple[float, Ranks]]] | None = None,
    ) -> None:
        check_choice("feedback", feedback, (0, 1, 2, 3))
        check_choice("reward", reward, ("exact", "fraction"))
        self.feedback, self.reward = feedback, reward
        self.prior = prior or {tool.name: combinations(tool) for tool in TOOLS}
        self.ranks = {name: [r for _, r in combos] for name, combos in self.prior.items()}
        self._p = {
            name: np.array([p for p, _ in combos]) / sum(p for p, _ in combos)
            for name, combos in self.prior.items()
        }

    @classmethod
    def of(cls, task: Any) -> Posterior:
        """Before the first attempt at a `ToolCall`."""
        return cls(
            task.dials["feedback"],
            reward=task.dials["reward"],
            prior={tool.name: combinations(tool) for tool in task.tools},
        )

    def copy(self) -> Posterior:
        new = Posterior(self.feedback, reward=self.reward, prior=self.prior)
        new._p = dict(self._p)
        return new

    @property
    def empty(self) -> tuple[str, ...]:
        """Tools of which no convention is left."""
        return tuple(name for name, p in self._p.items() if not p.any())

    # -- learning

    def update(
        self, problem: Problem, completion: str, reward: float, feedback: str = ""
    ) -> Posterior:
        """Take in one attempt and its verdict; returns itself.

        A solution is an attempt with reward 1.

        An attempt at calls of several tools is exact too where its verdict says something of each
        tool by itself: a message names the first wrong line, so the lines before it are right and
        nothing is known of those after it. A bare "wrong", or a fraction, of several uncertain
        tools ties them together: ValueError.
        """
        for name, keep in self._explained(problem, completion, reward, feedback).items():
            self._multiply(name, keep)
        return self

    def update_from_feedback(
        self, problem: Problem, feedback: str, author: FallibleAuthor | None = None
    ) -> Posterior:
        """Take in feedback without the attempt it is about, which `author` wrote (by default
        `FallibleAuthor()`); returns itself.

        p(c | feedback) ∝ p(c) · p(feedback | c), summed over what the author may have written.
        Raises ValueError for problems with several calls.
        """
        call, author = self._one_call(problem), author or FallibleAuthor()
        combos = self.ranks[call["tool"]]
        likelihood = author.likelihood(call, combos, self.feedback, feedback)
        self._multiply(call["tool"], likelihood)
        return self

    hear = update_from_feedback  # its name until November 2026

    def _multiply(self, name: str, likelihood: np.ndarray) -> None:
        p = self._p[name] * likelihood
        self._p[name] = p / p.sum() if p.any() else p

    def _explained(
        self, problem: Problem, completion: str, reward: float, feedback: str
    ) -> dict[str, np.ndarray]:
        """{tool: (C,) booleans}: under which of its combinations the judge would have said this."""
        calls, tools = problem.data["calls"], self._tools(problem)

        def same(verdict: tuple[float, str]) -> bool:
            return abs(verdict[0] - reward) < 1e-5 and verdict[1] == feedback  # of six digits

        if len(tools) == 1:
            verdicts = self._verdicts(problem, completion, tools[0])
            return {tools[0]: np.array([same(v) for v in verdicts])}
        # an attempt that is no calls, or too few, is so whatever the names
        default = {name: self._names(name)[0] for name in tools}
        errors, _ = judging.find_errors(calls, default, completion)
        if errors and errors[0].kind in ("syntax", "count"):
            explained = same((0.0, judging.say(errors[0], self.feedback)))
            return {name: np.full(len(self.ranks[name]), explained) for name in tools}
        messages = self._messages(calls, tools, default, completion)
        if same((1.0, "")):
            return {name: np.array([not m for m in messages[name]]) for name in tools}
        if self.reward == "exact" and self.feedback:
            # the message names the first wrong line: right before it, this at it, open after it
            number = re.match(r"line (\d+): ", feedback)
            first = int(number[1]) if number and reward == 0 else 0
            if not 0 < first <= len(calls):  # nothing this judge says
                return {name: np.zeros(len(self.ranks[name]), bool) for name in tools}
            fits = lambda name, m: (
                all(line >= first for line in m)
                and (calls[first - 1]["tool"] != name or m.get(first) == feedback)
            )
            return {name: np.array([fits(name, m) for m in messages[name]]) for name in tools}
        name, others = self._only_open_tool(calls, messages, default, completion)
        verdicts = self._verdicts(problem, completion, name, others)
        return {name: np.array([same(v) for v in verdicts])}

    def _messages(
        self, calls: list[dict], tools: list[str], default: dict, completion: str
    ) -> dict[str, list[dict[int, str]]]:
        """{tool: for each combination of its names {line, 1-based: what the judge says of it}}, of
        the tool's own lines; `default` are the names of the other tools."""
        messages: dict[str, list[dict[int, str]]] = {name: [] for name in tools}
        for name in tools:
            for names in self._names(name):
                errors, _ = judging.find_errors(calls, default | {name: names}, completion)
                own = [e for e in errors if calls[e.line - 1]["tool"] == name]
                messages[name].append({e.line: judging.say(e, self.feedback) for e in own})
        return messages

    def _only_open_tool(
        self, calls: list[dict], messages: dict, default: dict, completion: str
    ) -> tuple[str, dict]:
        """(the tool of which a bare reward or a fraction tells, names of all tools as they are
        known). Raises ValueError where it tells of several at once.

        A tool is open while what is left of its names can make this attempt come out in more than
        one way.
        """
        left = {name: np.flatnonzero(self._p[name]) for name in messages}
        open_tools = []
        for name in messages:
            ways = set()
            for i in left[name]:
                convention = default | {name: self._names(name)[i]}
                way = tuple(messages[name][i].items())
                if self.reward == "fraction":
                    way += verdict_of(calls, convention, completion, 0, "fraction")[:1]
                ways.add(way)
            if len(ways) > 1:
                open_tools.append(name)
        if len(open_tools) > 1:
            what = "a fraction" if self.reward == "fraction" else "a bare reward"
            raise ValueError(
                f"{what} of calls of several tools ({', '.join(open_tools)}) ties them together, "
                "so there is no posterior for each; use calls=1, or feedback 1 to 3 with "
                "reward='exact'"
            )
        known = {name: self._names(name)[next(iter(left[name]), 0)] for name in messages}
        return (open_tools or list(messages))[0], known

    def _verdicts(
        self, problem: Problem, completion: str, name: str, others: dict | None = None
    ) -> list[tuple[float, str]]:
        """(reward, feedback) under each combination of one tool; `others`, the names of the other
        tools, are held."""
        calls, others = problem.data["calls"], others or {}
        return [
            verdict_of(calls, others | {name: names}, completion, self.feedback, self.reward)
            for names in self._names(name)
        ]

    def _names(self, name: str) -> list[dict[str, str]]:
        return [names_of(BY_NAME[name], r) for r in self.ranks[name]]

    def _tools(self, problem: Problem) -> list[str]:
        tools = list(dict.fromkeys(c["tool"] for c in problem.data["calls"]))
        for name in tools:
            check_choice("tool", name, self.prior)
        return tools

    def _one_call(self, problem: Problem) -> dict:
        self._tools(problem)
        if len(problem.data["calls"]) != 1:
            raise ValueError(
                "this is known exactly for problems with one call; this one asks for "
                f"{len(problem.data['calls'])}. Use load_task('toolcall', calls=1)"
            )
        return problem.data["calls"][0]

    # -- what is known

    def _known(self, name: str) -> np.ndarray:
        check_choice("tool", name, self.prior)
        if not self._p[name].any():
            raise NoPosterior(
                f"nothing in the prior explains what was seen of {name}: its convention lies "
                "outside the prior (see novelty), or the verdicts are not this judge's at this "
                "setting"
            )
        return self._p[name]

    def probabilities(self, tool: str) -> dict[Ranks, float]:
        """{ranks: probability} over the prior's combinations, those excluded with 0."""
        known = self._known(tool)
        return dict(zip(self.ranks[tool], known.tolist()))

    def names(self, tool: str) -> dict[str, dict[str, float]]:
        """{role: {name: probability}}, each argument by itself."""
        known = self._known(tool)
        marginals = {a.role: dict.fromkeys(a.names, 0.0) for a in BY_NAME[tool].arguments}
        for p, names in zip(known.tolist(), self._names(tool)):
            for role, name in names.items():
                marginals[role][name] += p
        return marginals

    def best(self, problem: Problem) -> str:
        """The most probable answer; among equals the first of the prior."""
        names = {
            name: self._names(name)[int(self._known(name).argmax())]
            for name in self._tools(problem)
        }
        return "\n".join(
            write_call(c["tool"], names[c["tool"]], c["values"]) for c in problem.data["calls"]
        )

    def accuracy(self, problem: Problem) -> float:
        """Probability that `best` is right in every call."""
        return math.prod(float(self._known(name).max()) for name in self._tools(problem))

    def entropy(self, tool: str | None = None) -> float:
        """What is not known yet, in bits, of one tool or of all in the prior."""
        return sum(_entropy(self._known(name)) for name in ([tool] if tool else self.prior))

    # -- information

    def answers(self, problem: Problem, completion: str) -> dict[tuple[float, str], float]:
        """{(reward, feedback): probability} of the verdict on one more attempt.

        Raises ValueError for several calls.
        """
        answers: dict[tuple[float, str], float] = {}
        name = self._one_call(problem)["tool"]
        verdicts = self._verdicts(problem, completion, name)
        for p, verdict in zip(self._known(name).tolist(), verdicts):
            if p:
                answers[verdict] = answers.get(verdict, 0.0) + p
        return answers

    def expected_bits(self, problem: Problem, completion: str) -> float:
        """Mutual information of the verdict on one more attempt and the convention: the verdict's
        entropy, since it follows from attempt and convention. With nothing seen this is
        `bits.expected_bits`."""
        return _entropy(np.array(list(self.answers(problem, completion).values())))

    def bits(self, problem: Problem, completion: str, reward: float, feedback: str = "") -> float:
        """What this verdict tells: -log2 of its probability.

        Infinite when nothing left in the prior would give it.
        """
        p = sum(
            p
            for (r, f), p in self.answers(problem, completion).items()
            if abs(r - reward) < 1e-5 and f == feedback
        )
        return -math.log2(p) if p else math.inf

    def __repr__(self) -> str:
        tools = [
            f"{name}: {_entropy(p):.2f} bits" if p.any() else f"{name}: empty"
            for name, p in self._p.items()
        ]
        return f"Posterior(feedback={self.feedback}, {', '.join(tools)})"


def _first_error(parsed: list | None, call: dict, names: dict[str, str]) -> judging.Error | None:
    """What `judge.find_errors` finds first in one call that is parsed already."""
    if parsed is None:
        return judging.Error("syntax")
    if len(parsed) != 1:
        return judging.Error("count", name=f"{len(parsed)} instead of 1")
    given = {k.arg: judging.literal(k.value) for k in parsed[0].keywords}
    return judging.first_error(parsed[0], call, names, given, 0)


def verdict_of(
    calls: list[dict], convention: dict, completion: str, feedback: int, reward: str
) -> tuple[float, str]:
    """What `ToolCall.judge` says when `convention` is the right one."""
    errors, fraction = judging.find_errors(calls, convention, completion)
    message = judging.say(errors[0], feedback) if errors else ""
    return float(not errors) if reward == "exact" else fraction, message


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return max(0.0, -float((p * np.log2(p)).sum()))
