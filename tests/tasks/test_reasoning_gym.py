"""Every data set of reasoning-gym as a task."""

import copy
import json
import os
import subprocess
import sys
import warnings

import pytest

from sdpo_lab.core.task import Problem, Task, Verdict, draw_problems
from sdpo_lab.tasks import reasoning_gym as rg

pytest.importorskip("reasoning_gym")

#: Data sets that state no answer: any right one is accepted, and 0.1.25 does not write one down.
NO_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
#: Their verifiers give something for words of no sense: a share for the length in common, for a
#: prefix, for being text at all.
GENEROUS = {
    "acre": 0.15,
    "palindrome_generation": 0.05,
    "sentence_reordering": 0.15,
    "propositional_logic": 0.3,
    "game_of_life_halting": 1.0,
}
#: Half a second an entry, or a table of entries to load: in the long test alone.
SLOW = {
    "knight_swap",
    "arc_agi",
    "zebra_puzzles",
    "codeio",
    "rearc",
    "intermediate_integration",
    "puzzle24",
    "group_anagrams",
    "figlet_font",
    "sokoban",
}
NAMES = rg.names()


def load(name, *rest, **more):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the verifier of")
        return rg.ReasoningGym(name, *rest, **more)


def check(name):
    task = load(name, 1)
    train, test = draw_problems(task, 3, "train", 0), draw_problems(task, 2, "test", 0)
    assert isinstance(task, Task) and not {p.messages[0]["content"] for p in train} & {
        p.messages[0]["content"] for p in test
    }
    assert [p.id for p in train] == [p.id for p in load(name, 1).problems(3, "train", 0)]
    for p in train:
        assert json.loads(json.dumps(p.data, allow_nan=False)) == p.data
        assert all(
            task.judge(p, text).reward <= GENEROUS.get(name, 0.01)
            for text in ("xyzzy nonsense", "<answer>xyzzy</answer>")
        )
        task.judge(p, "")
        if name in NO_ANSWER:
            assert p.data["answer"] is None
            continue
        for text in (p.data["answer"], f"I think <answer>\n{p.data['answer']}\n</answer>."):
            assert task.judge(p, text) == Verdict(1.0), (p.data["answer"], text)
    task.entries.clear()  # as after a restart: made again from seed and index
    if name not in NO_ANSWER:
        assert all(task.judge(p, p.data["answer"]) == Verdict(1.0) for p in train)
    assert task.refused == 0 or name in rg.LITERAL + rg.ARITHMETIC + rg.FORMULA


