"""A run that is steered while it goes on: thread, measurements, knobs, diagnostics. No widgets."""
