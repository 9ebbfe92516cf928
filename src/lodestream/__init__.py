"""Real-time analytics from raw events to gold Delta tables, exactly once, on one machine."""
