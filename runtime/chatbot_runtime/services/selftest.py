"""The self-test: built-in documents on every shard, one real question through the real path.

A difference between the wanted combination (the operator's hash, the model, the generation) and
the last passed one starts it as a job, so that one API process at a time runs it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from chatbot_core import names, slots
from chatbot_core.errors import Busy, ChatbotError, NotFound, Unavailable
from chatbot_core.runtime_config import Live, SelfTestResult
from chatbot_runtime.domain.model import Document, DocumentState, Job, JobKind
from chatbot_runtime.ports import EventLog, Jobs, LanguageModel
from chatbot_runtime.ports import Settings as StoredSettings
from chatbot_runtime.services.documents import DocumentService
from chatbot_runtime.services.health import SELF_TEST_KEY, Health
from chatbot_runtime.services.questions import Done, Meta, Piece, Question, Questions

log = logging.getLogger(__name__)

RETRY_S: Final = 5.0
_LEASE_S: Final = 180.0
_TEXT: Final = (
    "Lighthouse {index} of the self-test is called {name}.\n\n"
    "The lamp of lighthouse {name} shines in the colour amber."
)
_QUESTION: Final = "In which colour does the lamp of lighthouse {name} shine?"


class Pending(Exception):
    """The question cannot be asked yet, which is no failure of the service."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One combination; equal values need no second test."""

    wanted: str
    model_digest: str
    generation: int

    def result(self, passed: bool, failures: int, message: str) -> SelfTestResult:
        return SelfTestResult(
            wanted=self.wanted,
            model_digest=self.model_digest,
            generation=self.generation,
            passed=passed,
            consecutive_failures=failures,
            message=message,
        )

    def passed_in(self, result: SelfTestResult) -> bool:
        return result.passed and result == self.result(True, 0, result.message)


@dataclass(frozen=True, slots=True)
class SelfTestPorts:
    """What the self-test works with: the same services that people's requests use."""

    questions: Questions
    documents: DocumentService
    health: Health
    log: EventLog
    jobs: Jobs
    settings: StoredSettings
    model: LanguageModel
    live: Callable[[], Live]


