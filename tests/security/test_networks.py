"""The client is the last address that no trusted proxy has, however it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.security.networks import address, client, is_in, networks

PROXIES = networks(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("8.8.8.8", [], "8.8.8.8"),
        ("8.8.8.8", ["1.1.1.1"], "8.8.8.8"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["9.9.9.9", "1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("::ffff:10.0.0.1", ["::ffff:1.1.1.1"], "1.1.1.1"),
        ("fd00::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["1.1.1.1:99"], "1.1.1.1"),
        ("10.0.0.1", ["1.1.1.1, unknown"], None),
        ("10.0.0.1", [""], None),
        ("", [], None),
        ("fe80::1%eth0", [], "fe80::1"),
    ],
)
def test_client(peer, forwarded, found):
    seen = client(peer, forwarded, PROXIES)
    assert (str(seen) if seen else None) == found


@given(st.lists(st.ip_addresses().map(str), max_size=5), st.ip_addresses(v=4))
def test_whatever_a_client_writes_its_own_address_stands(written, own):
    text = str(own)
    if is_in(address(text), PROXIES):
        return
    assert client("10.0.0.1", [", ".join([*written, text])], PROXIES) == own


def test_networks():
    assert is_in(address("::ffff:10.1.1.1"), PROXIES)
    assert not is_in(address("11.0.0.1"), PROXIES)
    assert not is_in(None, PROXIES)
    with pytest.raises(ValueError, match="host bits"):
        networks(["10.0.0.1/8"])
