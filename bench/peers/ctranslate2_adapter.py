"""CTranslate2 with weights in int8. It takes tokens as texts, and one length for a whole batch."""

import json
from pathlib import Path
from typing import Any

from protocol import Adapter, Answer, Task, Timer, main

_BATCH = 16  # requests, of like output lengths


class CTranslate2(Adapter):
    def load(self, task: Task) -> None:
        import ctranslate2

        self._directory = Path(task["model"])
        self._generator = ctranslate2.Generator(
            task["model"],
            device="cpu",
            compute_type=task["options"].get("compute_type", "int8"),
            inter_threads=1,
            intra_threads=task["threads"],
        )
        self._vocabulary = json.loads((self._directory / "vocabulary.json").read_text())

    def run(self, task: Task) -> Answer:
        lengths, beams = task["output_lens"], task["beams"]
        prompts = [[self._vocabulary[i] for i in ids] for ids in task["prompts"]]
        prefix = _common_prefix(prompts) if len(prompts) > 1 else []
        timer = Timer()
        if len(prompts) == 1 and not beams:

            def token(result: Any) -> bool:
                timer.token()
                return False

            self._generate(prompts, lengths[0], callback=token)
            return timer.answer(lengths[0])
        order = sorted(range(len(prompts)), key=lambda i: lengths[i])
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            longest = max(lengths[i] for i in chosen)
            options: dict[str, Any] = {"beam_size": beams} if beams else {}
            if len(prefix) >= 64:  # its state is computed once and kept
                options["static_prompt"] = prefix
            skip = len(options.get("static_prompt", ()))
            self._generate([prompts[i][skip:] for i in chosen], longest, **options)
        return timer.answer(sum(lengths))

    def _generate(self, prompts: list[list[str]], length: int, **options: Any) -> None:
        results = self._generator.generate_batch(
            prompts,
            min_length=length,
            max_length=length,
            include_prompt_in_result=False,
            **options,
        )
        for result in results:
            if len(result.sequences_ids[0]) != length:
                found = len(result.sequences_ids[0])
                raise RuntimeError(f"expected {length} new tokens, got {found}")

    def start(self, task: Task) -> Answer:
        self.load(task)
        self._generate([[self._vocabulary[i] for i in task["ids"]]], 1)
        return {}

    def memory(self) -> Answer:
        weights = (self._directory / "model.bin").stat().st_size
        return {**super().memory(), "weight_bytes": weights}


def _common_prefix(prompts: list[list[str]]) -> list[str]:
    length = min(map(len, prompts)) - 1
    first = prompts[0]
    while length > 0 and any(prompt[:length] != first[:length] for prompt in prompts):
        length -= 1
    return first[:length]


if __name__ == "__main__":
    main(CTranslate2)
