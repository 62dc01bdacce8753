"""What the words of the cluster mean: names, states, and the objects a new cluster begins with.

Knows the messages of `swarmd.api` and nobody who calls it.
"""
