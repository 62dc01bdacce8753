"""The engines of a classic cluster, as last seen and kept fresh. See README.md."""
