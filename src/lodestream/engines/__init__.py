"""Engines: execute a plan."""
