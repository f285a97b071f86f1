"""One attempt as running text, each token over what student and teacher thought of it. Static HTML without scripts."""

from __future__ import annotations

import html
from typing import Any

BLUE, ORANGE = "0,114,178", "213,94,0"  # colour-blind safe: blue = the teacher would raise it, orange = lower it
CLIP = 5.0  #: nats at which the colour is full; the same in every picture, and printed below it


def visible(token: str) -> str:
    """A token's text with its white space made visible, escaped."""
    return html.escape(token.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")) or "◌"


def token_picture(credit: Any, alternatives: int = 3, title: str = "") -> str:
    """HTML: every token coloured by its advantage log q - log p, with both probabilities as bars, and below the tokens that
    changed most with what the teacher would rather write.

    credit  a `Credit`; its text is escaped, whatever it holds
    """
    advantages = [float(a) for a in credit.advantages]
    cells = []
    for token, a, p, q in zip(credit.tokens, advantages, credit.student_log_probs.exp().tolist(), credit.teacher_log_probs.exp().tolist()):
        strength = min(abs(a) / CLIP, 1.0) * 0.8
        cells.append(
            f'<div style="margin:0 1px 6px 0;min-width:2.2em;text-align:center" title="student {p:.4f}, teacher {q:.4f}, advantage {a:+.2f} nats">'
            f'<div style="font-family:monospace;font-size:15px;padding:2px 3px;border-radius:3px;background:rgba({BLUE if a > 0 else ORANGE},{strength:.2f})">'
            f'{visible(token)}</div>{bar(p, BLUE)}{bar(q, ORANGE)}<div style="font-size:10px;opacity:.8">{p:.2f}→{q:.2f}</div></div>')
    worst = sorted(range(len(advantages)), key=lambda t: -abs(advantages[t]))[:alternatives]
    rows = "".join(
        f'<tr><td style="font-family:monospace;text-align:left">{visible(credit.tokens[t])}</td><td style="text-align:right">{advantages[t]:+.2f}</td>'
        f'<td style="text-align:left">{listed(best["student"])}</td><td style="text-align:left">{listed(best["teacher"])}</td></tr>'
        for t in sorted(worst) for best in credit.top(3, at=t))
    heading = f'<div style="font-weight:600;padding-bottom:4px">{html.escape(title)}</div>' if title else ""
    return (f'<div style="font-family:sans-serif;font-size:13px;max-width:900px">{heading}<div style="display:flex;flex-wrap:wrap">{"".join(cells)}</div>'
            f'<div style="opacity:.8;padding:2px 0 6px">Under each token: <span style="color:rgb({BLUE})">▬</span> student, <span style="color:rgb({ORANGE})">▬</span> '
            f'teacher probability. Background: <span style="background:rgba({ORANGE},.6);padding:0 4px">the teacher lowers it</span> '
            f'<span style="background:rgba({BLUE},.6);padding:0 4px">raises it</span>, full colour at ±{CLIP:g} nats.</div>'
            f'<table style="border-collapse:collapse"><thead><tr><th style="text-align:left">token</th><th>advantage</th><th style="text-align:left">student would write</th>'
            f'<th style="text-align:left">teacher would write</th></tr></thead><tbody>{rows}</tbody></table></div>')


def bar(probability: float, colour: str) -> str:
    return f'<div style="height:4px;margin:1px auto;width:34px;background:rgba(128,128,128,.25)"><div style="height:4px;width:{34 * probability:.1f}px;background:rgb({colour})"></div></div>'


def listed(best: list[tuple[str, float]]) -> str:
    return ", ".join(f'<code>{visible(token)}</code> {p:.2f}' for token, p in best)
