"""What can go wrong, named by what the reader should do about it."""

from __future__ import annotations


class LodestreamError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: lower case, specific, with the fix when there is one.
        **facts: values that belong to the message; appended as `key='value'`.
    """

    exit_code = 1

    def __init__(self, message: str, **facts: object) -> None:
        self.message = message
        self.facts = facts
        tail = " ".join(f"{key}={value!r}" for key, value in facts.items() if value is not None)
        super().__init__(f"{message} {tail}".strip())


class ConfigError(LodestreamError):
    """Somebody edits a file: the message carries file, line, code and the fix."""

    exit_code = 3


class MissingDriverError(ConfigError):
    """A component needs a package that is not installed; the message carries the pip line."""


class TransientError(LodestreamError):
    """Wait and do the same again; the runtime does it.

    Args:
        retry_after_s: seconds to wait before the next try.
    """

    exit_code = 4

    def __init__(self, message: str, *, retry_after_s: float = 1.0, **facts: object) -> None:
        super().__init__(message, **facts)
        self.retry_after_s = retry_after_s


class ConflictError(LodestreamError):
    """Another writer won: reload and redo the whole commit."""

    exit_code = 7


class RewrittenError(ConflictError):
    """Compaction put the same rows into other files: redo the commit at once, no rival is at work."""


class AccessError(LodestreamError):
    """The caller may not do this."""

    exit_code = 8


class CorruptionError(LodestreamError):
    """Stop this table before it spreads; `lodestream doctor --repair` is the next step."""

    exit_code = 6


class DataLossRefused(LodestreamError):  # noqa: N818 - named by what the reader decides
    """The source no longer has what we need; a person decides."""

    exit_code = 5
