"""Copies of a lake in another place: backup sets with points, restoring them, and replicas that can take over."""
