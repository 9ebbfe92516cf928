"""A lake's disk in an object store: ADLS Gen2 over its Blob endpoint, or S3 and what speaks like it.

Every write is one request that is durable when it is answered, and a new file is one that the store itself refuses when
the name is taken (`If-None-Match: *`). An answer can be lost, or a request arrive twice or late, so a refusal proves
nothing by itself: what stands under the name is read back, and when it is what we sent, we were the ones who wrote it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, cast

from lodestream.errors import ConfigError, LodestreamError, MissingDriverError, TransientError
from lodestream.lake.copies import Copies
from lodestream.lake.disk import Data, Stored
from lodestream.lake.excerpts import write_excerpt
from lodestream.project.lakes import StoreSettings, parts_of
from lodestream.project.values import parse_duration

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureConfig, ObjectStore, S3Config

_TRIES = 5
_WHOLE_BYTES = 1 << 20
"""A file up to this size is fetched whole: one request is worth as much as the bytes of so many."""
_STATUS = re.compile(r"status code: (\d{3})")
_QUERY = re.compile(r"\?[^\s\"']*")
_PASSING = (408, 409, 425, 429)
"""Answers that another try may change, of those that blame the request."""
_MACHINE = re.compile(r"https?://169\.254\.")
"""Where a machine of a cloud says who it is, which is asked when nothing else does."""
_CREDENTIALS = {
    "s3": "set access_key_id and secret_access_key under lake:, or the variables AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY; a machine of AWS needs a role",
    "abfss": "set account_key, sas_token, or tenant_id, client_id and client_secret under lake:, or the variable "
    "AZURE_STORAGE_ACCOUNT_KEY; a machine of Azure needs a managed identity",
}
_UNWELCOME = (401, 403)
_MISSING_STORE = ("NoSuchBucket", "ContainerNotFound", "FilesystemNotFound")


class ObjectDisk:
    """Files of a lake in an object store; paths are URLs below the lake's.

    Args:
        lake: `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH` or `s3://BUCKET/PATH`.
        store: an obstore of the container or bucket.
        home: folder of this machine that stands for the lake's root.
        settings: how the store is reached. What is pickled takes them along, credentials too.
    """

    atomic = True

    def __init__(self, lake: str, store: ObjectStore, home: str, settings: StoreSettings) -> None:
        import obstore

        self.settled: set[str] = set()
        self.settings = settings
        self._lake, self._store, self._home = lake, store, home
        scheme, _, rest = lake.partition("://")
        self._root = f"{scheme}://{rest.partition('/')[0]}/"
        self._calls = obstore
        self._copies = Copies(home, settings.copies_bytes_max, self._fetch)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_once, (self._lake, self.settings, self._home)

    def write(self, path: str, data: Data) -> None:
        """See `Disk.write`; durable at once."""
        for left in reversed(range(_TRIES)):
            try:
                self._put(path, data, "overwrite")
                return
            except TransientError:
                if not left:
                    raise

    def create(self, path: str, data: Data) -> None:
        """See `Disk.create`; durable at once.

        Raises:
            TransientError: it may or may not be there, and may still come to be.
        """
        for left in reversed(range(_TRIES)):
            try:
                self._put(path, data, "create")
                return
            except FileExistsError:
                if self._holds(path, data):
                    return
                raise
            except TransientError:
                if left:
                    continue
                with contextlib.suppress(TransientError):
                    if self._holds(path, data):
                        return
                raise

    def replace_with(self, path: str, data: Data) -> None:
        """See `Disk.replace_with`; a request that arrives late cannot undo what others have written since."""
        for left in reversed(range(_TRIES)):
            try:
                self._put(path, data, self._unchanged(path))
                return
            except FileExistsError:
                if self._holds(path, data):
                    return
            except TransientError:
                if not left:
                    raise
        raise TransientError("others write this file all the time", path=path)

    def fsync(self, path: str) -> None:
        """Nothing to do."""

    def sync_directory(self, path: str) -> None:
        """Nothing to do."""

    def make_directories(self, path: str) -> list[str]:
        """Nothing to do: folders are there when something is in them."""
        return []

    def link(self, source: str, target: str) -> None:
        """See `Disk.link`; a copy."""
        self.create(target, self.read(source))

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`; a copy, then the old name is taken away."""
        self.replace_with(target, self.read(source))
        self.unlink(source)

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`; S3 does not say whether there was a file."""
        with _translated(path):
            self._calls.delete(self._store, self._key(path))

    def read(self, path: str) -> bytes:
        """See `Disk.read`."""
        with _translated(path):
            return self._calls.get(self._store, self._key(path)).bytes().to_bytes()

    def list(self, path: str) -> list[str]:
        """See `Disk.list`."""
        key = self._key(path)
        with _translated(path):
            found = self._calls.list_with_delimiter(self._store, key or None)
        names = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return [os.path.basename(name) for name in names if name != key]

    def walk(self, path: str, *, deep: bool = True) -> Iterator[Stored]:
        """See `Disk.walk`; a thousand files or more a request."""
        key = self._key(path)
        start = len(key) + 1 if key else 0
        with _translated(path):
            if deep:
                pages: Iterable[Sequence[ObjectMeta]] = self._calls.list(self._store, f"{key}/" if key else None)
            else:
                pages = [self._calls.list_with_delimiter(self._store, key or None)["objects"]]
            for page in pages:
                for one in page:
                    if one["path"] != key:
                        written = int(one["last_modified"].timestamp()) * 1000
                        yield Stored(one["path"][start:], int(one["size"]), written)

    def size(self, path: str) -> int:
        """See `Disk.size`."""
        with _translated(path):
            return int(self._calls.head(self._store, self._key(path))["size"])

    def modified_ms(self, path: str) -> int:
        """When the file was written, milliseconds since 1970 by the store's clock, in whole seconds."""
        with _translated(path):
            found = self._calls.head(self._store, self._key(path))["last_modified"]
        return int(found.timestamp()) * 1000

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        try:
            self.size(path)
            return True
        except FileNotFoundError:
            with _translated(path):
                return any(self._calls.list(self._store, self._key(path), chunk_size=1))

    def copies(self, paths: Sequence[str]) -> Sequence[str]:
        """See `Disk.copies`; the copies are below the lake's home."""
        pairs = [(path, self.beside(path)) for path in paths]
        self._copies.have(pairs)
        return [copy for _, copy in pairs]

    def excerpts(self, files: Sequence[tuple[str, int]], columns: Collection[str]) -> Sequence[str]:
        """See `Disk.excerpts`: of small files whole copies, of others what the columns take, fetched by ranges."""
        told = hashlib.blake2b("\0".join(sorted(columns)).encode(), digest_size=8).hexdigest()
        sizes = dict(files)
        paths, whole, parts = [], [], []
        for path, size in files:
            copy = self.beside(path)
            if size <= _WHOLE_BYTES or self._copies.has(copy):
                whole.append((path, copy))
            else:
                copy = f"{copy}.{told}"
                parts.append((path, copy))
            paths.append(copy)

        def fetch(path: str, file: IO[bytes]) -> None:
            write_excerpt(file, sizes[path], columns, lambda start, end: self._range(path, start, end))

        self._copies.have(whole)
        self._copies.have(parts, fetch)
        return paths

    def beside(self, path: str) -> str:
        """See `Disk.beside`."""
        return f"{self._home}/{path.removeprefix(self._lake).strip('/')}".rstrip("/")

    def _put(self, path: str, data: Data, mode: Any) -> None:
        """One request; obstore itself asks again when it is refused for now, but not when no answer comes."""
        with _translated(path):
            self._calls.put(self._store, self._key(path), memoryview(data).cast("B"), mode=mode, use_multipart=False)

    def _unchanged(self, path: str) -> Any:
        """The mode of a `put` that works only while the file is as it is now."""
        try:
            with _translated(path):
                return {"e_tag": self._calls.head(self._store, self._key(path))["e_tag"]}
        except FileNotFoundError:
            return "create"

    def _holds(self, path: str, data: Data) -> bool:
        try:
            return memoryview(self.read(path)) == memoryview(data).cast("B")
        except FileNotFoundError:
            return False

    def _fetch(self, path: str, file: IO[bytes]) -> None:
        with _translated(path):
            for piece in self._calls.get(self._store, self._key(path)):
                file.write(piece)

    def _range(self, path: str, start: int, end: int) -> bytes:
        with _translated(path):
            return self._calls.get_range(self._store, self._key(path), start=start, end=end).to_bytes()

    def _key(self, path: str) -> str:
        if not path.startswith(self._root):
            raise ValueError(f"not in this store: {path}")
        return path[len(self._root) :].strip("/")


def open_object_disk(lake: str, settings: StoreSettings, home: str) -> ObjectDisk:
    """The disk of a lake in an object store.

    Args:
        lake: its URL, without a slash at the end.
        settings: with values in the place of references.
        home: folder of this machine that stands for the lake.

    Raises:
        MissingDriverError: obstore is not installed.
        ConfigError: it is the URL of no store that is known, or a setting is not possible.
    """
    parts = parts_of(lake)
    if parts is None:
        fix = "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH or s3://BUCKET/PATH"
        raise ConfigError("no such kind of store", lake=lake.partition("://")[0] + "://…", fix=fix)
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, S3Store
    except ImportError as error:
        text = "a lake in an object store needs a package: pip install 'lodestream[stores]'"
        raise MissingDriverError(text, missing="obstore") from error
    patience = timedelta(microseconds=parse_duration(settings.patience))
    more: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(microseconds=parse_duration(settings.timeout)),
            "allow_http": (settings.endpoint or "").startswith("http://"),
        },
        "retry_config": {"max_retries": 30, "retry_timeout": patience},
    }  # fmt: skip
    try:
        if "bucket" in parts:
            store: ObjectStore = S3Store(parts["bucket"], config=cast("S3Config", _given(_s3(settings))), **more)
        else:
            store = AzureStore(parts["container"], config=cast("AzureConfig", _given(_azure(settings, parts))), **more)
    except (BaseError, ValueError) as error:
        raise ConfigError("settings of the lake's store are not possible", reason=_reason(error)) from error
    return ObjectDisk(lake, store, home, settings)


@functools.lru_cache(maxsize=8)
def _opened_once(lake: str, settings: StoreSettings, home: str) -> ObjectDisk:
    """The disk in a process that it was sent to, with the connections that it has there."""
    return open_object_disk(lake, settings, home)


def delta_options(lake: str, settings: StoreSettings) -> dict[str, str]:
    """The same settings in the words of delta-rs: its `storage_options` for a lake in an object store."""
    parts = parts_of(lake) or {}
    named = _given(_s3(settings)) if "bucket" in parts else _given(_azure(settings, parts))
    prefix = "aws_" if "bucket" in parts else "azure_storage_"
    told = {prefix + name: str(value).lower() if isinstance(value, bool) else value for name, value in named.items()}
    return told | {"allow_http": str((settings.endpoint or "").startswith("http://")).lower()}


def _s3(settings: StoreSettings) -> dict[str, Any]:
    return {
        "region": settings.region, "access_key_id": settings.access_key_id,
        "secret_access_key": settings.secret_access_key, "session_token": settings.session_token,
        "endpoint": settings.endpoint, "virtual_hosted_style_request": settings.endpoint is None,
        "conditional_put": "etag",
    }  # fmt: skip


def _azure(settings: StoreSettings, parts: dict[str, str]) -> dict[str, Any]:
    account, suffix = parts["account"], parts["suffix"]
    elsewhere = None if suffix == "core.windows.net" else f"https://{account}.blob.{suffix}"
    return {
        "account_name": account, "account_key": settings.account_key, "sas_key": settings.sas_token,
        "tenant_id": settings.tenant_id, "client_id": settings.client_id, "client_secret": settings.client_secret,
        "endpoint": settings.endpoint or elsewhere,
    }  # fmt: skip


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not None}


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """Errors of obstore as ours. Its messages hold URLs; what stands behind a `?` there may be a signature."""
    from obstore import exceptions as told

    try:
        yield
    except FileNotFoundError as error:
        if any(code in str(error) for code in _MISSING_STORE):
            fix = "make it, or correct the lake's URL"
            raise ConfigError("no such container or bucket", path=path, fix=fix) from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    except (told.AlreadyExistsError, told.PreconditionError) as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
    except told.BaseError as error:
        status = int(found[1]) if (found := _STATUS.search(str(error))) else 0
        if _MACHINE.search(str(error)):
            raise _nobody(path, status, error) from None
        if status in _UNWELCOME or isinstance(error, told.PermissionDeniedError | told.UnauthenticatedError):
            fix = "check the credentials in lodestream.yaml, and the rights that they have on the container or bucket"
            raise ConfigError("store refuses us", path=path, reason=_reason(error), fix=fix) from None
        if (400 <= status < 500 and status not in _PASSING) or isinstance(error, told.NotSupportedError):
            raise ConfigError("store refuses the request", path=path, reason=_reason(error)) from None
        raise TransientError("store does not answer", retry_after_s=5.0, path=path, reason=_reason(error)) from None


def _nobody(path: str, status: int, error: Exception) -> LodestreamError:
    """Of a request that was never made, as nothing says who we are. Where a machine can say it, it may later."""
    told: dict[str, Any] = {"path": path, "fix": _CREDENTIALS[path.partition("://")[0]], "reason": _reason(error)}
    if 400 <= status < 500 and status not in _PASSING:
        return ConfigError("no credentials for the store", **told)
    return TransientError("no credentials for the store", retry_after_s=5.0, **told)


def _reason(error: Exception) -> str:
    return _QUERY.sub("?…", str(error).partition("\n")[0])[:300]
