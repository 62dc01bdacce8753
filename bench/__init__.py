"""Measurements: one script per question, each prints one table with machine and commit."""
