"""Credits to look at, what a page shows of them, and what is measured of it."""

from __future__ import annotations

import math
from importlib.resources import files

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.task import Problem

PROBLEM = Problem(
    "p",
    [
        {
            "role": "user",
            "content": "Will it rain in Oslo on Friday?\nAnswer with a call of weather().",
        }
    ],
)
TEXTS = ["weather(town='Oslo', day='Friday')", "weather(city='Oslo',\n        day='Fri')"]
FEEDBACK = "TypeError: weather() got an unexpected keyword argument 'town' (accepted: city, day)"
QUANTITIES = [
    "advantage",
    "divergence",
    "student",
    "teacher",
    "student entropy",
    "teacher entropy",
    "oracle",
]


def scored(tiny_original, text, seed=0, feedback=FEEDBACK):
    """A credit with differences as a trained model has them: most tokens untouched, some moved by
    nats; and with an oracle."""
    model, tokenizer = tiny_original
    c = lab.credit(model, tokenizer, PROBLEM, text, feedback=feedback)
    generator = torch.Generator().manual_seed(seed)
    for t in range(len(c.tokens)):
        c.teacher_distribution[t] = (
            c.student_distribution[t]
            + (3 if t % 4 == 2 else 0.02) * torch.randn(400, generator=generator)
        ).log_softmax(-1)
    c.teacher_log_probs = c.teacher_distribution.gather(1, torch.tensor(c.completion_ids)[:, None])[
        :, 0
    ]
    c.oracle_log_probs = c.student_log_probs.clone()
    c.oracle_log_probs[3], c.oracle_log_probs[4:] = -math.inf, math.nan
    return c


class Shown:
    """A token view on a page, seen from outside."""

    def __init__(self, page, number: int = 0) -> None:
        self.page, self.root = page, page.get_by_test_id("sdpo-tokens").nth(number)
        self.root.wait_for(timeout=60_000)

    def token(self, attempt: int, t: int):
        return self.root.get_by_test_id("text").nth(attempt).locator(".token").nth(t)

    @property
    def selected(self) -> str:
        return self.root.locator('.token[aria-selected="true"]').get_attribute("aria-label")

    @property
    def details(self) -> str:
        return self.root.locator("> .details").inner_text()

    def by(self, quantity: str) -> None:
        self.root.locator(f'input[value="{quantity}"]').check(force=True)

    def at(self, attempt: int, t: int) -> bool:
        """Is this the token the keyboard is on, the selected one, and the only one Tab leads to?"""
        return self.token(attempt, t).evaluate("""e => {
            const tokens = e.closest("[data-testid=sdpo-tokens]");
            const reached = ".token[tabindex='0'], .token[aria-selected=true]";
            return e === document.activeElement && e.ariaSelected === "true"
                && tokens.querySelectorAll(reached).length === 1;
        }""")


# -- measuring


def axe() -> str:
    """The source of axe-core, as the package axe-playwright-python brings it."""
    pytest.importorskip("axe_playwright_python")
    return next(
        p for p in files("axe_playwright_python").joinpath(".").iterdir() if p.name == "axe.min.js"
    ).read_text(encoding="utf-8")


def violations(page, place: str = "main") -> list[str]:
    """Serious and critical violations that axe finds in a part of the page."""
    found = page.evaluate("(place) => axe.run(place, { resultTypes: ['violations'] })", place)[
        "violations"
    ]
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary'][:300]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def luminance(colour: str) -> float:
    """WCAG relative luminance of "rgb(r, g, b)"."""
    parts = [float(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
