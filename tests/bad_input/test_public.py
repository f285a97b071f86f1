"""Every public name refuses what it cannot use: with the name, the value, and what is allowed."""

from __future__ import annotations

import inspect

import pytest

import sdpo_lab as lab
from sdpo_lab import tasks
from sdpo_lab.core.checks import short_repr
from sdpo_lab.tasks.sandbox import Sandbox
from sdpo_lab.trainer import SDPOTrainer
from tests.bad_input.public import ELSEWHERE, INSIDE, PUBLIC, RESULTS
from tests.bad_input.values import refused


def methods(kind: type) -> set[str]:
    """The public methods of a class that take an argument, inherited ones too; no former names."""
    found = {
        name: getattr(kind, name)
        for base in kind.__mro__[:-1]
        for name, value in vars(base).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, classmethod))
    }
    return {
        f"{kind.__name__}.{name}"
        for name, f in found.items()
        if f.__name__ == name and set(inspect.signature(f).parameters) - {"self"}
    }


def test_every_public_name_has_a_row():
    losses = {f"losses.{name}" for name in lab.losses.__all__}
    names = (
        set(lab.__all__)
        | set(tasks.__all__)
        | {kind.__name__ for kind in tasks.TASKS.values()}
        | losses
    )
    for kind in (SDPOTrainer, lab.Timeline, lab.views.LiveRun, Sandbox):
        names |= methods(kind) - INSIDE
    missing = sorted(names - set(PUBLIC) - RESULTS - set(ELSEWHERE))
    assert not missing, f"PUBLIC has no row for {', '.join(missing)}"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_has_a_row(name, one):
    row = PUBLIC[name]
    function, arguments = row.good(one)
    parameters = set(inspect.signature(function).parameters)
    rows = set(row.bad) | set(row.free)
    assert parameters - rows == set(), (
        f"the row of {name} lacks {', '.join(sorted(parameters - rows))}"
    )
    assert set(arguments) <= parameters


ROWS = [
    pytest.param(name, parameter, id=f"{name}-{parameter}")
    for name, row in PUBLIC.items()
    for parameter in row.bad
]


@pytest.mark.parametrize("name, parameter", ROWS)
def test_public_functions(name, parameter, one):
    row = PUBLIC[name]
    function, arguments = row.good(one)
    if parameter not in inspect.signature(function).parameters:
        pytest.skip(f"{name} has no {parameter} yet")
    wrong = []
    for bad in row.bad[parameter]:
        try:
            refused(
                lambda: function(**{**arguments, parameter: bad}),
                row.names.get(parameter, parameter),
                bad,
            )
        except (
            BaseException
        ) as error:  # all of them at once: what is wrong with a parameter is seen in one go
            wrong.append(f"{parameter}={short_repr(bad)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
