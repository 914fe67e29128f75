"""OpenVINO GenAI: its pipeline of continuous batching, with a prefix cache."""

from pathlib import Path
from typing import Any

from protocol import Adapter, Answer, Task, Timer, main

_GIB = 2**30
_BLOCK = 32  # tokens


class OpenVino(Adapter):
    def load(self, task: Task) -> None:
        import openvino_genai as genai

        self._directory = Path(task["model"])
        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = -(-task["max_tokens"] // _BLOCK) + 2 * task["max_sequences"]
        scheduler.max_num_batched_tokens = 4096
        scheduler.max_num_seqs = 256
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = task["options"].get("enable_prefix_caching", True)
        self._pipeline = _pipeline(genai, task, scheduler)
        self._num_requests = 0

    def run(self, task: Task) -> Answer:
        import numpy
        import openvino
        import openvino_genai as genai

        tensors = [openvino.Tensor(numpy.array([ids], numpy.int64)) for ids in task["prompts"]]
        configs = [_config(genai, length, task["beams"]) for length in task["output_lens"]]
        timer = Timer()
        handles = []
        for tensor, config in zip(tensors, configs, strict=True):
            self._num_requests += 1
            handles.append(self._pipeline.add_request(self._num_requests, tensor, config))
        num_tokens = 0
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            if not task["beams"]:
                num_tokens += _take(handles, timer)
        num_tokens += _take(handles, timer)
        return timer.answer(num_tokens)

    def start(self, task: Task) -> Answer:
        import openvino_genai as genai

        properties = {"INFERENCE_NUM_THREADS": task["threads"], "PERFORMANCE_HINT": "LATENCY"}
        pipeline = genai.LLMPipeline(task["model"], "CPU", **properties)
        pipeline.generate(
            task["text"], max_new_tokens=1, ignore_eos=True, apply_chat_template=False
        )
        return {}

    def memory(self) -> Answer:
        weights = (self._directory / "openvino_model.bin").stat().st_size
        return {**super().memory(), "weight_bytes": weights}


def _pipeline(genai: Any, task: Task, scheduler: Any) -> Any:
    properties = {"INFERENCE_NUM_THREADS": task["threads"], "PERFORMANCE_HINT": "LATENCY"}
    properties.update(task["options"].get("properties", {}))
    return genai.ContinuousBatchingPipeline(task["model"], scheduler, "CPU", properties)


def _config(genai: Any, length: int, beams: int) -> Any:
    config = genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = length
    config.ignore_eos = True
    config.do_sample = False
    if beams:
        config.num_beams = beams
        config.num_beam_groups = 1
        config.num_return_sequences = 1
        config.stop_criteria = genai.StopCriteria.NEVER
    return config


def _take(handles: list[Any], timer: Timer) -> int:
    """The number of new tokens of all requests."""
    count = 0
    for index, handle in enumerate(handles):
        while handle.can_read():
            new = sum(len(output.generated_ids) for output in handle.read().values())
            count += new
            if index == 0:
                timer.token(new)
    return count


if __name__ == "__main__":
    main(OpenVino)
