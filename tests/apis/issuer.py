"""An identity provider under the tests' control: good tokens, and any other; it signs whatever bytes it is given."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import time
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

AUDIENCE = "api://lodestream"
TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
OTHER_TENANT = "11111111-2222-3333-4444-555555555555"
PERSON = "0b5cbf1f-9c0e-4ea1-8f7c-5b7f2f0b8f11"


def b64(content):
    content = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def rsa_key(bits=2048):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key():
    return ec.generate_private_key(ec.SECP256R1())


def pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def der(key):
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def jwk(key, kid, **more):
    numbers = key.public_key().public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        found = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    else:
        found = {"kty": "EC", "crv": "P-256"} | {
            name: b64(value.to_bytes(32, "big")) for name, value in (("x", numbers.x), ("y", numbers.y))
        }
    return found | {"kid": kid} | more


def signature(algorithm, key, told):
    if algorithm.startswith("HS"):
        return hmac.digest(key, told, f"sha{algorithm[2:]}")
    kind = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(algorithm[2:])
    if algorithm.startswith("RS"):
        return key.sign(told, padding.PKCS1v15(), kind)
    if algorithm.startswith("PS"):
        return key.sign(told, padding.PSS(padding.MGF1(kind), hashlib.sha256().digest_size), kind)
    if algorithm.startswith("ES"):
        return b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(key.sign(told, ec.ECDSA(kind))))
    return b""


class Issuer:
    """Serves its metadata and keys on loopback; `asked` has the paths that were asked for."""

    def __init__(self):
        self.keys = {"first": rsa_key(), "curve": ec_key()}
        self.published = [jwk(self.keys["first"], "first", use="sig", alg="RS256"), jwk(self.keys["curve"], "curve")]
        self.asked, self.answer, self.metadata = [], None, {}
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked.append(self.path)
                status, headers, body = issuer._answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.base}/realm"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path):
        if self.answer is not None:
            return self.answer(path)
        if path.endswith("/.well-known/openid-configuration"):
            found = {"issuer": self.base + path.removesuffix("/.well-known/openid-configuration")}
            found |= {"jwks_uri": f"{self.base}/keys"} | self.metadata
            return 200, {}, json.dumps(found).encode()
        if urlsplit(path).path == "/keys":
            return 200, {}, json.dumps({"keys": self.published}).encode()
        return 404, {}, b"{}"

    def claims(self, **changes):
        now = int(time.time())
        found = {
            "iss": self.url, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "nbf": now - 5, "iat": now - 5,
            "client_id": "console", "scope": "openid lake.read",
        }  # fmt: skip
        return {name: value for name, value in (found | changes).items() if value is not None}

    def entra_claims(self, version="2.0", tenant=TENANT, **changes):
        first = version == "1.0"
        issuer = f"https://sts.windows.net/{tenant}/" if first else f"{self.base}/{tenant}/v2.0"
        found = self.claims(
            iss=issuer, ver=version, tid=tenant,
            oid=PERSON, sub="pairwise", scp="Lake.Read", scope=None, client_id=None,
        ) | {("appid" if first else "azp"): "console"}  # fmt: skip
        return {name: value for name, value in (found | changes).items() if value is not None}

    def token(self, claims=None, *, alg="RS256", key=None, kid="first", typ="at+jwt", raw=None, header=None, **more):
        """A token; `raw` are the bytes of the claims, `header` the bytes of the header, `more` goes into the header."""
        claims = self.claims() if claims is None else claims
        named = {
            name: value for name, value in {"alg": alg, "kid": kid, "typ": typ, **more}.items() if value is not None
        }
        head = b64(json.dumps(named) if header is None else header)
        told = f"{head}.{b64(json.dumps(claims) if raw is None else raw)}"
        key = key if key is not None else self.keys["curve" if str(alg).startswith("ES") else "first"]
        return f"{told}.{b64(signature(alg, key, told.encode()) if isinstance(alg, str) else b'x')}"
