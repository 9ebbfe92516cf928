"""What the registry refuses, with the HTTP status and error code that its clients know."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is answered with an error.

    Args:
        code: the API's error code; its first three digits are the HTTP status.
        message: what is wrong, for people.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{message} code={code}")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(str(self.code)[:3])


def no_subject(subject: str) -> Problem:
    """40401."""
    return Problem(40401, f"Subject '{subject}' not found.")


def no_version(version: object) -> Problem:
    """40402."""
    return Problem(40402, f"Version {version} not found.")


def no_schema(schema: object = None) -> Problem:
    """40403."""
    return Problem(40403, "Schema not found" if schema is None else f"Schema {schema} not found")


def subject_is_deleted(subject: str) -> Problem:
    """40404."""
    return Problem(40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently")


def subject_is_not_deleted(subject: str) -> Problem:
    """40405."""
    return Problem(40405, f"Subject '{subject}' was not deleted first before being permanently deleted")


def version_is_deleted(subject: str, version: int) -> Problem:
    """40406."""
    text = f"Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently"
    return Problem(40406, text)


def version_is_not_deleted(subject: str, version: int) -> Problem:
    """40407."""
    text = f"Subject '{subject}' Version {version} was not deleted first before being permanently deleted"
    return Problem(40407, text)


def no_own_level(subject: str) -> Problem:
    """40408."""
    return Problem(40408, f"Subject '{subject}' does not have subject-level compatibility configured")


def no_own_mode(subject: str) -> Problem:
    """40409."""
    return Problem(40409, f"Subject '{subject}' does not have subject-level mode configured")


def invalid_schema(reason: object) -> Problem:
    """42201."""
    return Problem(42201, f"Invalid schema: {reason}")


def invalid_version(version: object) -> Problem:
    """42202."""
    return Problem(
        42202,
        f"The specified version '{version}' is not a valid version id. Allowed values are between [1, 2^31-1] "
        'and the string "latest"',
    )


def invalid_level(level: object) -> Problem:
    """42203."""
    return Problem(
        42203,
        f"Invalid compatibility level {level!r}. Valid values are none, backward, forward, full, "
        "backward_transitive, forward_transitive, and full_transitive",
    )


def invalid_mode(mode: object) -> Problem:
    """42204."""
    return Problem(42204, f"Invalid mode {mode!r}. Valid values are READWRITE, READONLY, READONLY_OVERRIDE, and IMPORT")


def not_permitted(reason: str) -> Problem:
    """42205."""
    return Problem(42205, reason)


def is_referred_to(what: str) -> Problem:
    """42206."""
    return Problem(42206, f"One or more references exist to the schema {what}")


def invalid_subject(subject: object) -> Problem:
    """42208."""
    return Problem(42208, f"The specified subject {subject!r} is not a valid subject")


def incompatible(subject: str, details: object) -> Problem:
    """409."""
    return Problem(
        409,
        f'Schema being registered is incompatible with an earlier schema for subject "{subject}", details: {details}',
    )


def unreadable(reason: str) -> Problem:
    """A body or a query that cannot be read: 422."""
    return Problem(422, reason)
