"""Several threads call one LLM and share its batch (R25), on the compiled engine."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_core
import pytest
from device_under_test import DEVICE
from octavo import LLM, AsyncLLM, SamplingParams

pytestmark = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")

VOCAB = 320
OPTIONS: dict[str, Any] = dict(
    device=DEVICE, dtype="float32", max_model_len=256, num_gpu_blocks_override=256
)
NUM_PROMPTS = 32


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", tokenizer=True)


@pytest.fixture
def llm(model: Path) -> Iterator[LLM]:
    with LLM(str(model), **OPTIONS) as llm:
        yield llm


def prompt(i: int) -> list[int]:
    draw = random.Random(i)
    return [draw.randrange(4, VOCAB) for _ in range(3 + i)]


def params(i: int) -> SamplingParams:
    """Half of them greedy, some with stop strings, some with several samples."""
    if i % 2:
        return SamplingParams(temperature=1.0, seed=i, n=1 + i % 3, max_tokens=20, stop=["e", "s"])
    return SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=2)


PROMPTS = [prompt(i) for i in range(NUM_PROMPTS)]
PARAMS = [params(i) for i in range(NUM_PROMPTS)]


def facts(output: Any) -> Any:
    return [(s.index, s.text, s.token_ids, s.logprobs, s.finish_reason) for s in output.outputs]


@pytest.fixture(scope="module")
def alone(model: Path) -> list[Any]:
    """What each prompt gives with the engine to itself."""
    with LLM(str(model), **OPTIONS) as llm:
        return [
            facts(llm.generate([each], mine, use_tqdm=False)[0])
            for each, mine in zip(PROMPTS, PARAMS, strict=True)
        ]


def test_eight_threads_get_what_they_would_get_alone(llm: LLM, alone: list[Any]) -> None:
    def generate(i: int) -> dict[int, Any]:
        mine = range(i, NUM_PROMPTS, 8)
        outputs = llm.generate(
            [PROMPTS[j] for j in mine], [PARAMS[j] for j in mine], use_tqdm=False
        )
        return {j: facts(output) for j, output in zip(mine, outputs, strict=True)}

    def iterate(i: int) -> dict[int, Any]:
        mine = list(range(i, NUM_PROMPTS, 8))
        outputs = llm.generate_iter(
            (PROMPTS[j] for j in mine), (PARAMS[j] for j in mine), max_in_flight=2
        )
        return {mine[output.prompt_index or 0]: facts(output) for output in outputs}

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            futures = [
                pool.submit(way, i)
                for i, way in zip(range(8), itertools.cycle([generate, iterate]), strict=False)
            ]
            results: dict[int, Any] = {}
            for future in futures:
                results.update(future.result())
        assert [results[j] for j in range(NUM_PROMPTS)] == alone


def test_the_batch_is_shared(model: Path) -> None:
    """Were the calls served one after another, more than one would never run at once."""
    with LLM(str(model), **OPTIONS) as llm:
        most = [0]
        barrier = threading.Barrier(4)

        def work(i: int) -> None:
            barrier.wait()
            for output in llm.stream([PROMPTS[i]], SamplingParams(max_tokens=200, ignore_eos=True)):
                most[0] = max(most[0], llm.stats()["num_running"])
                assert output.request_id

        for _ in range(20):
            threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if most[0] > 1:
                break
        assert most[0] > 1


def test_the_sum_of_deltas_is_what_generate_gives(llm: LLM, alone: list[Any]) -> None:
    texts: dict[tuple[int, int], str] = {}
    ids: dict[tuple[int, int], list[int]] = {}
    for output in llm.stream(PROMPTS, PARAMS):
        for delta in output.outputs:
            key = (output.prompt_index or 0, delta.index)
            texts[key] = texts.get(key, "") + delta.text
            ids[key] = ids.get(key, []) + delta.token_ids
    for i, samples in enumerate(alone):
        for index, text, token_ids, _, _ in samples:
            assert (texts[i, index], ids[i, index]) == (text, token_ids)


def test_iterators_give_what_generate_gives(llm: LLM, alone: list[Any]) -> None:
    for in_order, most in itertools.product((False, True), (1, 3, None)):
        outputs = list(llm.generate_iter(PROMPTS, PARAMS, in_order=in_order, max_in_flight=most))
        if in_order:
            assert [o.prompt_index for o in outputs] == list(range(NUM_PROMPTS))
        outputs.sort(key=lambda output: output.prompt_index or 0)
        assert [facts(output) for output in outputs] == alone
    for output in llm.generate(PROMPTS, PARAMS, use_tqdm=False):
        metrics = output.metrics
        assert metrics is not None
        assert metrics.queued_ts <= metrics.scheduled_ts <= metrics.first_token_ts
        assert metrics.first_token_ts <= metrics.last_token_ts


def test_async_gives_what_generate_gives(model: Path, alone: list[Any]) -> None:
    async def one(llm: AsyncLLM, i: int, kind: int) -> Any:
        mine = PARAMS[i].clone()
        mine.output_kind = kind  # type: ignore[assignment]
        return [output async for output in llm.generate(PROMPTS[i], mine)]

    async def main() -> None:
        async with AsyncLLM(str(model), **OPTIONS) as llm:
            final = await asyncio.gather(*(one(llm, i, 2) for i in range(NUM_PROMPTS)))
            assert [facts(output) for (output,) in final] == alone
            deltas = await asyncio.gather(*(one(llm, i, 1) for i in range(NUM_PROMPTS)))
            for outputs, samples in zip(deltas, alone, strict=True):
                for index, text, *_ in samples:
                    mine = [o.outputs[0].text for o in outputs if o.outputs[0].index == index]
                    assert "".join(mine) == text
            tasks = [asyncio.ensure_future(one(llm, i, 0)) for i in range(NUM_PROMPTS)]
            await asyncio.sleep(0.01)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            kept = zip(results[1::2], alone[1::2], strict=True)
            assert all(facts_of_last(result, len(mine)) == mine for result, mine in kept)
            while llm.stats()["num_blocks_used"]:
                await asyncio.sleep(0.001)

    asyncio.run(main())


def facts_of_last(outputs: Any, count: int) -> Any:
    """The last snapshot of each sample."""
    last = {output.outputs[0].index: output for output in outputs}
    return [facts(last[i])[0] for i in range(count)]
