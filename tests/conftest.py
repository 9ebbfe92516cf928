"""Settings of all tests."""

from hypothesis import settings

# The same examples in every run, and no deadline: how long one takes says nothing on a busy machine.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
