"""What tells who somebody is gets masked; what only looks like it stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lodestream.enrichers.pii import PiiEnricher, PiiSettings
from tests.enrichers.inline import Notes, enriched

FOUND = {
    "email": ("joe@example.com", "anna.o'neill+news@mail.example.co.uk", "müller@straße.example",
              "x_1@a-b.example.org"),
    "iban": ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606",
             "NO93 8601 1117 947"),
    "card": ("4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "6011111111111117", "30569309025904",
             "3530111333300000", "2223003122003222"),
    "ip": ("192.168.12.7", "10.0.0.255", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a"),
    "phone": ("+49 30 901820", "+1 212-736-5000", "+44 20 7946 0958", "+33 1 42 68 53 00", "+81 3-3213-1111"),
}  # fmt: skip
AT_HOME = {"DE": "030 901820", "US": "(212) 736-5000", "FR": "01 42 68 53 00", "GB": "020 7946 0958"}
NOTHING = (
    "joe at example.com", "@handle", "a@b", "DE89 3704 0044 0532 0130 01", "GB82 WEST", "4111 1111 1111 1112",
    "9999 9999 9999 9995", "20241105-0042-7781", "256.1.1.1", "version 1.2.3.4", "v10.0.0.1", "1.2.3.4.5",
    "std::vector",
    "a::b", "12:30:45", "::1", "00:1b:44:11:3a:b7", "order 1234567", "2024-11-05", "€ 1,234.56",
    "ISBN 978-3-16-148410-0",
)  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in FOUND.items() for value in values])
@pytest.mark.parametrize("text", ["{}", "Write to {}, please.", "({})", "It is {}. Thanks"])
def test_it_is_masked_whole(kind: str, value: str, text: str) -> None:
    masked, kinds = PiiEnricher(PiiSettings(column="text")).mask(text.format(value))
    assert masked == text.format(f"[{kind}]")
    assert kinds == [kind]


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert PiiEnricher(PiiSettings(column="text")).mask(text) == (text, [])


@pytest.mark.parametrize("region", AT_HOME)
def test_numbers_as_they_are_written_at_home_are_known_by_region(region: str) -> None:
    text = f"call {AT_HOME[region]} now"
    assert PiiEnricher(PiiSettings(column="text")).mask(text) == (text, [])
    assert PiiEnricher(PiiSettings(column="text", regions=(region,))).mask(text) == ("call [phone] now", ["phone"])


def test_several_are_masked_each_where_it_stands() -> None:
    enricher = PiiEnricher(PiiSettings(column="text", into="safe", kinds=("email", "ip"), replace="***"))
    text = "a@b.example from 10.1.2.3, card 4111 1111 1111 1111, c@d.example"
    assert enriched(enricher, [text, None, "nothing"]) == {
        "safe": ["*** from ***, card 4111 1111 1111 1111, ***", None, "nothing"],
        "safe_pii": [["email", "ip"], None, []],
    }


def test_a_table_holds_the_masked_text_alone_when_only_that_is_selected(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "enrich: {pii: {column: text, into: safe}}\nselect: [id]\n")
    (row,) = notes.run(json.dumps({"id": 1, "text": "I am joe@example.com"}))
    assert (row["id"], row["safe"], row["safe_pii"]) == (1, "I am [email]", ["email"])
    assert "text" not in row
