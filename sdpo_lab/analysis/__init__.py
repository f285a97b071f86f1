"""Of a model, a task or a run: credit, evaluation, contexts, familiarity, timelines, preflight."""
