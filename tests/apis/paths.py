"""Strings that try to become another path than the one that was meant."""

import itertools
import urllib.parse

_UP = ["../", "..\\", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "%2e%2e%5c", "..%252f", "%252e%252e%252f", "..%c0%af",
       "..%ef%bc%8f", "....//", "..;/", "..%00/", "%c0%ae%c0%ae/", "..%u2215", "．．／", "..\u2215"]  # fmt: skip
_TARGETS = ["etc/passwd", "lodestream.yaml", "_lodestream/access/keys.json", "_delta_log/00000000000000000000.json",
            "secret.txt"]  # fmt: skip
_ABSOLUTE = [
    "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "file://localhost/etc/passwd",
    "\\\\host\\share", "C:\\windows\\win.ini", "C:/windows/win.ini", "/proc/self/environ", "/dev/stdin",
    "~/.ssh/id_rsa",
    "gold/../../etc/passwd", "gold.orders/../../../etc/passwd", "gold.orders%00", "gold.orders%00.json",
    "gold.orders.", "gold.orders ", " gold.orders", "gold.orders\t", "gold.orders%0a", "gold.orders%0d%0aX-Y: z",
    "gold..orders", ".gold.orders", "gold/orders", "gold.orders/", "gold.orders;x", "gold.orders#x", "gold.orders'--",
    'gold."orders"', "gold.orders$x", "gold.${env:HOME}", "gold.{orders}", "gold.*", "gold.?", "gold.[a-z]*", "con",
    "nul", "gold.nul", "s3://bucket/x", "http://127.0.0.1/", "gold.orders@1", "gold.__quarantine", "gold._delta_log",
    "_lodestream.access", "bronze._lodestream", "gold.." + "a" * 300, "gold." + "a" * 5000, "%ff%fe", "%00", "%",
    "%zz", "\u202egold.orders", "gold.orders\u200b", "ｇｏｌｄ.orders", "gold.ord\u0065\u0301rs",
]  # fmt: skip
TRAVERSALS = [
    *(up * count + target for up, count, target in itertools.product(_UP, (1, 6), _TARGETS)), *_ABSOLUTE
]  # fmt: skip


def url_path(text: str) -> str:
    """The string as it can stand in a URL: what is percent-encoded stays as it is."""
    return urllib.parse.quote(text, safe="/%:;@$'{}*[]~.,!()&=+\\\"")
