"""Who is in a classic cluster: the discovery service, and its clients. See README.md."""
