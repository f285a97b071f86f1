"""Everything a step touches, and nothing else: no file, no widget, no shipped task.

Nothing here imports a room above. `loop` is where to begin.
"""
