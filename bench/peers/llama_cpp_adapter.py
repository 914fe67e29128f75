"""llama.cpp: its server for prompts and batches; decoding is also timed by its llama-bench."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from protocol import Adapter, Answer, Task, Timer, main, peak_bytes

_SECONDS_TO_LOAD = 300


class LlamaCpp(Adapter):
    """The programs are looked for in OCTAVO_BENCH_LLAMA_CPP, the folder of their build."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def load(self, task: Task) -> None:
        self._model, self._threads = task["model"], task["threads"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        slots, threads = str(task["max_sequences"]), str(task["threads"])
        context = str(task["max_tokens"] + 16 * task["max_sequences"])
        command = [_program("llama-server"), "-m", self._model, "--port", str(self._port)]
        command += ["-t", threads, "-tb", threads, "-np", slots, "-c", context]
        command += [
            "--kv-unified",
            "--cache-ram",
            "0",
            "-fit",
            "off",
            "--no-ui",
            "--host",
            "127.0.0.1",
        ]
        command += task["options"].get("arguments", [])
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._server = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + _SECONDS_TO_LOAD
        while not self._is_ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                said = self._log.read().decode(errors="replace").strip().splitlines()
                raise RuntimeError(f"llama-server did not start: {' '.join(said[-3:])}")
            time.sleep(0.05)

    def run(self, task: Task) -> Answer:
        if task["beams"]:
            raise NotImplementedError("llama.cpp's server has no beam search")
        prompts, lengths = task["prompts"], task["output_lens"]
        counts = [0] * len(prompts)
        timer = Timer()
        if len(prompts) == 1:
            counts[0] = self._complete(prompts[0], lengths[0], timer)
            answer = timer.answer(counts[0])
            if lengths[0] > 1:
                answer["bench_tokens_per_second"] = self._bench(lengths[0])
            return answer

        def work(index: int) -> None:
            counts[index] = self._complete(prompts[index], lengths[index], None)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if counts != lengths:
            raise RuntimeError(f"expected {sum(lengths)} tokens, got {sum(counts)}")
        return timer.answer(sum(counts))

    def _complete(self, prompt: list[int], length: int, timer: Timer | None) -> int:
        """Generates for one prompt, as a stream when each token is to be timed."""
        body = {
            "prompt": prompt,
            "n_predict": length,
            "ignore_eos": True,
            "temperature": 0,
            "cache_prompt": True,
            "stream": timer is not None,
        }
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/completion", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"llama-server: {response.status} {response.read(300)!r}")
        if timer is None:
            return int(json.loads(response.read())["tokens_predicted"])
        for line in response:
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                timer.token()
                if event["stop"]:
                    return int(event["tokens_predicted"])
        raise RuntimeError("llama-server: the stream ended early")

    def _bench(self, length: int) -> float:
        """Decode tokens a second by llama-bench, which has no server around it."""
        command = [_program("llama-bench"), "-m", self._model, "-t", str(self._threads)]
        command += ["-p", "0", "-n", str(length), "-r", "1", "-o", "json"]
        found = subprocess.run(command, capture_output=True, check=True).stdout
        return float(json.loads(found)[0]["avg_ts"])

    def start(self, task: Task) -> Answer:
        """llama-completion, until its first token is written."""
        command = [_program("llama-completion"), "-m", task["model"], "-t", str(task["threads"])]
        command += ["-p", task["text"], "-n", "1", "-no-cnv", "--no-display-prompt"]
        command += ["--temp", "0", "--ignore-eos", "--no-warmup", "-c", "1024"]
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            first = process.stdout.read(1)
            seconds = time.perf_counter() - start
            process.stdout.read()
        if not first:
            raise RuntimeError("llama-completion wrote nothing")
        return {"seconds": seconds}

    def memory(self) -> Answer:
        assert self._server is not None
        weights = Path(self._model).stat().st_size
        return {"peak_bytes": peak_bytes(self._server.pid), "weight_bytes": weights}

    def close(self) -> None:
        if self._server is not None:
            self._server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(timeout=10)
            self._server.kill()

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def _program(name: str) -> str:
    return str(Path(os.environ["OCTAVO_BENCH_LLAMA_CPP"]) / name)


if __name__ == "__main__":
    main(LlamaCpp)
