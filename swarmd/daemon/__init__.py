"""Wiring: build the rooms, plug them together, run one task tree."""
