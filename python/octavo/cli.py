"""The command ``octavo``: generate, chat, bench, info.

Errors are one line on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import octavo
from octavo import _core
from octavo.bench.command import add_bench_command
from octavo.engine_options import add_engine_options, engine_options, json_object
from octavo.errors import OctavoError
from octavo.outputs import RequestOutput

# What generate and chat take of the engine's arguments.
_ENGINE_OPTIONS = (
    "dtype",
    "quantization",
    "device",
    "max_model_len",
    "num_threads",
    "load_format",
    "revision",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (OctavoError, OSError, TypeError, ValueError, MemoryError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"octavo: error: {message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="octavo", description="An LLM inference engine.")
    parser.add_argument("--version", action="version", version=f"octavo {octavo.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="continue prompts")
    _add_model_arguments(generate)
    _add_sampling_arguments(generate, max_tokens=64)
    generate.add_argument("--n", type=int, default=None, help="samples of each prompt")
    generate.add_argument(
        "--prompt", action="append", required=True, help="the text to continue; may be repeated"
    )
    generate.set_defaults(run=_generate)

    chat = commands.add_parser("chat", help="talk with a model")
    _add_model_arguments(chat)
    _add_sampling_arguments(chat, max_tokens=None)
    _add_chat_arguments(chat)
    chat.set_defaults(run=_chat)

    add_bench_command(commands)

    info = commands.add_parser("info", help="describe this build, this machine and a model")
    info.add_argument("model", nargs="?", help="directory, .gguf file or hub name")
    add_engine_options(info, ("dtype", "quantization", "device"))
    info.add_argument(
        "--cmake-dir", action="store_true", help="print the directory of the CMake package"
    )
    info.set_defaults(run=_info)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="directory, .gguf file or hub name")
    add_engine_options(parser, _ENGINE_OPTIONS)


def _add_sampling_arguments(parser: argparse.ArgumentParser, *, max_tokens: int | None) -> None:
    parser.add_argument("--max-tokens", type=int, default=max_tokens)
    parser.add_argument("--temperature", type=float, default=None, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=None)
    parser.add_argument("--top-k", type=int, default=None)
    parser.add_argument("--min-p", type=float, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--stop", action="append", help="a string that ends the text")
    parser.add_argument("--ignore-eos", action="store_true", default=None)
    parser.add_argument("--stats", action="store_true", help="print speed and times")


def _add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system", "--system-prompt", metavar="TEXT", default=None, help="the system message"
    )
    parser.add_argument("--chat-template", default=None, help="a Jinja template or its file")
    parser.add_argument(
        "--chat-template-kwargs",
        metavar="JSON",
        type=json_object,
        default=None,
        help="variables for the template, as a JSON object",
    )
    parser.add_argument("-q", "--quick", metavar="TEXT", help="one message, then exit")


def _load(arguments: argparse.Namespace, **options: Any) -> octavo.LLM:
    given = {**engine_options(arguments), **options}
    return octavo.LLM(arguments.model, disable_log_stats=False, **given)


def _sampling(arguments: argparse.Namespace, llm: octavo.LLM) -> octavo.SamplingParams:
    """The model's defaults with what the command line says put over them."""
    params = llm.get_default_sampling_params()
    names = ("temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "ignore_eos")
    given = {n: getattr(arguments, n, None) for n in names}
    given = {name: value for name, value in given.items() if value is not None}
    kept = {n: getattr(params, n) for n in ("temperature", "top_p", "top_k", "min_p")}
    return octavo.SamplingParams(**{**kept, **given, "max_tokens": arguments.max_tokens})


def _generate(arguments: argparse.Namespace) -> int:
    with _load(arguments) as llm:
        start = time.monotonic()
        outputs = llm.generate(arguments.prompt, _sampling(arguments, llm), use_tqdm=False)
        seconds = time.monotonic() - start
    for output in outputs:
        for sample in output.outputs:
            print(f"{output.prompt}{sample.text}")
            if len(outputs) + len(output.outputs) > 2:
                print("-" * 40)
    if arguments.stats:
        _print_stats(outputs, seconds)
    return 1 if any(s.finish_reason == "error" for o in outputs for s in o.outputs) else 0


def _print_stats(outputs: Sequence[RequestOutput], seconds: float) -> None:
    prompt_tokens = sum(len(output.prompt_token_ids or ()) for output in outputs)
    new_tokens = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    first = [o.metrics.first_token_latency for o in outputs if o.metrics is not None]
    print(
        f"{prompt_tokens} prompt tokens, {new_tokens} tokens in {seconds:.2f} s: "
        f"{new_tokens / max(seconds, 1e-9):.1f} tokens/s; "
        f"time to first token {min(first, default=0.0):.3f} s",
        file=sys.stderr,
    )


def _chat(arguments: argparse.Namespace) -> int:
    from octavo.chat import ChatOptions
    from octavo.terminal_chat import TerminalChat

    with _load(arguments, chat_template=arguments.chat_template) as llm:
        options = ChatOptions(
            chat_template=llm.chat_template,
            chat_template_kwargs=arguments.chat_template_kwargs,
        )
        chat = TerminalChat(
            llm,
            _sampling(arguments, llm),
            options,
            stats=arguments.stats,
            system=arguments.system,
        )
        if arguments.quick is None:
            return chat.run()
        return 130 if chat.ask(arguments.quick).interrupted else 0


def _info(arguments: argparse.Namespace) -> int:
    if arguments.cmake_dir:
        print(octavo.get_cmake_dir())
        return 0
    isas = _core.cpu_isas()
    print(f"octavo         {octavo.__version__}")
    print(f"instructions   {isas[0] if isas else 'none'} (of {', '.join(isas)})")
    print(f"threads        {_core.default_num_threads()}")
    if arguments.model is not None:
        _print_model(arguments)
    return 0


def _print_model(arguments: argparse.Namespace) -> None:
    options = engine_options(arguments)
    with octavo.LLM(arguments.model, skip_tokenizer_init=True, **options) as llm:
        info = llm.model_info
        rows = [
            ("model", llm.model),
            ("architecture", info.architecture),
            ("device", f"{info.device} ({info.isa}, {info.num_threads} threads)"),
            ("dtype", info.dtype),
            ("quantization", info.quantization),
            ("parameters", f"{info.num_parameters:,}"),
            ("layers", f"{info.num_layers}, hidden size {info.hidden_size}"),
            ("vocabulary", f"{info.vocab_size:,}"),
            ("context", f"{info.max_model_len:,} tokens"),
            ("weights", _size(info.weight_bytes)),
            (
                "KV cache",
                f"{_size(info.kv_cache_bytes)} of {info.kv_cache_dtype}: "
                f"{info.num_kv_blocks:,} blocks of {info.block_size} tokens",
            ),
            ("workspace", _size(info.workspace_bytes)),
        ]
    for name, value in rows:
        print(f"{name:<14} {value}")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
