"""`octavo bench`: what it asks of the engine, its figures and its JSON, and one-line errors."""

import inspect
import json
import statistics

import fake_core
import numpy
import pytest
import text_models
from fake_core import FakeEngine, FakeModelInfo
from octavo import LLM
from octavo.bench.statistics import PERCENTAGES, percentile, percentiles
from octavo.cli import _parser, main

NAMES = {str(percentage) for percentage in PERCENTAGES}
needs_engine = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")


@pytest.fixture(scope="module")
def backend():
    return text_models.byte_level(specials=("<unk>", "<s>", "</s>"))


@pytest.fixture
def model(tmp_path, backend):
    return str(text_models.save(backend, tmp_path, {"eos_token": "</s>"}))


@pytest.fixture
def engine(monkeypatch):
    return fake_core.use(monkeypatch, FakeEngine(info=FakeModelInfo(vocab_size=900)))


@pytest.fixture
def bench(model, tmp_path):
    """bench(name, *options) -> the JSON that `octavo bench` has written."""

    def run(name, *options, path=model):
        file = tmp_path / "results.json"
        assert main(["bench", name, path, "--output-json", str(file), *map(str, options)]) == 0
        return json.loads(file.read_text())

    return run


# Latency.


def test_latency(bench, engine, capsys):
    results = bench("latency", "--input-len", 5, "--output-len", 3, "--batch-size", 2, "--n", 2,
                    "--num-iters-warmup", 2, "--num-iters", 4)  # fmt: skip
    assert set(results) == {"avg_latency", "latencies", "percentiles"}
    assert len(results["latencies"]) == 4
    assert results["avg_latency"] == pytest.approx(statistics.mean(results["latencies"]))
    assert results["percentiles"] == percentiles(results["latencies"])
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["Warming up...", f"Avg latency: {results['avg_latency']} seconds"]
    assert shown[2] == f"10% percentile latency: {results['percentiles']['10']} seconds"
    assert len(shown) == 2 + len(PERCENTAGES)

    assert len(engine.added) == 2 * (2 + 4)
    for sequence in engine.added:
        params = sequence.params
        assert len(sequence.prompt) == 5
        assert (params.n, params.max_tokens, params.ignore_eos) == (2, 3, True)
        assert [len(tokens) for tokens in sequence.tokens] == [3, 3]
    assert engine.added[0].prompt != engine.added[1].prompt
    assert engine.added[0].prompt == engine.added[2].prompt


def test_latency_leaves_the_prefix_cache_out(bench, engine):
    bench("latency", "--num-iters-warmup", 0, "--num-iters", 1, "--output-len", 2)
    assert engine.options["enable_prefix_caching"] is False
    bench("latency", "--num-iters-warmup", 0, "--num-iters", 1, "--output-len", 2,
          "--enable-prefix-caching")  # fmt: skip
    assert engine.options["enable_prefix_caching"] is True


def test_defaults_are_vllms():
    arguments = _parser().parse_args(["bench", "latency", "m"])
    assert (arguments.input_len, arguments.output_len, arguments.batch_size) == (32, 128, 8)
    assert (arguments.n, arguments.num_iters_warmup, arguments.num_iters) == (1, 10, 30)
    arguments = _parser().parse_args(["bench", "throughput", "m"])
    assert (arguments.num_prompts, arguments.n) == (1000, 1)
    assert (arguments.random_input_len, arguments.random_output_len) == (1024, 128)
    arguments = _parser().parse_args(["bench", "startup", "m"])
    counts = (arguments.num_iters_cold, arguments.num_iters_warmup, arguments.num_iters_warm)
    assert counts == (3, 1, 3)


@needs_engine
def test_latency_of_beam_search(bench, tiny_model):
    path = str(tiny_model("llama", tokenizer=True))
    results = bench("latency", "--use-beam-search", "--n", 3, "--input-len", 4, "--output-len", 3,
                    "--num-iters", 2, "--num-iters-warmup", 0, path=path)  # fmt: skip
    assert len(results["latencies"]) == 2
    assert all(value > 0 for value in results["latencies"])


# Throughput.


def check_throughput(results, num_requests, num_tokens):
    assert set(results) == {"elapsed_time", "num_requests", "total_num_tokens",
                            "requests_per_second", "tokens_per_second"}  # fmt: skip
    assert (results["num_requests"], results["total_num_tokens"]) == (num_requests, num_tokens)
    rate = results["requests_per_second"] * results["elapsed_time"]
    assert rate == pytest.approx(num_requests)
    assert results["tokens_per_second"] * results["elapsed_time"] == pytest.approx(num_tokens)