class SelfTest:
    """Runs the self-test when it is due."""

    def __init__(self, ports: SelfTestPorts) -> None:
        self._ports = ports
        self._lost = False

    async def watch(self) -> None:
        """Look every 5 seconds until cancelled."""
        while True:
            try:
                await self.step()
            except (Unavailable, Busy, TimeoutError) as error:
                # What went away may come back changed: then the question is asked again.
                self._lost = self._lost or isinstance(error, Unavailable)
                log.info("self-test waits", extra={"why": str(error)})
            await asyncio.sleep(RETRY_S)

    async def step(self) -> bool:
        """Ask the question if it is due and no other process is about to; say if it was asked."""
        wanted = await self._due()
        if wanted is None:
            return False
        await self._ports.jobs.enqueue(
            JobKind.SELF_TEST.value, wanted.wanted, names.SELF_TEST_WORKSPACE, {}, 0
        )
        job = await self._ports.jobs.take([JobKind.SELF_TEST.value], _LEASE_S)
        if job is None:
            return False
        await self._run(job, wanted)
        return True

    async def _due(self) -> _Wanted | None:
        """Return the combination that lacks a passed test, None where nothing is wanted."""
        live = self._ports.live()
        if not live.self_test.wanted:
            return None
        model = await self._ports.model.status()
        if live.answer_mode == "Generate" and not model.loaded:
            self._lost = True
            return None
        generation = await self._ports.log.generation()
        wanted = _Wanted(live.self_test.wanted, model.digest, generation.gen)
        passed = wanted.passed_in(await self._ports.health.self_test())
        return wanted if self._lost or not passed else None

    async def _run(self, job: Job, wanted: _Wanted) -> None:
        before = await self._ports.health.self_test()
        same = before == wanted.result(before.passed, before.consecutive_failures, before.message)
        failures = before.consecutive_failures if same else 0
        try:
            message = await self._attempt()
        except (Busy, Pending) as waiting:
            await self._ports.jobs.fail(job, str(waiting), RETRY_S)
            return
        except ChatbotError as error:
            result = wanted.result(False, failures + 1, str(error))
            await self._store(result)
            await self._ports.jobs.fail(job, str(error), RETRY_S)
            return
        await self._store(wanted.result(True, 0, message))
        self._lost = False
        await self._ports.jobs.finish(job)

    async def _store(self, result: SelfTestResult) -> None:
        log.info("self-test", extra={"passed": result.passed, "why": result.message})
        await self._ports.settings.write(SELF_TEST_KEY, result.model_dump(mode="json"))

    async def _attempt(self) -> str:
        """Return what was answered. Raises Pending, Busy or the error that failed the test."""
        built_in = await self._built_in()
        ids = {document.doc_id for document in built_in}
        for index in range(len(built_in)):
            await self._retrievable(index, built_in[index].doc_id)
        return await self._asked(ids)

    async def _built_in(self) -> tuple[Document, ...]:
        """Return one searchable document on every shard, made where it is missing."""
        slot_map = await self._ports.log.slot_map()
        documents = [
            await self._ensured(index, _doc_id(slot_map.owners, shard))
            for index, shard in enumerate(sorted(set(slot_map.owners)))
        ]
        for document in documents:
            if document.state is DocumentState.FAILED:
                raise Unavailable("ingest", f"a built-in document failed: {document.error}")
            if document.state is not DocumentState.SEARCHABLE:
                raise Pending("the built-in documents are being indexed")
        return tuple(documents)

    async def _ensured(self, index: int, doc_id: str) -> Document:
        try:
            return await self._ports.documents.get(names.SELF_TEST_WORKSPACE, doc_id)
        except NotFound:
            text = _TEXT.format(index=index, name=_name(index))
            document, _ = await self._ports.documents.upload(
                names.SELF_TEST_WORKSPACE,
                f"self-test-{index}.txt",
                _once(text.encode()),
                doc_id=doc_id,
            )
            return document

    async def _retrievable(self, index: int, doc_id: str) -> None:
        """Raise Unavailable where a shard does not give its document back."""
        question = _QUESTION.format(name=_name(index))
        found = await self._ports.questions.search(names.SELF_TEST_WORKSPACE, question, 3)
        if found.coverage < 1.0:
            raise Unavailable("retrieval", f"only {found.coverage:.0%} of the slots answered")
        if doc_id not in {passage.doc_id for passage in found.passages}:
            raise Unavailable("retrieval", f"the built-in document of shard {index} is not found")

    async def _asked(self, ids: set[str]) -> str:
        question = Question(_QUESTION.format(name=_name(0)), max_output_tokens=32)
        pieces, candidates, done = 0, set[str](), None
        async for event in self._ports.questions.ask(names.SELF_TEST_WORKSPACE, question):
            if isinstance(event, Meta):
                candidates = {citation.document_id for citation in event.candidates}
            pieces += isinstance(event, Piece)
            done = event if isinstance(event, Done) else done
        if done is None or pieces == 0 or not done.answer:
            raise Unavailable("inference", "the model answered with nothing")
        if not candidates & ids:
            raise Unavailable("retrieval", "no built-in passage was retrieved")
        # A small model may answer beside the point and cite nothing: its quality is not tested.
        for document_id in {citation.document_id for citation in done.citations} or candidates:
            await self._ports.documents.get(names.SELF_TEST_WORKSPACE, document_id)
        return f"{done.model} answered: {done.answer[:200]}"


def _doc_id(owners: Sequence[int], shard: int) -> str:
    """Return the first built-in document id whose slot belongs to a shard."""
    ids = (f"self-test-{number}" for number in itertools.count())
    return next(doc_id for doc_id in ids if owners[slots.slot_of(doc_id)] == shard)


def _name(index: int) -> str:
    """Return a name that no other number has: MiniLM tells words apart better than digits."""
    first = ("Amsel", "Birke", "Dachs", "Eiche", "Falke", "Ginster", "Hasel", "Kiebitz")
    name = first[index % len(first)]
    return name if index < len(first) else f"{name} {index // len(first) + 1}"


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
