"""Faces: what people and programs outside the cluster see. They reach it through Control only."""
