"""Keeping it running: reconcile, trace, metrics, chaos."""
