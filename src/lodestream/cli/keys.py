"""`lodestream keys`: who may use the API."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import Call, verb

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.security.keys import ApiKey

app = typer.Typer(help="Keys of the API.", no_args_is_help=True, rich_markup_mode=None)
Identity = Annotated[str, typer.Argument(metavar="ID", help="Id of the key; `lodestream keys list` shows it.")]


def create(
    call: Call,
    name: Annotated[str, typer.Argument(help="The user or service account whose key it is.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            "-s",
            metavar="SCOPE",
            help="What it may do at most: query:*, ingest:STREAM, ingest:*, metrics:read, admin:*; may be repeated. "
            "[default: query:*]",
        ),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="DURATION", help="How long it is good for, or never.")] = "90 days",
    networks: Annotated[
        list[str] | None, typer.Option("--from", metavar="NETWORK", help="Addresses it may come from; repeatable.")
    ] = None,
    requests_per_s: Annotated[float | None, typer.Option(min=0.001, help="Bound of requests per second.")] = None,
    bytes_per_s: Annotated[float | None, typer.Option(min=1, help="Bound of bytes per second.")] = None,
    records_per_day: Annotated[int | None, typer.Option(min=1, help="Bound of records per day, UTC.")] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write it into a profile for Delta Sharing, and do not show it.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="In the profile: where clients reach the server.")
    ] = None,
) -> None:
    """Make a key. It is shown once; only its digest and a verifier are kept.

    A key that may ask or change something is a user's or service account's: name them in policies.yaml. One that only
    sends records needs none.
    """
    from lodestream.app import now_us
    from lodestream.errors import ConfigError
    from lodestream.security import networks as nets
    from lodestream.security.identity import needs_account
    from lodestream.security.keys import DEFAULT_SCOPES, ApiKey, KeyStore, scopes_of

    try:
        nets.networks(networks or [])
    except ValueError as error:
        raise ConfigError("not a network; write 10.0.0.0/8 or an address", reason=str(error)) from error
    now = now_us()
    key = ApiKey(
        "", name, "", scopes_of(scopes) if scopes else DEFAULT_SCOPES, now, _until(expires, now), None,
        tuple(networks or []), requests_per_s, bytes_per_s, records_per_day,
    )  # fmt: skip
    app = call.app()
    if needs_account(key.scopes) and not app.has_account(name):
        raise ConfigError(
            "no such user or service account; name it under users: in policies.yaml, or give it ingest scopes only",
            name=name,
        )
    if profile is not None:
        url = (url or _own_url(app)).rstrip("/")
        _refuse_what_is_there(profile)
    text, made = KeyStore(app.keys_path).create(app.environment or "default", key)
    call.note(app, "key", made.name, key=made.id, scopes=" ".join(made.scopes))  # else nobody gets to see it
    if profile is None:
        _show(call, text, made)
        return
    _write_profile(profile, f"{url}/delta-sharing", text, made)
    call.tell({"profile": profile} | _plain(made), f"{profile} holds the key; give it to nobody but {name}")


def rotate(
    call: Call,
    identity: Identity,
    grace: Annotated[str, typer.Option(metavar="DURATION", help="How long the old key stays good.")] = "1 day",
    expires: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the new one is good, or never.")
    ] = "90 days",
) -> None:
    """Make a key that may do the same; the old one stays good for a while."""
    from dataclasses import replace

    from lodestream.app import now_us
    from lodestream.security.keys import KeyStore

    app, now = call.app(), now_us()
    store = KeyStore(app.keys_path)
    call.note(app, "rotate key", key=identity)
    old = store.change(identity, expires_us=_until(grace, now))
    text, made = store.create(
        app.environment or "default", replace(old, created_us=now, expires_us=_until(expires, now), revoked_us=None)
    )
    _show(call, text, made)


def revoke(call: Call, identity: Identity) -> None:
    """Refuse a key from now on; servers see it at once."""
    from lodestream.app import now_us
    from lodestream.security.keys import KeyStore

    app = call.app()
    call.note(app, "revoke key", key=identity)
    key = KeyStore(app.keys_path).change(identity, revoked_us=now_us())
    call.tell({"id": key.id, "name": key.name, "state": "revoked"}, f"{key.id} of {key.name} is revoked")


def listed(call: Call) -> None:
    """Show the keys, and when each was used last, roughly; none shows its secret."""
    from lodestream.app import now_us
    from lodestream.cli.output import when_us
    from lodestream.security.key_use import KeyUse, use_path
    from lodestream.security.keys import KeyStore

    now = now_us()
    path = call.app().keys_path
    found, used = KeyStore(path).listed(), KeyUse(use_path(path), now_us).last()
    if call.json:
        told = [_plain(key) | {"state": key.state(now), "used_us": used.get(key.id)} for key in found]
        call.emit({"keys": told})
        return
    rows = [
        (key.id, key.name, " ".join(key.scopes), key.state(now), when_us(key.created_us),
         when_us(key.expires_us) if key.expires_us is not None else "never",
         when_us(used[key.id]) if key.id in used else "never")
        for key in found
    ]  # fmt: skip
    call.table(("id", "name", "scopes", "state", "created", "expires", "used"), rows)


def _until(text: str, now: int) -> int | None:
    from lodestream.errors import ConfigError
    from lodestream.project.values import parse_duration

    if text == "never":
        return None
    try:
        return now + parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{error}; write a number and a unit, such as 90 days, or never", value=text) from None


def _own_url(app: App) -> str:
    """Where this machine reaches the server. Raises ConfigError when that says nothing of others."""
    from lodestream.errors import ConfigError

    settings = app.serving()
    if settings.host in ("0.0.0.0", "::") or not settings.port:
        fix = "say it: --url https://lake.example.com"
        raise ConfigError("settings do not say where clients reach the server", host=settings.host, fix=fix)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls else 'http'}://{host}:{settings.port}"


def _refuse_what_is_there(path: str) -> None:
    from lodestream.errors import ConfigError

    if os.path.lexists(path) or not os.path.isdir(os.path.dirname(path) or "."):
        reason = "it is there already" if os.path.lexists(path) else "there is no such folder"
        raise ConfigError("profile cannot be written", file=path, reason=reason, fix="name a new file")


def _write_profile(path: str, endpoint: str, text: str, key: ApiKey) -> None:
    """A file that only its owner can read, in the form that every client of Delta Sharing takes."""
    from lodestream.cli.output import when_us

    told = {"shareCredentialsVersion": 1, "endpoint": endpoint, "bearerToken": text}
    if key.expires_us is not None:
        told["expirationTime"] = when_us(key.expires_us)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(told, indent=2) + "\n")


def _show(call: Call, text: str, key: ApiKey) -> None:
    if call.json:
        call.emit({"key": text} | _plain(key))
        return
    call.say("this key is shown once; keep it where secrets are kept")
    call.print(text)


def _plain(key: ApiKey) -> dict[str, object]:
    from dataclasses import asdict

    kept = ("digest", "stored_key", "server_key")
    return {name: value for name, value in asdict(key).items() if name not in kept and value not in (None, ())}


for _name, _function, _words in (
    ("create", create, "Make a key."),
    ("list", listed, "Show the keys."),
    ("rotate", rotate, "Make a key in the place of another."),
    ("revoke", revoke, "Refuse a key from now on."),
):
    app.command(_name, short_help=_words)(verb(_function))
