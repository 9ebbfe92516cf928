"""Finds what tells who somebody is in a text (addresses, numbers) and puts a word in its place."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal, get_args

import phonenumbers
import pyarrow as pa
from pydantic import Field, field_validator

from lodestream.enrichers._texts import each_text
from lodestream.model.types import STRING, Column, DataType, Schema
from lodestream.ports import settings as base
from lodestream.ports.enricher import Enriched, EnricherWants
from lodestream.project.values import COLUMN

Kind = Literal["email", "iban", "card", "ip", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What is looked for, in the order in which it is: what an earlier kind has taken, a later one does not see."""

_EMAIL = re.compile(
    r"[^\W_](?:[\w.!#$%&'*+/=?^`{|}~-]{0,62}[\w+-])?@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_][\w-]{0,61}[^\W_]"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\w.,-])[2-6](?:[ -]?\d){11,18}(?![\w-])(?![.,]\d)")
_IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)(?!\w)")
_IP6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?![\w:])")
_LONG_GROUP = re.compile(r"[0-9A-Fa-f]{3}")
_VERSION = re.compile(r"(?:\bv|version|release)[ .]*$", re.IGNORECASE)
_CARD_BRANDS = (
    re.compile(r"4\d{12}(\d{3}){0,2}"),  # Visa
    re.compile(r"5[1-5]\d{14}|2(22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"),  # Mastercard
    re.compile(r"3[47]\d{13}"),  # American Express
    re.compile(r"(6011|65\d\d|64[4-9]\d)\d{12,15}"),  # Discover
    re.compile(r"3(0[0-5]|[689]\d)\d{11}"),  # Diners Club
    re.compile(r"35(2[89]|[3-8]\d)\d{12,15}"),  # JCB
    re.compile(r"62\d{14,17}"),  # UnionPay
    re.compile(r"(5[06-9]|6[0-9])\d{10,17}"),  # Maestro
)  # fmt: skip

Span = tuple[int, int]


class PiiSettings(base.Settings):
    """Which text is masked, what is looked for, and where the result goes."""

    column: str
    """Column with the text."""
    into: str | None = Field(default=None, pattern=COLUMN.pattern)
    """Name of the new column with the masked text; a second one, with `_pii` behind the name, lists the kinds that
    were found. Default: the column's name with `_masked`."""
    kinds: tuple[Kind, ...] = KINDS
    """What is looked for: `email`, `iban`, `card`, `ip`, `phone`."""
    regions: tuple[str, ...] = ()
    """Countries, such as `US` or `DE`, whose phone numbers are recognised as they are written at home. Numbers that
    begin with `+` and the country's code are recognised anyway. Each further region takes more other numbers for
    phone numbers."""
    replace: str = Field(default="[{kind}]", max_length=100)
    """What stands in the place of what was found; `{kind}` is its kind."""

    @field_validator("kinds")
    @classmethod
    def _some(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if not kinds:
            raise ValueError("name at least one kind")
        return kinds

    @field_validator("regions")
    @classmethod
    def _known(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(regions) - phonenumbers.SUPPORTED_REGIONS)
        if unknown:
            raise ValueError(f"not known regions, as ISO 3166 codes: {', '.join(unknown)}")
        return regions

    @property
    def masked(self) -> str:
        """Name of the column with the masked text."""
        return self.into or f"{self.column}_masked"


class PiiEnricher:
    """Patterns, and what a pattern alone cannot tell: check digits (Luhn, ISO 7064), address rules, numbering plans."""

    settings: ClassVar[type[base.Settings]] = PiiSettings

    def __init__(self, settings: PiiSettings) -> None:
        self._settings = settings
        finders: dict[Kind, Callable[[str], Iterator[Span]]] = {
            "email": _emails, "iban": _ibans, "card": _cards, "ip": _addresses, "phone": self._phones,
        }  # fmt: skip
        self._finders = [(kind, finders[kind]) for kind in KINDS if kind in settings.kinds]

    @classmethod
    def wants(cls, settings: base.Settings) -> EnricherWants:
        """One text column in; the masked text and the kinds that were found out."""
        assert isinstance(settings, PiiSettings)
        kinds = DataType("array", element=STRING)
        adds = Schema((Column(settings.masked, STRING), Column(f"{settings.masked}_pii", kinds)))
        return EnricherWants(((("column",), settings.column),), adds, ("string",))

    def enrich(self, rows: pa.Table) -> Enriched:
        """Each text masked."""
        found, errors = each_text(rows.column(self._settings.column), self.mask)
        masked = pa.array([one and one[0] for one in found], pa.string())
        kinds = pa.array([one and one[1] for one in found], pa.list_(pa.string()))
        name = self._settings.masked
        return Enriched(pa.table({name: masked, f"{name}_pii": kinds}), errors)

    def close(self) -> None:
        """Nothing is held."""

    def mask(self, text: str) -> tuple[str, list[str]]:
        """The masked text, and the kinds that were found, each once, in order of the alphabet."""
        taken: list[tuple[int, int, Kind]] = []
        for kind, finder in self._finders:
            for start, end in finder(text):
                if not any(start < one_end and one_start < end for one_start, one_end, _ in taken):
                    taken.append((start, end, kind))
        parts, at = [], 0
        for start, end, kind in sorted(taken):
            parts += [text[at:start], self._settings.replace.replace("{kind}", kind)]
            at = end
        return "".join([*parts, text[at:]]), sorted({kind for _, _, kind in taken})

    def _phones(self, text: str) -> Iterator[Span]:
        for region in (None, *self._settings.regions):
            for match in phonenumbers.PhoneNumberMatcher(text, region):
                opened = match.raw_string.startswith("(") and ")" not in match.raw_string
                yield match.start + opened, match.end


def _emails(text: str) -> Iterator[Span]:
    return (match.span() for match in _EMAIL.finditer(text))


def _ibans(text: str) -> Iterator[Span]:
    """Groups of letters and digits whose check digits (ISO 7064, modulo 97) are right."""
    for match in _IBAN.finditer(text):
        start, end = match.span()
        while end - start >= 15:
            plain = text[start:end].replace(" ", "")
            if _mod_97(plain):
                yield start, end
                break
            end = text.rfind(" ", start, end)  # the last group may be a word that follows
            if end < 0:
                break


def _mod_97(iban: str) -> bool:
    digits = "".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])
    return 15 <= len(iban) <= 34 and int(digits) % 97 == 1


def _cards(text: str) -> Iterator[Span]:
    """Numbers of a card brand whose check digit (Luhn) is right."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _luhn(digits) and any(brand.fullmatch(digits) for brand in _CARD_BRANDS):
            yield match.span()


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0


def _addresses(text: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses; four numbers that follow the word version are none."""
    for match in _IP4.finditer(text):
        if _is_address(match[0]) and not re.search(
            r"(?:\bv|version|release)[ .]*$", text[: match.start()], re.IGNORECASE
        ):
            yield match.span()
    for match in _IP6.finditer(text):
        found = match[0].rstrip(".")
        if _LONG_GROUP.search(found) and _is_address(found):  # a::b is more likely to be code
            yield match.start(), match.start() + len(found)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


component = PiiEnricher
