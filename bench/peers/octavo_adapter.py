"""Octavo."""

from typing import Any

from protocol import Adapter, Answer, Task, Timer, main

_BLOCK = 16  # tokens


class Octavo(Adapter):
    def load(self, task: Task) -> None:
        from octavo import LLM

        blocks = -(-task["max_tokens"] // _BLOCK) + task["max_sequences"]
        options = {"skip_tokenizer_init": True, "num_gpu_blocks_override": blocks}
        options.update(task["options"])
        self._llm = LLM(task["model"], num_threads=task["threads"], **options)

    def run(self, task: Task) -> Answer:
        from octavo import BeamSearchParams, SamplingParams

        prompts, lengths, beams = task["prompts"], task["output_lens"], task["beams"]
        if beams:
            each: list[Any] = [BeamSearchParams(beams, n, ignore_eos=True) for n in lengths]
        else:
            each = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in lengths]
        timer = Timer()
        if len(prompts) == 1 and not beams:
            num_tokens = 0
            for output in self._llm.stream(prompts, each):
                num_new = len(output.outputs[0].token_ids)
                timer.token(num_new)
                num_tokens += num_new
            return timer.answer(num_tokens)
        outputs = self._llm.generate(prompts, each, use_tqdm=False)
        return timer.answer(sum(len(output.outputs[0].token_ids) for output in outputs))

    def start(self, task: Task) -> Answer:
        from octavo import LLM, SamplingParams

        llm = LLM(task["model"], num_threads=task["threads"], **task["options"])
        params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
        llm.generate(task["text"], params, use_tqdm=False)
        return {}

    def memory(self) -> Answer:
        info = self._llm.model_info
        per_token = info.kv_cache_bytes // (info.num_kv_blocks * info.block_size)
        answer = {"weight_bytes": info.weight_bytes, "kv_bytes_per_token": per_token}
        return {**super().memory(), **answer, "isa": info.isa}


if __name__ == "__main__":
    main(Octavo)
