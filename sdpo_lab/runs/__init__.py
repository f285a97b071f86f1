"""What is kept of a run on disk: checkpoints, the history, recorded runs."""
