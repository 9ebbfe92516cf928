"""Avro, JSON Schema and Protobuf: what is a schema, when are two the same, and can one read what another wrote?"""

from __future__ import annotations

from collections.abc import Mapping

from lodestream.apis.registry.languages.avro import Avro
from lodestream.apis.registry.languages.json_schema import JsonSchema
from lodestream.apis.registry.languages.parsed import Language
from lodestream.apis.registry.languages.protobuf import Protobuf

LANGUAGES: Mapping[str, Language] = {"AVRO": Avro(), "JSON": JsonSchema(), "PROTOBUF": Protobuf()}
"""By the name that the API has for them."""
