"""HTTP that more than one face needs: a client for engines, relaying, raw streams, refusals."""
