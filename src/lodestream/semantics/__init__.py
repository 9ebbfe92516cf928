"""What is the right answer? Watermark, lateness, dedup and windows as pure functions: the oracle in tests."""
