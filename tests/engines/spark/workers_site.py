"""A project whose stages run in Spark's Python workers, with changes and a history that is looked up."""

from __future__ import annotations

import json
import random

NOTES = {
    "lodestream.yaml": "project: notes\nlake: lake\n",
    "tables/bronze/notes.yaml": """
source: {files: {path: data/notes, settle: 0}}
format: json
keep_raw: true
columns: {id: string, text: string, at: timestamp, amount: bigint}
""",
    "functions/clean.py": """
import pyarrow as pa
import pyarrow.compute as pc

def tidy(rows):
    texts = rows.column("text").to_pylist()
    if "boom" in texts:
        raise ValueError("boom")
    rank = pc.rank(rows.column("amount"), tiebreaker="min")  # of the whole batch
    rows = rows.append_column("rank", rank.cast(pa.int64()))
    rows = rows.append_column("words", pa.array([len((text or "").split()) for text in texts], pa.int32()))
    return rows.filter(pc.not_equal(pc.fill_null(rows.column("text"), "?"), "")).drop_columns(["_ingest_time"])
""",
    "tables/silver/tidy.yaml": """
from: stream(bronze.notes)
python: clean:tidy
columns: {id: string, text: string, at: timestamp, amount: bigint, words: int, rank: bigint}
derive: {share: 100 / words}
expect:
  paid: {that: amount > -3, else: drop}
  python: {that: amount < 9, else: quarantine}
  worded: {that: words < 6, else: warn}
event_time: {column: at, delay: 20 seconds}
dedup: {keys: [id]}
""",
    "tables/silver/known.yaml": """
from: stream(silver.tidy)
enrich:
  - language: {column: text, languages: [en, de]}
  - sentiment: {column: text, language: language}
  - pii: {column: text, into: safe_text}
select: [id, at]
""",
    "tables/silver/last.yaml": """
from: stream(bronze.notes)
derive: {size: length(text)}
expect: {short: {that: amount is not null, else: drop}}
enrich: {language: {column: text}}
changes: {keys: [id], sequence_by: at, delete_when: amount < 0}
""",
    "tables/silver/history.yaml": """
from: stream(bronze.notes)
select: [id, at, amount]
changes: {keys: [id], sequence_by: at, delete_when: text = 'ok', type: 2}
""",
    "tables/gold/words.yaml": """
from: stream(bronze.notes)
skip_silver: true
python: clean:tidy
columns: {id: string, at: timestamp, words: int}
event_time: {column: at, delay: 10 seconds}
enrich: {lookup: {table: silver.history, on: id, as_of: at, columns: {amount: amount_then}}}
window: {every: 1 minute}
group_by: [words, amount_then]
measures: {notes: count(*)}
emit: updates
""",
}
TEXTS = (
    "I love this kettle, it is wonderful!", "Der Zug in die Stadt fährt um neun Uhr ab.", "This is a terrible mistake.",
    "Write to joe@example.com or call +49 30 901820.", "", "boom", None, "ok", "x" * 100_001,
)  # fmt: skip


def notes(seed, count):
    """Lines of a file: texts of all kinds, some without a time, some torn, some again."""
    rng = random.Random(seed)
    lines = []
    for i in range(count):
        second = 40 * seed + i // 2 + rng.randint(-5, 5)
        row = {
            "id": f"n{rng.randrange(12)}" if rng.random() < 0.5 else f"n{seed}-{i}",
            "text": TEXTS[i] if i < len(TEXTS) else rng.choice(TEXTS[:-1]),
            "amount": rng.choice([1, 5, 9, -2, -7, None]),
            "at": None if rng.random() < 0.05 else f"2026-01-01T10:{second // 60 % 60:02}:{second % 60:02}Z",
        }  # fmt: skip
        lines.append(json.dumps(row) if rng.random() > 0.05 or i < len(TEXTS) else '{"id": "torn')
    return "".join(line + "\n" for line in lines)
