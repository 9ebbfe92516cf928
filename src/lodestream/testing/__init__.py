"""Contract suites, fault injection and pipeline unit tests for users and plugin authors."""
