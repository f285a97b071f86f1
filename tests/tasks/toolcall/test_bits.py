import math

import pytest

import sdpo_lab as lab
from sdpo_lab.tasks.toolcall.bits import answers, bits, expected_bits
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, combinations, names_of


@pytest.fixture(scope="module")
def case():
    task = lab.load_task("toolcall")
    problem = next(p for p in task.problems(40) if p.data["calls"][0]["tool"] == "weather")
    call = problem.data["calls"][0]
    common = write_call("weather", {"city": "city", "date": "date"}, call["values"])
    return task, problem, common


def test_probabilities_sum_to_one_and_more_is_told_at_each_setting(case):
    _, problem, common = case
    found = [expected_bits(problem, common, level) for level in (None, 0, 1, 2, 3)]
    for level in (None, 0, 1, 2, 3):
        assert sum(answers(problem, common, level).values()) == pytest.approx(1)
    assert found[0] == found[1] < found[2] < found[3]  # nothing said is the reward alone
    assert found[2] < found[4] < found[3]  # dial 3 tells one name, dial 2 all of them
    prior = -sum(p * math.log2(p) for p, _ in combinations(BY_NAME["weather"]))
    assert found[3] <= prior + 1e-9


def test_the_reward_alone_by_hand(case):
    _, problem, common = case
    p = next(p for p, ranks in combinations(BY_NAME["weather"]) if ranks == (0, 0))
    assert expected_bits(problem, common, None) == pytest.approx(
        -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    )


def test_bits_of_one_answer_are_minus_log_of_its_probability(case):
    task, problem, common = case
    weather = BY_NAME["weather"]
    right = [
        p
        for p, ranks in combinations(weather)
        if names_of(weather, ranks) == task.convention["weather"]
    ]
    assert bits(task, problem, task.solution(problem), None) == pytest.approx(-math.log2(right[0]))
    assert bits(task, problem, common, 2) > bits(task, problem, common, None)
    assert bits(lab.load_task("toolcall", novelty="nonsense"), problem, common, 2) == math.inf


def test_several_calls_are_refused():
    problem = lab.load_task("toolcall", calls=2).problems(1)[0]
    with pytest.raises(ValueError, match="one call; this one asks for 2"):
        expected_bits(problem, "x()", None)