def test_throughput(bench, engine, capsys):
    results = bench("throughput", "--dataset-name", "random", "--random-input-len", 6,
                    "--random-output-len", 4, "--num-prompts", 7, "--n", 2)  # fmt: skip
    check_throughput(results, 7, 7 * (6 + 2 * 4))
    shown = capsys.readouterr().out.splitlines()
    output_rate = 56 / results["elapsed_time"]
    assert shown == [
        f"Throughput: {results['requests_per_second']:.2f} requests/s, "
        f"{results['tokens_per_second']:.2f} total tokens/s, {output_rate:.2f} output tokens/s",
        "Total num prompt tokens:  42",
        "Total num output tokens:  56",
    ]
    assert len({tuple(sequence.prompt) for sequence in engine.added}) == 7
    assert all(sequence.params.ignore_eos for sequence in engine.added)


def test_random_lengths_and_a_shared_prefix(bench, engine):
    options = ["--random-input-len", 10, "--random-output-len", 8, "--random-range-ratio", 0.5,
               "--random-prefix-len", 5, "--num-prompts", 40]  # fmt: skip
    results = bench("throughput", *options, "--seed", 3)
    first = [(sequence.prompt, sequence.params.max_tokens) for sequence in engine.added]
    check_throughput(results, 40, sum(len(prompt) + length for prompt, length in first))
    assert {len(prompt) for prompt, _ in first} == set(range(5 + 5, 5 + 15 + 1))
    assert {length for _, length in first} == set(range(4, 12 + 1))
    assert len({tuple(prompt[:5]) for prompt, _ in first}) == 1

    engine.added.clear()
    bench("throughput", *options, "--seed", 3)
    again = [(sequence.prompt, sequence.params.max_tokens) for sequence in engine.added]
    assert again == first
    engine.added.clear()
    bench("throughput", *options, "--seed", 4)
    assert [sequence.prompt for sequence in engine.added] != [prompt for prompt, _ in first]


def test_prefix_repetition(bench, engine):
    results = bench("throughput", "--dataset-name", "prefix_repetition", "--num-prompts", 6,
                    "--prefix-repetition-prefix-len", 8, "--prefix-repetition-suffix-len", 4,
                    "--prefix-repetition-num-prefixes", 2,
                    "--prefix-repetition-output-len", 3)  # fmt: skip
    check_throughput(results, 6, 6 * (8 + 4 + 3))
    prefixes = [tuple(sequence.prompt[:8]) for sequence in engine.added]
    assert sorted(prefixes.count(prefix) for prefix in set(prefixes)) == [3, 3]


def test_data_sets_in_files(bench, engine, backend, tmp_path):
    turns = [[{"value": "The fox jumps"}, {"value": "over the dog"}], [{"value": "alone"}]]
    file = tmp_path / "sharegpt.json"
    file.write_text(json.dumps([{"conversations": each} for each in turns]))
    bench("throughput", "--dataset-name", "sharegpt", "--dataset-path", file)
    (sequence,) = engine.added
    assert backend.decode(sequence.prompt) == "The fox jumps"
    assert sequence.params.max_tokens == len(backend.encode("over the dog").ids)

    engine.added.clear()
    file = tmp_path / "custom.jsonl"
    lines = [{"prompt": "one"}, {"prompt": "two", "output_tokens": 2}, {"prompt": "three"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    bench("throughput", "--dataset-name", "custom", "--dataset-path", file, "--num-prompts", 2,
          "--output-len", 5)  # fmt: skip
    assert [backend.decode(sequence.prompt) for sequence in engine.added] == ["one", "two"]
    assert {sequence.params.max_tokens for sequence in engine.added} == {5}


@needs_engine
@pytest.mark.parametrize("options", [[], ["--async-engine"], ["--disable-detokenize"]])
def test_throughput_of_a_model(bench, tiny_model, options):
    path = str(tiny_model("llama", tokenizer=True))
    results = bench("throughput", "--input-len", 9, "--output-len", 5, "--num-prompts", 6, *options,
                    "--dtype", "float32", path=path)  # fmt: skip
    check_throughput(results, 6, 6 * 14)


@needs_engine
def test_random_weights(bench, tiny_model):
    path = str(tiny_model("llama"))
    results = bench("throughput", "--load-format", "dummy", "--skip-tokenizer-init",
                    "--input-len", 3, "--output-len", 2, "--num-prompts", 2, path=path)  # fmt: skip
    check_throughput(results, 2, 10)


# Start-up.


@needs_engine
def test_startup(bench, tiny_model, capsys):
    path = str(tiny_model("llama", tokenizer=True))
    results = bench("startup", "--num-iters-cold", 1, "--num-iters-warm", 2,
                    "--num-iters-warmup", 0, "--dtype", "float32", path=path)  # fmt: skip
    for phase, count in (("cold", 1), ("warm", 2)):
        for metric in ("startup", "compilation", "first_token"):
            times = results.pop(f"{phase}_{metric}_times")
            assert len(times) == count
            average = results.pop(f"avg_{phase}_{metric}_time")
            assert average == pytest.approx(statistics.mean(times))
            assert set(results.pop(f"{phase}_{metric}_percentiles")) == NAMES
            if metric == "compilation":
                assert times == [0.0] * count
            else:
                assert min(times) > 0
            if metric == "startup":
                ready = times
        assert all(first > start for start, first in zip(ready, times, strict=True))
    assert not results
    shown = capsys.readouterr().out
    assert shown.count("STARTUP:") == 2
    assert shown.count("Avg startup time: ") == 2


@needs_engine
def test_an_error_of_the_started_process(tmp_path, capsys):
    assert main(["bench", "startup", "--model", str(tmp_path)]) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("octavo: error: ")
    assert "config.json" in shown


# Options.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["latency"], "one model is expected"),
        (["latency", "MODEL", "--model", "other"], "one model is expected"),
        (["latency", "MODEL", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["latency", "MODEL", "--num-iters", "0"], "--num-iters must be at least 1"),
        (["latency", "MODEL", "--num-iters-warmup", "-1"], "--num-iters-warmup must be at least 0"),
        (["latency", "MODEL", "--input-len", "60"], "max_model_len must be at least"),
        (["latency", "/no/such/model"], "/no/such/model"),
        (["latency", "MODEL", "--output-json", "/no/such/folder/x"], "/no/such/folder/x"),
        (["throughput", "MODEL", "--backend", "hf"], "--backend hf"),
        (["throughput", "MODEL", "--num-prompts", "0"], "--num-prompts must be at least 1"),
        (["throughput", "MODEL", "--random-range-ratio", "1"], "--random-range-ratio must be"),
        (["throughput", "MODEL", "--dataset-name", "custom"], "needs --dataset-path"),
        (["throughput", "MODEL", "--dataset-path", "x.json"], "needs --dataset-name"),
        (["throughput", "MODEL", "--dataset-name", "custom", "--dataset-path", "/no/file"],
         "/no/file"),
        (["throughput", "MODEL", "--input-len", "500"], "max_model_len must be at least"),
        (["startup", "MODEL", "--num-iters-cold", "0", "--num-iters-warm", "0"], "at least 1"),
        (["startup", "/no/such/model"], "/no/such/model"),
    ],
)  # fmt: skip
def test_errors_are_one_line(model, engine, capsys, arguments, text):
    given = [model if argument == "MODEL" else argument for argument in arguments]
    assert main(["bench", *given]) == 1
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if "%|" not in line]  # but for progress bars
    assert len(lines) == 1
    assert lines[0].startswith("octavo: error: ")
    assert text in lines[0]


