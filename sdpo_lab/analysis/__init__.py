"""What can be found out about a model, a task or a run: credit, evaluation, contexts, timelines, preflight."""
