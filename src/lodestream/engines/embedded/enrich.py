"""Enrichment inside a flow: columns computed in line, and rows that wait for the answer of somebody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.asking import Asker
from lodestream.engines.embedded.ledger import Known, Ledger, ledger_path, question_key
from lodestream.engines.embedded.passing import INDEX, Pass
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import CorruptionError
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Annotate, Ask, FlowPlan
from lodestream.model.table import ENRICH_ERROR, TableName
from lodestream.ports.enricher import Enriched, Enricher, InlineEnricher, SlowEnricher

TIMEOUT = "timeout"
"""Reason of a row that waited too long."""


class Counted(TypedDict):
    """Fields of a batch plan."""

    answers: int
    expired_us: int


class Enrichment:
    """The enrichers of one flow, each made when it is first needed.

    Attributes:
        wake: called, on another thread, when rows that wait have answers.
    """

    def __init__(self, plan: FlowPlan, around: Surroundings) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._table, self._around = plan.table.name, around
        self._step = plan.step(Ask)
        self._inline: dict[int, Enricher] = {}
        self._desk: _Desk | None = None

    def open(self, state: FlowState, epoch: int) -> None:
        """Ask for what waits in a state that was just loaded, and for nothing else."""
        if self._step is None:
            return
        if self._desk is not None and (self._desk.epoch != epoch or self._desk.broken):
            self._desk.close()
            self._desk = None
        if self._desk is None:
            self._desk = _Desk(self._step, self._table, epoch, self._around, lambda: self.wake())
        self._desk.begin(state)

    def room(self, state: FlowState) -> int | None:
        """How many further rows may be read, None for any number.

        Raises:
            LodestreamError: asking broke.
        """
        return None if self._desk is None else self._desk.room(state)

    def has_news(self, state: FlowState, clock_us: int) -> bool:
        """Whether a row that waits could go on now."""
        return self._desk is not None and self._desk.has_news(state, clock_us)

    def counted(self, clock_us: int) -> Counted:
        """What a batch that is planned now says of answers: which count, and who has waited too long."""
        return {"answers": -1, "expired_us": 0} if self._desk is None else self._desk.counted(clock_us)

    def annotate(self, passing: Pass, step: Annotate) -> None:
        """Add the columns of an in-line enricher; rows for which it has none are set aside with its reason."""
        key = id(step.enricher)
        if key not in self._inline:
            self._inline[key] = self._around.enricher(step.enricher)
        enricher = self._inline[key]
        assert isinstance(enricher, InlineEnricher)
        rows = passing.settle()
        found = enricher.enrich(rows.select(list(step.reads)))
        for field in to_arrow(step.schema):
            passing.put(field.name, found.columns.column(field.name).cast(field.type))
        if found.errors:
            reasons = reasons_of(step, found)
            mask = np.zeros(len(rows), np.bool_)
            mask[list(reasons)] = True
            passing.reject(mask, "quarantine", [reasons[i] for i in np.flatnonzero(mask).tolist()])

    def ask(self, passing: Pass, step: Ask) -> None:
        """Let the batch's rows wait, and those go on that the batch's plan says have an answer or waited too long.

        Raises:
            CorruptionError: the plan counts answers that are not there.
        """
        assert self._desk is not None
        self._desk.run(passing, step)

    def questions(self, rows: pa.Table) -> list[str]:
        """The identities of the questions that rows ask, as they stand in front of the step."""
        return [] if self._desk is None else self._desk.keys(rows)

    def forget(self, questions: set[str]) -> None:
        """Take what these questions came to out of the ledger, durably."""
        if self._desk is not None:
            self._desk.erase(questions)

    def committed(self) -> None:
        """The last batch is durable: ask what it brought."""
        if self._desk is not None:
            self._desk.committed()

    def close(self) -> None:
        """End asking; twice is harmless."""
        if self._desk is not None:
            self._desk.close()
        for enricher in self._inline.values():
            enricher.close()


def reasons_of(step: Annotate, found: Enriched) -> dict[int, list[str]]:
    """Why rows that an in-line enricher has nothing for are set aside, by row number."""
    return {i: [f"enrich:{step.enricher.name}:{reason}"] for i, reason in found.errors}


class _Desk:
    """Where the rows of one flow wait: knows its ledger, and has questions asked; its methods as `Enrichment` has them.

    Args:
        step: what is asked.
        table: the flow's table.
        epoch: its rebuild generation.
        around: the flow's surroundings.
        told: called, on another thread, when there are new answers.
    """

    def __init__(self, step: Ask, table: TableName, epoch: int, around: Surroundings, told: Callable[[], None]) -> None:
        enricher = around.enricher(step.enricher)
        assert isinstance(enricher, SlowEnricher)
        self.epoch, self._step, self._enricher, self._clock = epoch, step, enricher, around.clock
        self._ledger = Ledger(around.disk, around.lake, table, epoch, around.clock)
        folder = ledger_path(around.lake, table)
        self._asker = Asker(step, enricher, self._ledger, folder, around.disk, told)
        self._fresh: dict[str, str] = {}
        self._answered: set[str] = set()

    @property
    def broken(self) -> bool:
        """Whether asking has ended because of an error."""
        return self._asker.error is not None

    def begin(self, state: FlowState) -> None:
        """Ask for all that waits in a state that was just loaded, and for nothing else."""
        state.answers = max(state.answers, 0)
        rows = state.waiting.rows
        texts = self._enricher.questions(rows) if rows is not None and len(rows) else []
        self._asker.want(dict(zip(state.waiting.questions, texts, strict=True)), only=True)

    def room(self, state: FlowState) -> int:
        """How many further rows may wait; raises what broke asking."""
        self._asker.check()
        return max(0, self._step.waiting_max - len(state.waiting))

    def has_news(self, state: FlowState, clock_us: int) -> bool:
        """Whether a row that waits could go on now."""
        if not len(state.waiting):
            return False
        if int(state.waiting.since_us[0]) <= self._expired_us(clock_us):
            return True
        answered = self._ledger.between(state.answers, self._ledger.refresh())
        return bool(answered) and not answered.isdisjoint(state.waiting.questions)

    def counted(self, clock_us: int) -> Counted:
        """The groups of answers that there are now, and since when nobody waits longer."""
        return {"answers": self._ledger.refresh(), "expired_us": self._expired_us(clock_us)}

    def _expired_us(self, clock_us: int) -> int:
        return max(0, clock_us - self._step.timeout_us)

    def run(self, passing: Pass, step: Ask) -> None:
        """See `Enrichment.ask`."""
        batch, state = passing.batch, passing.state
        if batch.answers > self._ledger.upto and batch.answers > self._ledger.refresh():
            raise CorruptionError(
                "answers are missing; restore the folder, or rebuild the table", folder="answers",
                planned=batch.answers, found=self._ledger.upto,
            )  # fmt: skip
        rows = passing.settle().drop_columns([INDEX])
        texts = self._enricher.questions(rows)
        keys = [question_key(step.enricher.name, step.version, text) for text in texts]
        before = state.waiting.take_in(rows, keys, batch.clock_us)
        leaving = self._leaving(batch, state, before, keys)
        gone, questions, stayed, left = state.waiting.release(leaving, before)
        known = [self._ledger.known(key, batch.answers) for key in questions]
        passing.out.rows = self._completed(gone, known, step).append_column(
            INDEX, pa.array(np.zeros(len(gone), np.int64))
        )
        passing.out.changes.waiting, passing.out.changes.left = stayed, left
        state.answers = batch.answers
        passing.out.count("open", len(stayed) - len(left))
        self._count(passing, known, sum(self._ledger.known(key, batch.answers) is not None for key in keys))
        stay = ~leaving[before:]
        self._fresh = {key: text for key, text, stays in zip(keys, texts, stay.tolist(), strict=True) if stays}
        self._answered = set(questions)

    def keys(self, rows: pa.Table) -> list[str]:
        """See `Enrichment.questions`."""
        texts = self._enricher.questions(rows)
        return [question_key(self._step.enricher.name, self._step.version, text) for text in texts]

    def erase(self, questions: set[str]) -> None:
        """See `Enrichment.forget`."""
        self._asker.forget(questions)
        self._ledger.erase(questions)

    def committed(self) -> None:
        """The batch of the last `run` is durable: ask what it brought."""
        self._asker.forget(self._answered)
        self._asker.want(self._fresh)

    def close(self) -> None:
        """End asking; twice is harmless."""
        self._asker.close()

    def _leaving(self, batch: BatchPlan, state: FlowState, before: int, keys: list[str]) -> np.ndarray:
        leaving: np.ndarray = state.waiting.since_us <= batch.expired_us
        answered = self._ledger.between(state.answers, batch.answers)
        if answered and before:
            old = state.waiting.questions[:before]
            leaving[:before] |= np.fromiter((key in answered for key in old), np.bool_, before)
        ledger, upto = self._ledger, batch.answers
        leaving[before:] |= np.fromiter((ledger.known(key, upto) is not None for key in keys), np.bool_, len(keys))
        return leaving

    def _completed(self, rows: pa.Table, known: list[Known | None], step: Ask) -> pa.Table:
        """The rows with the columns of their answers, or with the reason why there is none."""
        places = [i for i, one in enumerate(known) if one is not None and one.answer is not None]
        texts = [one.answer for one in known if one is not None and one.answer is not None]
        at = np.full(len(rows), -1, np.int64)
        at[places] = np.arange(len(places))
        taken = pa.array(at, mask=at < 0)
        decoded = self._enricher.decode(texts)
        for field in to_arrow(step.schema.without(ENRICH_ERROR)):
            column = decoded.columns.column(field.name).combine_chunks().take(taken)
            rows = _with(rows, field.name, column)
        reasons = [TIMEOUT if one is None else one.refusal for one in known]
        for i, reason in decoded.errors:
            reasons[places[i]] = reason
        return _with(rows, ENRICH_ERROR, pa.array(reasons, pa.string()))

    def _count(self, passing: Pass, known: list[Known | None], at_once: int) -> None:
        out = passing.out
        answers = sum(one is not None and one.answer is not None for one in known)
        timeouts = sum(one is None for one in known)
        out.count("answered", answers)
        out.count("timeout", timeouts)
        out.count("refused", len(known) - answers - timeouts)
        out.count("from_ledger", at_once)


def _with(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.append_column(name, column) if at < 0 else rows.set_column(at, name, column)
