"""Thin clients that several doors share."""