@pytest.mark.parametrize(
    "name",
    [n for n in NAMES[::4] if n not in SLOW]
    + ["spell_backward", "countdown", "simple_integration", "n_queens"],
)
def test_a_sample_of_the_data_sets(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_data_set(name):
    check(name)


def test_there_are_as_many_as_the_package_has():
    from reasoning_gym.factory import DATASETS

    assert len(NAMES) == len(DATASETS) - 1 and "composite" not in NAMES and len(NAMES) >= 100


def test_names_settings_and_suffix():
    with pytest.raises(
        ValueError, match="no data set 'spel_backwards'; the nearest are spell_backward"
    ):
        rg.ReasoningGym("spel_backwards")
    with pytest.raises(ValueError, match="it has ab, acre"):
        rg.ReasoningGym("qqqqqqqqqqqqqqqqqqq")
    with pytest.raises(
        ValueError,
        match="'spell_backward' has no 'min_word_length'; it has .*Did you mean 'min_word_len'",
    ):
        rg.ReasoningGym("spell_backward", min_word_length=3)
    with pytest.raises(ValueError, match="has no 'size'"):
        rg.ReasoningGym("spell_backward", size=3)
    with pytest.raises(ValueError, match="refuses its settings"):
        rg.ReasoningGym("spell_backward", min_word_len=-3)
    with pytest.raises(TypeError, match="suffix must be a string"):
        rg.ReasoningGym("spell_backward", suffix=3)
    task = rg.ReasoningGym(
        "spell_backward", 2, suffix="\nThe word alone.", min_word_len=3, max_word_len=3
    )
    p = task.problems(1)[0]
    assert p.messages[0]["content"].endswith("\nThe word alone.") and len(p.data["answer"]) == 3
    assert task.name == "reasoning_gym:spell_backward" and task.dials == dict(
        seed=2, suffix="\nThe word alone.", min_word_len=3, max_word_len=3
    )
    assert rg.ReasoningGym("spell_backward", 3).problems(5) != rg.ReasoningGym(
        "spell_backward", 2
    ).problems(5)
    with pytest.warns(UserWarning, match="accepts every answer"):
        rg.ReasoningGym("game_of_life_halting")


def test_too_many_problems_of_a_small_data_set():
    task = rg.ReasoningGym("coin_flip", min_trials=3, max_trials=3)
    with pytest.raises(
        ValueError,
        match="only about [0-9]+ different test problems with these settings; asked for 5000. "
        ".*max_trials",
    ):
        task.problems(5000, "test")


def test_splits_share_no_question_and_evaluations_ask_for_the_same():
    task = rg.ReasoningGym("spell_backward", min_word_len=3, max_word_len=4)
    train = {
        p.messages[0]["content"] for seed in range(4) for p in task.problems(40, "train", seed)
    }
    test = task.problems(40, "test")
    assert (
        not train & {p.messages[0]["content"] for p in test} and task.problems(40, "test") == test
    )
    again = task.problems(40, "test")
    again.clear()
    assert task.problems(40, "test") == test


def test_the_same_problems_in_another_process():
    code = (
        "from sdpo_lab.tasks.reasoning_gym import ReasoningGym\n"
        "print([p.id for name in ('spell_backward', 'group_anagrams', 'syllogism') for p "
        "in ReasoningGym(name, 5).problems(3)])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_a_verifier_that_raises_is_reward_0_and_counted():
    task = rg.ReasoningGym("prime_factorization")
    p = task.problems(1)[0]
    assert task.judge(p, "two times three") == Verdict(0.0) and task.failures == 1


def test_an_entry_that_comes_out_another_is_an_error():
    task = rg.ReasoningGym("spell_backward")
    p = task.problems(1)[0]
    with pytest.raises(ValueError, match="comes out another one here"):
        task.judge(Problem(p.id, p.messages, {**p.data, "question": "something else"}), "x")


@pytest.mark.parametrize("name", rg.LITERAL + rg.ARITHMETIC + rg.FORMULA)
def test_no_text_of_a_model_is_evaluated_that_could_do_something(name, monkeypatch, tmp_path):
    task, mark = rg.ReasoningGym(name), tmp_path / "mark"
    p = task.problems(1)[0]
    texts = (
        f"__import__('os').system('touch {mark}')",
        f"open('{mark}', 'w')",
        f"[open('{mark}', 'w')]",
        f"exec(\"open('{mark}','w')\")",
        "9**9**9**9",
        "(((((9**99)**99)**99)**99)**99)",
        "'a'*10**10",
        "1<<9999999999",
        "f'{1:9999999999}'",
        "'%9999999999d' % 1",
        "().__class__",
        "x.__class__",
        "factorial(factorial(99))",
        "99999999999999!",
        "2**(9**9)",
        "lambda: 0",
        "x" * 3000,
        "2 ** 99 ** 99",
        "9**9e9",
        "N(pi, 99999999)",
        "x**(9**9**9)",
        "2**(x)**(99)",
        "entry['answer']",
        "[*entry['answer']]",
        "self.score_answer",
    )
    for text in texts:
        assert not rg.harmless(name, text) and task.judge(p, text) == Verdict(0.0), text
    assert task.refused == len(texts) and not mark.exists()


@pytest.mark.parametrize(
    "name", rg.LITERAL + rg.ARITHMETIC + ("polynomial_multiplication", "simple_integration")
)
def test_what_the_verifiers_want_is_not_refused(name):
    task = rg.ReasoningGym(name)
    for p in task.problems(20):
        assert rg.harmless(name, p.data["answer"]), p.data["answer"]
    accepted = {
        "n_queens": ["[['Q', '_'], ['_', 'Q']]"],
        "countdown": ["(3 + 4)*5 - 6/2"],
        "spiral_matrix": ["[1, 2, 3]", "1 2 3"],
        "simple_integration": [
            "x**3/3 + C",
            "2*x**(-1) + C",
            "log(x)",
            "3*(x+1)**2",
            "E**(-2*x)*sin(x)",
            "x**(3/2)",
        ],
    }
    for text in accepted.get(name, []):
        assert rg.harmless(name, text), text


def test_by_name_in_the_list_and_in_a_run_that_is_gone_on_with(tiny, tmp_path):
    import sdpo_lab as lab

    assert "reasoning_gym:<name>" in lab.list_tasks()
    task = lab.load_task("reasoning_gym:spell_backward", seed=1, suffix=" Briefly.", max_word_len=4)
    assert isinstance(task, rg.ReasoningGym) and task.dials["max_word_len"] == 4
    with pytest.raises(ValueError, match="no data set '<name>'"):
        lab.load_task("reasoning_gym:<name>")
    with pytest.raises(ValueError, match="must be one of 'toolcall'.*'reasoning_gym:<name>'"):
        lab.load_task("reasoning-gym")
    fields = dict(
        generation_batch_size=8, num_generations=4, max_completion_length=8, distillation_weight=0.5
    )
    t = lab.SDPOTrainer(
        copy.deepcopy(tiny[0]), tiny[1], task, lab.SDPOConfig.preset("laptop", **fields)
    )
    t.step()
    t.save(tmp_path / "run")
    again = lab.SDPOTrainer.resume(tmp_path / "run")
    assert again.task.dials == task.dials and [r.text for r in again.step().rollouts] == [
        r.text for r in t.step().rollouts
    ]


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r"pip install 'sdpo_lab\[tasks\]'"):
        rg.ReasoningGym("spell_backward")
