"""Sentences of our own, with what is right about them: small sets, that show that an enricher works, not how well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestream.app import open_project
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.ports.enricher import InlineEnricher

LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "en": ("The train to the city leaves at nine.", "Could you send me the invoice again?", "It rained all week long."),
    "de": ("Der Zug in die Stadt fährt um neun ab.", "Können Sie mir die Rechnung noch einmal schicken?",
           "Es hat die ganze Woche geregnet."),
    "fr": ("Le train pour la ville part à neuf heures.", "Pourriez-vous m'envoyer la facture encore une fois ?",
           "Il a plu toute la semaine."),
    "es": ("El tren a la ciudad sale a las nueve.", "¿Podría enviarme la factura otra vez?",
           "Llovió durante toda la semana."),
    "it": ("Il treno per la città parte alle nove.", "Potrebbe inviarmi di nuovo la fattura?",
           "Ha piovuto per tutta la settimana."),
    "pt": ("O trem para a cidade sai às nove.", "Você poderia me enviar a fatura novamente?",
           "Choveu durante a semana inteira."),
    "nl": ("De trein naar de stad vertrekt om negen uur.", "Kunt u mij de rekening nog een keer sturen?",
           "Het heeft de hele week geregend."),
    "pl": ("Pociąg do miasta odjeżdża o dziewiątej.", "Czy może mi pan jeszcze raz przesłać fakturę?",
           "Przez cały tydzień padał deszcz."),
    "tr": ("Şehre giden tren saat dokuzda kalkıyor.", "Faturayı bana tekrar gönderir misiniz?",
           "Bütün hafta boyunca yağmur yağdı."),
    "ru": ("Поезд в город отправляется в девять часов.", "Не могли бы вы прислать мне счёт ещё раз?",
           "Всю неделю шёл дождь."),
    "ja": ("町へ行く電車は九時に出ます。", "請求書をもう一度送っていただけますか。",
           "一週間ずっと雨が降っていました。"),
    "el": ("Το τρένο για την πόλη φεύγει στις εννέα.", "Μπορείτε να μου στείλετε ξανά το τιμολόγιο;",
           "Έβρεχε όλη την εβδομάδα."),
}  # fmt: skip

POSITIVE = (
    "I love this kettle.", "Great service, thank you!", "The best meal I have had in years.", "Works perfectly.",
    "The staff were kind and helpful.", "A wonderful little shop.", "I am very happy with it.", "Highly recommended!",
    "Not bad at all, quite good in fact.", "It made my day.", "Delivery was fast and the packaging was beautiful.",
    "My children adore it.", "Excellent value.", "What a pleasant surprise.", "I would buy it again.",
    "Finally a phone that I enjoy using.", "Superb sound.", "The view was amazing.", "It fixed my problem.",
    "Brilliant!",
)  # fmt: skip
NEGATIVE = (
    "I hate this kettle.", "Terrible service, never again.", "The worst meal I have had in years.", "It is broken.",
    "The staff were rude.", "A dirty, sad little shop.", "I am not happy with it.", "Avoid at all costs!",
    "Not good at all.", "It ruined my day.", "Delivery was late and the box was damaged.",
    "My children are scared of it.",
    "A waste of money.", "What a disappointment.", "I want my money back.", "It stopped after two days.",
    "Awful sound.", "The room smelled horrible.", "It caused more problems.", "Useless!",
)  # fmt: skip


def enriched(enricher: InlineEnricher, texts: list[str | None], **more: list[Any]) -> dict[str, list[Any]]:
    found = enricher.enrich(pa.table({"text": pa.array(texts, pa.string()), **more}))
    assert found.errors == ()
    columns: dict[str, list[Any]] = found.columns.to_pydict()
    return columns


class Notes:
    """A project: `bronze.notes` from JSON lines, `silver.notes` enriches them in line."""

    def __init__(self, root: Path, enrich: str) -> None:
        self.root, self.lake = root, str(root / "lake")
        for folder in ("in", "tables/bronze", "tables/silver"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "lodestream.yaml").write_text("project: notes\n")
        (root / "tables/bronze/notes.yaml").write_text(
            "source: {files: {path: in, settle: 0 seconds}}\nformat: json\ncolumns: {id: bigint, text: string}\n"
        )
        (root / "tables/silver/notes.yaml").write_text(f"from: stream(bronze.notes)\n{enrich}")

    def run(self, *lines: str) -> list[dict[str, Any]]:
        (self.root / "in" / "a.json").write_text("".join(line + "\n" for line in lines))
        with open_project(str(self.root)) as app:
            app.run()
            report = reconcile(str(self.root), self.lake, app.flows[TableName("silver", "notes")])
            assert report.problems == []
        return self.rows("silver/notes")

    def rows(self, name: str) -> list[dict[str, Any]]:
        table = DeltaTable.open(LocalDisk(), f"{self.lake}/{name}")
        assert table is not None
        return sorted(table.read(table.files()).to_pylist(), key=lambda row: row["_position"])
