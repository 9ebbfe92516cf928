"""What the console asks for: how the tables stand, where rows flow, what was set aside, dashboards."""
