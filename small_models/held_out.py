"""Fifty wordings that share no word of four letters or more with any pre-training document (a test
checks it).

What is shared are the names and values themselves. The card measures on them whether the teacher
reads a message or recalls a template.
"""

from __future__ import annotations

import random

# fmt: off
# at setting 2 of the dial: what is wrong, and the names that are right
MESSAGES = (
    "Kwarg '{n}' bogus; permissible: {list}", "unrecognised label '{n}' (legal labels: {list})",
    "'{n}' -- nope, rather {list}", "Mismatch: '{n}'. Supported identifiers: {list}",
    "kwname '{n}' nonexistent, admissible: {list}", "oops, '{n}'! Eligible: {list}",
    "'{n}' misspelt? Documented: {list}", "undefined slotname '{n}'; enumerated: {list}",
    "Interpreter balked at '{n}', whereas {list} pass muster",
    "keyname '{n}' deprecated. Current keynames: {list}", "'{n}' forbidden. Whitelist: {list}",
    "Hmm, '{n}' puzzles me. Comprehensible: {list}",
    "assertion violated by '{n}'; satisfied by {list}", "obsolete '{n}', modern {list}",
    "Malformed: '{n}'. Wellformed: {list}", "spelling '{n}' unheard-of ({list} familiar)",
    "faulty '{n}' ... genuine: {list}", "discard '{n}'; retain {list}",
    "erroneous kwarg '{n}' | sanctioned kwargs {list}", "typo: '{n}'. Vocabulary: {list}",
    "'{n}' unresolvable. Resolvable: {list}", "Inadmissible '{n}'. Alternatives upstream: {list}",
    "vetoed '{n}'; endorsed {list}", "unmatched '{n}' versus declared {list}",
    "'{n}' absent amid declared {list}", "diagnostic: '{n}' alien, native {list}",
    "linter flags '{n}'; conforming {list}", "binding '{n}' impossible. Bindable: {list}",
    "'{n}' undocumented, consult {list}", "superfluous '{n}' (legit: {list})",
    "stray '{n}', lawful {list}", "'{n}' disallowed by v2; v2 permits {list}",
    "outdated identifier '{n}'. Latest identifiers: {list}", "fatal: '{n}' unbound; bound = {list}",
    "warning 17: '{n}' meaningless. Meaningful: {list}", "blame '{n}'. Flawless: {list}",
    "tokeniser choked, culprit '{n}', remedy {list}", "improper '{n}' -> consult glossary {list}",
    "'{n}' isn't declared; declared: {list}", "nonstandard '{n}'. Standardised: {list}",
    "unlisted '{n}'. Catalogue: {list}", "unregistered '{n}'. Registry: {list}",
    "offending '{n}' / conformant {list}", "gibberish '{n}'; intelligible {list}",
    "denied: '{n}'. Granted: {list}", "excess '{n}', roster {list}",
    "conflict: '{n}', agreed upon {list}", "dubious '{n}' ; trustworthy {list}",
    "phantom '{n}'. Actual: {list}", "'{n}' abolished; introduced {list}",
)
# at setting 1: what is wrong, and no more
EXCLUSIONS = (
    "Kwarg '{n}' bogus", "unrecognised label '{n}'", "Mismatch: '{n}'", "kwname '{n}' nonexistent",
    "'{n}' misspelt", "undefined slotname '{n}'", "Interpreter balked at '{n}'", "'{n}' forbidden",
    "assertion violated by '{n}'", "Malformed: '{n}'", "faulty '{n}'", "discard '{n}'",
    "typo: '{n}'", "'{n}' unresolvable", "Inadmissible '{n}'", "vetoed '{n}'", "'{n}' undocumented",
    "stray '{n}'", "'{n}' disallowed by v2", "blame '{n}'", "improper '{n}'", "unlisted '{n}'",
    "phantom '{n}'", "denied: '{n}'",
)
# what a person might type: not this one; this one, not that; this one. `SMALL_WORDS` are
# everybody's
SMALL_WORDS = ("from", "with", "than", "over")
SENTENCES = (
    "Ditch {n}.", "Whoever taught you {n} lied.", "{n} bugs me.", "Nope, {n} flunks.",
    "Delete {n}, mate.", "My boss hates {n}.", "The {n} thingy crashes.", "{n} shall vanish.",
    "Erase {n}.", "Quit typing {n}.", "I despise {n}!", "Sadly {n} isn't supported.", "Banish {n}.",
    "Scrap {n}", "Ugh, {n}, ewww", "You misnamed it: {n}", "{n} seems off to me",
    "Isn't {n} bogus?", "Get rid of {n}", "omit {n}",
)
CORRECTIONS = (
    "I'd prefer {e} over {n}.", "Swap {n} for {e}.", "Ditch {n}, grab {e}.", "Nope, not {n}: {e}!",
    "Switch from {n} to {e}", "It got rebranded: {n} became {e}", "Whoops, {n} ought to be {e}",
    "Substitute {e} for {n}", "{n} isn't supported, {e} is", "Rather {e} than {n}", "s/{n}/{e}/",
    "Rename {n} to {e}", "{n} bugs me, go with {e}", "Delete {n} and adopt {e}",
    "Banish {n}. Grab {e}.", "My team spells {n} as {e}", "Scrap {n}; prefer {e}",
    "You typed {n}; I craved {e}",
)
REQUESTS = (
    "I'd prefer {e}.", "Grab {e}.", "Kindly opt for {e}.", "Label it {e}.",
    "Everybody spells {e} nowadays.", "Adopt {e}, thx", "My team prefers {e}",
    "Surely {e} suffices", "Let's go with {e}", "Dub the {role} {e}", "{e} suits me",
    "May we settle on {e}?", "Rename the {role} to {e}", "switch to {e}", "Nicer: {e}",
    "The {role} thingy's spelled {e}", "{e} ftw", "I'd adore {e}", "Prefer {e}", "go for {e}",
)
FEEDBACK_HEADS = (
    "Remarks:", "Complaint received:", "Critique:", "Diagnosis of the mishap:", "Grading remarks:",
    "Postmortem:", "Assessor's remark:", "Observed breakdown:", "Bounced:", "Stderr:",
    "Debug printout:", "Crash dump:", "Supervisor's objection:", "Verdict:", "Outcome:",
    "Evaluation:", "Console:", "Linter:", "Rebuttal:", "Comments upon submission:", "Incident:",
    "Alert:", "Justification:", "Backend reply:", "Regrettably:",
)
SOLUTION_HEADS = (
    "Exemplar:", "Golden submission:", "Verified specimen:", "Proven:", "Ideal submission:",
    "Successful peer:", "Colleague's triumph:", "Canonical:", "Flawless specimen:",
    "Approved submission:", "Certified:", "Demonstration:", "Model submission:", "Endorsed:",
    "Specimen deemed okay:", "Benchmark:", "Expert's version:", "Hint:", "Cheat sheet:",
    "Master copy:", "Template:", "Blueprint:", "Precedent:", "Prior victory:", "Winner:",
)
CLOSINGS = (
    "Redo.", "Rewrite flawlessly.", "Kindly resubmit.", "Revise accordingly.",
    "Produce an amended version.", "Amend.", "Afresh, kindly.", "Finish.", "Respond anew.",
    "Submit.", "Deliver.", "Resolve the puzzle.", "Onward, champ.", "Proceed.",
    "Formulate a superior version.", "Regenerate.", "Compose.", "Emit.", "Conclude.", "Provide.",
    "Generate.", "Complete.", "Reply.", "Execute.", "Okay? Commence.",
)
# fmt: on


def message(error, rng: random.Random) -> str:
    """The judge's `Error` at setting 2 in words no document used; errors that name no argument are
    left to the judge's own words.
    """
    return rng.choice(MESSAGES).format(n=error.name, list=", ".join(error.accepted))


def frame(question: str, parts: dict[str, str], rng: random.Random) -> str:
    """A teacher's prompt in words no document used."""
    heads = {"solution": rng.choice(SOLUTION_HEADS), "feedback": rng.choice(FEEDBACK_HEADS)}
    body = "".join(f"\n\n{heads[k]}\n\n{text}" for k, text in parts.items())
    return f"{question}{body}\n\n{rng.choice(CLOSINGS)}"
