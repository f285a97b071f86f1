"""Fifty wordings that share no word of four letters or more with any pre-training document (a test checks it).

What is shared are the names and values themselves. The card measures on them whether the teacher reads a message or recalls a template.
"""

from __future__ import annotations

import random

# at setting 2 of the dial: what is wrong, and the names that are right
MESSAGES = (
    "Kwarg '{n}' bogus; permissible: {list}", "unrecognised label '{n}' (legal labels: {list})", "'{n}' -- nope, rather {list}",
    "Mismatch: '{n}'. Supported identifiers: {list}", "kwname '{n}' nonexistent, admissible: {list}", "oops, '{n}'! Eligible: {list}",
    "'{n}' misspelt? Documented: {list}", "undefined slotname '{n}'; enumerated: {list}", "Interpreter balked at '{n}', whereas {list} pass muster",
    "keyname '{n}' deprecated. Current keynames: {list}", "'{n}' forbidden. Whitelist: {list}", "Hmm, '{n}' puzzles me. Comprehensible: {list}",
    "assertion violated by '{n}'; satisfied by {list}", "obsolete '{n}', modern {list}", "Malformed: '{n}'. Wellformed: {list}",
    "spelling '{n}' unheard-of ({list} familiar)", "faulty '{n}' ... genuine: {list}", "discard '{n}'; retain {list}",
    "erroneous kwarg '{n}' | sanctioned kwargs {list}", "typo: '{n}'. Vocabulary: {list}", "'{n}' unresolvable. Resolvable: {list}",
    "Inadmissible '{n}'. Alternatives upstream: {list}", "vetoed '{n}'; endorsed {list}", "unmatched '{n}' versus declared {list}",
    "'{n}' absent amid declared {list}", "diagnostic: '{n}' alien, native {list}", "linter flags '{n}'; conforming {list}",
    "binding '{n}' impossible. Bindable: {list}", "'{n}' undocumented, consult {list}", "superfluous '{n}' (legit: {list})",
    "stray '{n}', lawful {list}", "'{n}' disallowed by v2; v2 permits {list}", "outdated identifier '{n}'. Latest identifiers: {list}",
    "fatal: '{n}' unbound; bound = {list}", "warning 17: '{n}' meaningless. Meaningful: {list}", "blame '{n}'. Flawless: {list}",
    "tokeniser choked, culprit '{n}', remedy {list}", "improper '{n}' -> consult glossary {list}", "'{n}' isn't declared; declared: {list}",
    "nonstandard '{n}'. Standardised: {list}", "unlisted '{n}'. Catalogue: {list}", "unregistered '{n}'. Registry: {list}",
    "offending '{n}' / conformant {list}", "gibberish '{n}'; intelligible {list}", "denied: '{n}'. Granted: {list}",
    "excess '{n}', roster {list}", "conflict: '{n}', agreed upon {list}", "dubious '{n}' ; trustworthy {list}",
    "phantom '{n}'. Actual: {list}", "'{n}' abolished; introduced {list}")
FEEDBACK_HEADS = (
    "Remarks:", "Complaint received:", "Critique:", "Diagnosis of the mishap:", "Grading remarks:", "Postmortem:", "Assessor's remark:", "Observed breakdown:",
    "Bounced:", "Stderr:", "Debug printout:", "Crash dump:", "Supervisor's objection:", "Verdict:", "Outcome:", "Evaluation:", "Console:",
    "Linter:", "Rebuttal:", "Comments upon submission:", "Incident:", "Alert:", "Justification:", "Backend reply:", "Regrettably:")
SOLUTION_HEADS = (
    "Exemplar:", "Golden submission:", "Verified specimen:", "Proven:", "Ideal submission:", "Successful peer:", "Colleague's triumph:", "Canonical:",
    "Flawless specimen:", "Approved submission:", "Certified:", "Demonstration:", "Model submission:", "Endorsed:", "Specimen deemed okay:",
    "Benchmark:", "Expert's version:", "Hint:", "Cheat sheet:", "Master copy:", "Template:", "Blueprint:", "Precedent:", "Prior victory:", "Winner:")
CLOSINGS = (
    "Redo.", "Rewrite flawlessly.", "Kindly resubmit.", "Revise accordingly.", "Produce an amended version.", "Amend.", "Afresh, kindly.", "Finish.",
    "Respond anew.", "Submit.", "Deliver.", "Resolve the puzzle.", "Onward, champ.", "Proceed.", "Formulate a superior version.", "Regenerate.",
    "Compose.", "Emit.", "Conclude.", "Provide.", "Generate.", "Complete.", "Reply.", "Execute.", "Okay? Commence.")


def message(error, rng: random.Random) -> str:
    """The judge's `Error` at setting 2 in words no document used; errors that name no argument are left to the judge's own words."""
    return rng.choice(MESSAGES).format(n=error.name, list=", ".join(error.accepted))


def frame(question: str, parts: dict[str, str], rng: random.Random) -> str:
    """A teacher's prompt in words no document used."""
    heads = {"solution": rng.choice(SOLUTION_HEADS), "feedback": rng.choice(FEEDBACK_HEADS)}
    body = "".join(f"\n\n{heads[k]}\n\n{text}" for k, text in parts.items())
    return f"{question}{body}\n\n{rng.choice(CLOSINGS)}"
