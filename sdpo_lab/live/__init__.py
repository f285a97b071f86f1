"""A run that is steered while it goes on: the worker, its measurements, knobs and diagnoses. No widget library is imported here."""
