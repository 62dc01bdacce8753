"""The words everyone uses: errors, ids, clock, chance, backoff, limits, logs, metrics.

Knows no domain word. Lowest floor: imports nothing of ours.
"""
