"""Bytes to Arrow and back; one file per format."""
