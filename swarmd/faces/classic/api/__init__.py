"""The Docker Remote API over a classic cluster. See README.md."""
