"""The command line: `docker swarm`, `docker node` and their kin, over the Engine REST API.

Knows nothing of the daemon but its wire, so it drives a stock engine as well. Start reading
at `__main__.main`, then `cli`.
"""

__version__ = "0.1.0"
