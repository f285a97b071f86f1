"""One attempt as running text, each token over what student and teacher thought of it. Static HTML without scripts."""

from __future__ import annotations

import html
from typing import Any

BLUE, ORANGE = "0,114,178", "213,94,0"  # colour-blind safe: blue = the teacher would raise it, orange = lower it
STUDENT, TEACHER = "rgb(128,128,128)", "currentColor"  # roles are not told by the two colours of the direction
LEFT, RIGHT = ('style="padding:1px 14px 1px 0;text-align:' + side for side in ("left", "right"))
CLIP = 5.0  #: nats at which the colour is full; the same in every picture, and printed below it


def visible(token: str) -> str:
    """A token's text with its white space made visible, escaped."""
    return html.escape(token.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")) or "◌"


def token_picture(credit: Any, alternatives: int = 3, title: str = "") -> str:
    """HTML: every token coloured by its advantage log q - log p, with both probabilities as bars, and below it the (at most
    `alternatives`) tokens that changed most, with what either role would rather write.

    credit  a `Credit`; its text is escaped, whatever it holds
    """
    advantages = [float(a) for a in credit.advantages]
    cells = []
    for token, a, p, q in zip(credit.tokens, advantages, credit.student_log_probs.exp().tolist(), credit.teacher_log_probs.exp().tolist()):
        strength = min(abs(a) / CLIP, 1.0) * 0.8
        says = f"{p:.2f}→{q:.2f}" if abs(p - q) >= 0.005 else f"{p:.2f}"
        cells.append(
            f'<div style="margin:0 2px 6px 0;min-width:34px;text-align:center" title="student {p:.4f}, teacher {q:.4f}, advantage {a:+.2f} nats">'
            f'<div style="font-family:monospace;font-size:15px;padding:2px 3px;border-radius:3px;background:rgba({BLUE if a > 0 else ORANGE},{strength:.2f})">'
            f'{visible(token)}</div>{bar(p, STUDENT)}{bar(q, TEACHER)}<div style="font-size:10px;opacity:.8">{says}</div></div>')
    changed = sorted(range(len(advantages)), key=lambda t: -abs(advantages[t]))[:alternatives]
    rows = "".join(
        f'<tr><td {LEFT};font-family:monospace">{visible(credit.tokens[t])}</td><td {RIGHT}">{advantages[t]:+.2f}</td>'
        f'<td {LEFT}">{listed(best["student"])}</td><td {LEFT}">{listed(best["teacher"])}</td></tr>'
        for t in sorted(changed) if abs(advantages[t]) >= 0.05 for best in credit.top(3, at=t))
    table = (f'<table style="border-collapse:collapse;color:inherit;font-size:inherit"><thead><tr><th {LEFT}">token</th><th {RIGHT}">advantage</th>'
             f'<th {LEFT}">student would write</th><th {LEFT}">teacher would write</th></tr></thead><tbody>{rows}</tbody></table>')
    heading = f'<div style="font-weight:600;padding-bottom:4px">{html.escape(title)}</div>' if title else ""
    return (f'<div style="font-family:sans-serif;font-size:13px;max-width:900px">{heading}<div style="display:flex;flex-wrap:wrap">{"".join(cells)}</div>'
            f'<div style="opacity:.85;padding:2px 0 6px">Under each token its probability: <span style="color:{STUDENT}">▬</span> student, '
            f'<span style="color:{TEACHER}">▬</span> teacher. Background: <span style="background:rgba({ORANGE},.6);padding:0 4px">the teacher lowers it</span> '
            f'<span style="background:rgba({BLUE},.6);padding:0 4px">raises it</span>, full colour at ±{CLIP:g} nats.</div>'
            f'{table if rows else "<div>No token changed by 0.05 nats or more.</div>"}</div>')


def bar(probability: float, colour: str) -> str:
    return (f'<div style="height:4px;margin:1px auto;width:34px;background:rgba(128,128,128,.25)">'
            f'<div style="height:4px;width:{34 * probability:.1f}px;background:{colour}"></div></div>')


def listed(best: list[tuple[str, float]]) -> str:
    return ", ".join(f'<span style="font-family:monospace">{visible(token)}</span> {p:.2f}' for token, p in best)
