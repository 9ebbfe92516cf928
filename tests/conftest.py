"""Settings of all tests."""

import logging
import signal

from hypothesis import settings

# The same examples in every run, and no deadline: how long one takes says nothing on a busy machine.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

# A job in the background inherits an ignored SIGINT and passes it on; tests press Ctrl-C on the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What librdkafka says of brokers that tests stop is expected and long.
logging.getLogger("lodestream.kafka").setLevel(logging.CRITICAL)
