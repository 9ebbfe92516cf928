"""Settings of a session: SET, SHOW and RESET, and those that clients are told of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from lodestream.apis.postgres.failures import PgError
from lodestream.version import VERSION

SERVER_VERSION = f"15.0 (Lodestream {VERSION})"
"""What clients take the server for: PostgreSQL 15 is new enough for all of them."""

TOLD = (
    "server_version", "server_encoding", "client_encoding", "application_name", "default_transaction_read_only",
    "in_hot_standby", "is_superuser", "session_authorization", "DateStyle", "IntervalStyle", "TimeZone",
    "integer_datetimes", "standard_conforming_strings",
)  # fmt: skip
"""Settings whose value a client hears at the start and whenever it changes."""

_FIXED = {
    "server_version": SERVER_VERSION, "server_version_num": "150000", "server_encoding": "UTF8", "is_superuser": "off",
    "in_hot_standby": "off", "integer_datetimes": "on", "transaction_read_only": "on", "max_identifier_length": "63",
    "max_index_keys": "32", "lc_collate": "C", "lc_ctype": "C", "block_size": "8192", "data_checksums": "on",
    "session_authorization": "", "role": "none",
}  # fmt: skip
_DEFAULTS = {
    "client_encoding": "UTF8", "application_name": "", "default_transaction_read_only": "on", "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres", "TimeZone": "UTC", "standard_conforming_strings": "on",
    "search_path": "gold, silver, bronze", "statement_timeout": "0", "transaction_isolation": "read committed",
    "default_transaction_isolation": "read committed", "extra_float_digits": "1", "bytea_output": "hex",
    "client_min_messages": "notice", "jit": "off", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
    "lc_messages": "C", "lc_monetary": "C", "lc_numeric": "C", "lc_time": "C", "row_security": "on", "geqo": "on",
    "escape_string_warning": "on", "backslash_quote": "safe_encoding", "quote_all_identifiers": "off",
    "synchronize_seqscans": "on", "default_transaction_deferrable": "off", "transaction_deferrable": "off",
    "synchronous_commit": "on", "work_mem": "4MB", "cursor_tuple_fraction": "0.1", "log_statement": "none",
    "log_min_duration_statement": "-1", "log_min_messages": "warning", "default_tablespace": "", "enable_seqscan": "on",
    "enable_nestloop": "on", "enable_hashjoin": "on", "enable_mergejoin": "on", "password_encryption": "scram-sha-256",
    "array_nulls": "on", "xmlbinary": "base64", "xmloption": "content", "check_function_bodies": "on",
    "temp_buffers": "8MB", "tcp_keepalives_idle": "0", "idle_session_timeout": "0", "plan_cache_mode": "auto",
    "max_parallel_workers_per_gather": "0", "datestyle_order": "MDY", "timezone_abbreviations": "Default",
    "default_with_oids": "off", "ssl_renegotiation_limit": "0", "optimizer": "on",
}  # fmt: skip
_DURATIONS = re.compile(r"(\d+)\s*(us|ms|s|min|h|d)?")
_SCALES = {"us": 0.001, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_UTC = frozenset(
    [
        "utc",
        "gmt",
        "z",
        "zulu",
        "uct",
        "etc/utc",
        "etc/gmt",
        "etc/uct",
        "utc0",
        "gmt0",
        "+00",
        "-00",
        "+00:00",
        "0",
        "greenwich",
        "universal",
    ]
)


class Variables:
    """The settings of one session.

    Args:
        user: who has signed in.
        told: called with name and value when one changes that clients keep an eye on.
    """

    def __init__(self, user: str, told: Callable[[str, str], None]) -> None:
        self._fixed = _FIXED | {"session_authorization": user}
        self._defaults = dict(_DEFAULTS)
        self._values: dict[str, str] = {}
        self._local: dict[str, str | None] = {}
        self._told = told
        self._names = {name.lower(): name for name in (*self._fixed, *self._defaults)}

    def listen(self, told: Callable[[str, str], None]) -> None:
        """Tell somebody else of changes from now on."""
        self._told = told

    def get(self, name: str) -> str:
        """The value of a setting. Raises PgError when there is none of that name."""
        proper = self._proper(name)
        if proper in self._fixed:
            return self._fixed[proper]
        return self._values.get(proper, self._defaults.get(proper, ""))

    def start(self, name: str, value: str) -> None:
        """Take a setting from the start of the connection, which RESET goes back to; what is not possible is left."""
        proper = self._names.get(name.lower())
        if proper is None or proper in self._fixed:
            return
        try:
            self._defaults[proper] = _checked(proper, value)
        except PgError:
            return

    def set(self, name: str, value: str | None, *, local: bool = False) -> PgError | None:
        """Change a setting; None is its default.

        Returns:
            A warning for the client, or None.

        Raises:
            PgError: there is none of that name, or the value is not possible.
        """
        proper = self._proper(name)
        if proper in self._fixed:
            if proper in ("transaction_read_only", "role", "session_authorization"):
                if proper == "transaction_read_only" and value is not None and value.lower() in ("off", "false", "0"):
                    raise PgError("25006", "the lake is read-only here")
                return None
            raise PgError("55P02", f'parameter "{proper}" cannot be changed')
        made = self._defaults.get(proper, "") if value is None else _checked(proper, value)
        if local and proper not in self._local:
            self._local[proper] = self._values.get(proper)
        self._put(proper, made)
        if proper == "TimeZone" and value is not None and value.lower() not in _UTC:
            return PgError("01000", "times are shown in UTC", hint="Convert them with AT TIME ZONE.")
        return None

    def reset(self, name: str) -> None:
        """Back to the default; `all` is every setting."""
        for proper in list(self._values) if name.lower() == "all" else [self._proper(name)]:
            if proper not in self._fixed:
                self._put(proper, self._defaults.get(proper, ""))

    def end_transaction(self) -> None:
        """Undo what was SET LOCAL."""
        for proper, before in self._local.items():
            self._put(proper, self._defaults.get(proper, "") if before is None else before)
        self._local.clear()

    def all(self) -> Iterator[tuple[str, str]]:
        """Every setting and its value, by name."""
        for lower in sorted(self._names):
            yield self._names[lower], self.get(lower)

    @property
    def search_path(self) -> tuple[str, ...]:
        """Schemas that tables without one are looked for in, in order."""
        parts = (part.strip().strip('"').lower() for part in self.get("search_path").split(","))
        return tuple(part for part in parts if part and part != "$user")

    @property
    def statement_timeout_s(self) -> float | None:
        """Seconds that a statement may take; None when the client sets no bound."""
        return float(self.get("statement_timeout")) / 1000 or None

    def _put(self, proper: str, value: str) -> None:
        changed = self._values.get(proper, self._defaults.get(proper, "")) != value
        self._values[proper] = value
        if changed and proper in TOLD:
            self._told(proper, value)

    def _proper(self, name: str) -> str:
        found = self._names.get(name.lower())
        if found is None:
            if "." in name:  # a client's own, such as `myapp.user`
                self._names[name.lower()] = name.lower()
                return name.lower()
            raise PgError("42704", f'unrecognized configuration parameter "{name}"')
        return found


def _checked(proper: str, value: str) -> str:
    if proper == "client_encoding":
        wanted = value.strip("'\"").upper().replace("-", "")
        if wanted in ("SQL_ASCII", "SQLASCII"):  # whoever asks for it takes the bytes as they come
            return "SQL_ASCII"
        if wanted not in ("UTF8", "UNICODE", "AUTO"):
            raise PgError("22023", f'invalid value for parameter "client_encoding": "{value}"', hint="Text is UTF8.")
        return "UTF8"
    if proper == "DateStyle":
        if not value.upper().startswith(("ISO", "MDY", "DMY", "YMD", "DEFAULT")):
            raise PgError("22023", f'invalid value for parameter "DateStyle": "{value}"', hint="Dates are ISO.")
        return "ISO, MDY"
    if proper == "TimeZone":
        return "UTC"
    if proper == "IntervalStyle" and value.lower() != "postgres":
        raise PgError("22023", f'invalid value for parameter "IntervalStyle": "{value}"', hint="Set it to postgres.")
    if proper == "bytea_output" and value.lower() != "hex":
        raise PgError("22023", f'invalid value for parameter "bytea_output": "{value}"', hint="Bytes are hex.")
    if proper == "default_transaction_read_only":
        if value.lower() in ("off", "false", "no", "0"):
            raise PgError("25006", "the lake is read-only here")
        return "on"
    if proper == "standard_conforming_strings":
        if value.lower() in ("off", "false", "no", "0"):
            raise PgError("22023", "standard_conforming_strings is always on")
        return "on"
    if proper == "statement_timeout":
        match = _DURATIONS.fullmatch(value.strip().lower())
        if match is None:
            raise PgError("22023", f'invalid value for parameter "statement_timeout": "{value}"')
        return str(int(int(match[1]) * _SCALES[match[2] or "ms"]))
    return value
