"""Where a container goes: wishes, filters, strategies. Pure. See README.md."""
