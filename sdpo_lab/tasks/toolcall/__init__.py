"""`toolcall`: write the call of a tool whose API was renamed. See `world` for the idea, `judge` for
the feedback."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.core.task import Problem, Verdict
from sdpo_lab.tasks.conventions import DrawnTask
from sdpo_lab.tasks.toolcall import judge as judging
from sdpo_lab.tasks.toolcall.requests import draw_problem, write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, NOVELTY, draw_convention

if TYPE_CHECKING:
    from sdpo_lab.tasks.toolcall.oracle import OracleTeacher

FEEDBACK = {
    0: "nothing",
    1: "what is wrong",
    2: "what is wrong and the accepted names, sorted",
    3: "what is wrong and the right name for it",
}


class ToolCall(DrawnTask):
    """Problems whose answer is one or more calls; the convention says which names are right.

    seed          which convention
    base_accuracy 0.01 to 0.5: how often a learner who knows only the prior writes one call
                  correctly; sets how rare the names of the convention are
    calls         1 to 8 calls an attempt; all must be right for reward 1
    feedback      0 to 3, the dial `FEEDBACK`
    reward        "exact": 1 when everything is right, else 0; "fraction": share of right arguments
    novelty       how far the convention lies from pre-training, see `draw_convention`
    """

    name = "toolcall"
    patience = 200

    def __init__(
        self,
        seed: int = 0,
        *,
        base_accuracy: float = 0.05,
        calls: int = 1,
        feedback: int = 2,
        reward: str = "exact",
        novelty: str = "seen",
    ) -> None:
        self.dials = dict(
            seed=check_range("seed", seed, int, 0, 2**31 - 1),
            base_accuracy=check_range("base_accuracy", base_accuracy, float, 0.01, 0.5),
            calls=check_range("calls", calls, int, 1, 8),
            feedback=check_choice("feedback", feedback, FEEDBACK),
            reward=check_choice("reward", reward, ("exact", "fraction")),
            novelty=check_choice("novelty", novelty, NOVELTY),
        )
        self.convention = draw_convention(self.dials["seed"], self.dials["base_accuracy"], novelty)
        self.tools = tuple(BY_NAME[name] for name in self.convention)

    def draw(self, split: str, rng: random.Random) -> Problem:
        return draw_problem(self.tools, self.dials["calls"], split, rng)

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """Never raises on a completion: what is not a call is a verdict too."""
        errors, fraction = judging.find_errors(problem.data["calls"], self.convention, completion)
        reward = float(not errors) if self.dials["reward"] == "exact" else fraction
        return Verdict(reward, judging.say(errors[0], self.dials["feedback"]) if errors else "")

    def solution(self, problem: Problem) -> str:
        """The right answer in the form the models write it."""
        return "\n".join(
            write_call(c["tool"], self.convention[c["tool"]], c["values"])
            for c in problem.data["calls"]
        )

    def oracle_teacher(
        self,
        tokenizer: Any,
        problem: Problem,
        completion_ids: list[int],
        *,
        feedback: str = "",
        solution: str = "",
        attempt: str = "",
    ) -> OracleTeacher | None:
        """The Bayes oracle's opinion of an attempt, given what a self-teacher is shown.

        None where it is not known (several calls).

        Feedback without the attempt it is about is taken as said of the pre-training documents'
        author (`Posterior.update_from_feedback`). A text this judge would not say of any attempt
        leaves the oracle without opinion everywhere.
        """
        from sdpo_lab.tasks.toolcall import oracle  # it reads this module's judge

        if self.dials["calls"] != 1:
            return None
        posterior = oracle.Posterior.of(self)
        if solution:
            posterior.update(problem, solution, 1.0)
        if feedback and attempt:
            posterior.update(problem, attempt, self.judge(problem, attempt).reward, feedback)
        elif feedback:
            posterior.update_from_feedback(problem, feedback)
        return oracle.next_tokens(posterior, tokenizer, problem, completion_ids)
