"""A client of bare bytes: says what it is told to, and reads messages as they come."""

import base64
import hashlib
import hmac
import os
import socket
import struct


def message(tag: bytes, body: bytes = b"") -> bytes:
    return tag + struct.pack(">I", len(body) + 4) + body


def text(*parts: str) -> bytes:
    return b"".join(part.encode() + b"\0" for part in parts)


def startup(version: int = 0x30000, **options: str) -> bytes:
    told = struct.pack(">I", version) + text(*(part for pair in options.items() for part in pair)) + b"\0"
    return struct.pack(">I", len(told) + 4) + told


class Raw:
    """One connection."""

    def __init__(self, port: int, timeout: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def exactly(self, count: int) -> bytes:
        """So many bytes; fewer when the server ends the connection."""
        found = b""
        while len(found) < count:
            try:
                part = self.socket.recv(count - len(found))
            except ConnectionResetError:
                return found
            if not part:
                return found
            found += part
        return found

    def message(self) -> tuple[bytes, bytes] | None:
        head = self.exactly(5)
        if len(head) < 5:
            return None
        return head[:1], self.exactly(struct.unpack(">I", head[1:])[0] - 4)

    def until(self, *tags: bytes) -> list[tuple[bytes, bytes]]:
        """Messages up to one of these, or all until the end."""
        found = []
        while (one := self.message()) is not None:
            found.append(one)
            if one[0] in tags:
                break
        return found

    def sign_in(self, user: str, password: str, **options: str) -> list[tuple[bytes, bytes]]:
        """SCRAM-SHA-256; what came after it, up to ReadyForQuery."""
        self.send(startup(user=user, database="shop", **options))
        assert self.until(b"R")[-1][1][:4] == struct.pack(">I", 10)
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = f"n={user},r={nonce}"
        first = f"n,,{bare}".encode()
        self.send(message(b"p", text("SCRAM-SHA-256") + struct.pack(">I", len(first)) + first))
        told = self.message()
        assert told is not None
        if told[0] != b"R":
            return [told]
        answer = told[1][4:].decode()
        fields = dict(part.split("=", 1) for part in answer.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        client = hmac.digest(salted, b"Client Key", "sha256")
        without = f"c=biws,r={fields['r']}"
        signed = hmac.digest(hashlib.sha256(client).digest(), f"{bare},{answer},{without}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client, signed, strict=True))).decode()
        self.send(message(b"p", f"{without},p={proof}".encode()))
        return self.until(b"Z", b"E")


def fields(body: bytes) -> dict[str, str]:
    """The fields of an error."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}