def test_a_file_that_is_no_data_set(model, engine, tmp_path, capsys):
    file = tmp_path / "data"
    for name, text, error in [
        ("sharegpt", "{", "no JSON"),
        ("sharegpt", "{}", "expected a JSON list"),
        ("sharegpt", "[]", "has no prompt"),
        ("custom", '{"text": 1}\n', 'with a "prompt"'),
        ("custom", "", "has no prompt"),
    ]:
        file.write_text(text)
        options = ["--dataset-name", name, "--dataset-path", str(file)]
        assert main(["bench", "throughput", model, *options]) == 1
        assert error in capsys.readouterr().err


def test_failed_requests_are_no_result(model, engine, capsys, tmp_path):
    engine.failing = "NaN in the logits"
    file = tmp_path / "results.json"
    engine.add_request = lambda prompt, *rest, add=engine.add_request, **named: add(
        [666, *prompt[1:]], *rest, **named
    )
    arguments = ["--num-iters-warmup", "0", "--output-len", "3", "--output-json", str(file)]
    with pytest.warns(UserWarning, match="NaN"):
        assert main(["bench", "latency", model, *arguments]) == 1
    assert "8 of 8 requests ended with an error" in capsys.readouterr().err
    assert not file.exists()


def test_wrong_usage_is_argparses():
    for arguments in ([], ["nonsense"], ["latency", "m", "--batch-size", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(["bench", *arguments])
        assert caught.value.code == 2


def test_every_argument_of_the_engine_is_an_option():
    parameters = inspect.signature(LLM.__init__).parameters.values()
    names = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for benchmark in ("latency", "throughput", "startup"):
        arguments = vars(_parser().parse_args(["bench", benchmark, "m"]))
        assert names <= set(arguments)


def test_engine_options_reach_the_engine(bench, engine):
    bench("latency", "--num-iters-warmup", 0, "--num-iters", 1, "--output-len", 2,
          "--max-model-len", "2k", "--num-threads", 3, "--no-enable-chunked-prefill",
          "--max-num-seqs", 5, "--dtype", "half", "--override-generation-config",
          '{"temperature": 0.5}')  # fmt: skip
    options = engine.options
    assert (options["max_model_len"], options["num_threads"]) == (2000, 3)
    assert (options["enable_chunked_prefill"], options["max_num_seqs"]) == (False, 5)
    assert options["dtype"] == "float16"


def test_percentiles_are_numpys():
    values = [0.3, 0.1, 0.45, 0.2, 0.9]
    for percentage in (0, 10, 33, 50, 99, 100):
        expected = numpy.percentile(values, percentage)
        assert percentile(values, percentage) == pytest.approx(expected)
    assert percentiles([0.5]) == dict.fromkeys(NAMES, 0.5)
