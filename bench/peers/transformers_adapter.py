"""Hugging Face transformers on torch, in bfloat16; batches are padded on the left."""

from typing import Any

from protocol import Adapter, Answer, Task, Timer, main

_BATCH = 16  # requests, of like output lengths


class Transformers(Adapter):
    def load(self, task: Task) -> None:
        import torch
        import transformers

        torch.set_num_threads(task["threads"])
        self._torch = torch
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            task["model"], dtype=torch.bfloat16
        )
        self._model.generation_config = transformers.GenerationConfig()

    def run(self, task: Task) -> Answer:
        prompts, lengths = task["prompts"], task["output_lens"]
        timer = Timer()
        if len(prompts) == 1 and not task["beams"]:
            self._generate(prompts, lengths[0], streamer=_Streamer(timer))
            return timer.answer(lengths[0])
        order = sorted(range(len(prompts)), key=lambda i: lengths[i])
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            longest = max(lengths[i] for i in chosen)
            beams = {"num_beams": task["beams"]} if task["beams"] else {}
            self._generate([prompts[i] for i in chosen], longest, **beams)
        return timer.answer(sum(lengths))

    def _generate(self, prompts: list[list[int]], length: int, **options: Any) -> None:
        torch = self._torch
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            result = self._model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                min_new_tokens=length,
                max_new_tokens=length,
                pad_token_id=0,
                **options,
            )
        if result.shape[1] != width + length:
            raise RuntimeError(f"expected {length} new tokens, got {result.shape[1] - width}")

    def start(self, task: Task) -> Answer:
        self.load(task)
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(task["model"])
        self._generate([tokenizer(task["text"]).input_ids], 1)
        return {}

    def memory(self) -> Answer:
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        return {**super().memory(), "weight_bytes": weights}


class _Streamer:
    """What `generate` hands the prompt to, and then each token."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._prompt_seen = False

    def put(self, ids: Any) -> None:
        if self._prompt_seen:
            self._timer.token()
        self._prompt_seen = True

    def end(self) -> None:
        pass


if __name__ == "__main__":
    main(Transformers)
