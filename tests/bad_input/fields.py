"""What is bad for each field of the configuration."""

from __future__ import annotations

from sdpo_lab.core.config import CHOICES, OPTIONAL, RANGES, TEMPLATES
from tests.bad_input.values import CHOICE, FLAG, TEXT, floats, ints, optional

FIELDS = {
    name: (ints(low, high) if kind is int else floats(low, high))
    for name, (kind, low, high) in RANGES.items()
}
FIELDS = {name: optional(bad) if name in OPTIONAL else bad for name, bad in FIELDS.items()}
FIELDS |= {name: FLAG if allowed == (False, True) else CHOICE for name, allowed in CHOICES.items()}
FIELDS |= {
    name: [
        *TEXT,
        "",
        "no slot",
        "{",
        "{0}",
        "{{}}",
        *("".join("{" + s + "}" for s in slots) + more for more in ("{more}", "}", "{0}")),
    ]
    for name, slots in TEMPLATES.items()
}
