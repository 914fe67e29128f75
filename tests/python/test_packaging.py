"""The installed package: what it links, what an import loads, what it reports of itself."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import octavo
import pytest
from check_layers import ROOT

# Where the compiled parts are; with an editable install that is not where the Python sources are.
INSTALLED = Path(octavo._core.__file__).parent
HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub", "sentencepiece", "jinja2")

# Runs `code` in an interpreter in which every attempt to resolve or connect is an error.
OFFLINE = """
import json, socket, sys
def refuse(*args, **kwargs): raise AssertionError("the network was used")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
{code}
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def modules_after(code: str) -> set[str]:
    """The top-level modules that are loaded after `code`."""
    result = subprocess.run(
        [sys.executable, "-c", OFFLINE.format(code=code)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_import_loads_nothing_heavy_and_uses_no_network():
    loaded = modules_after("import octavo; octavo.LLM; octavo.SamplingParams")
    assert "octavo" in loaded
    assert not loaded & set(HEAVY)


def test_import_leaves_logging_alone():
    code = (
        "import logging; before = list(logging.root.handlers)\n"
        "import octavo\n"
        "assert logging.root.handlers == before and logging.root.level == logging.WARNING"
    )
    modules_after(code)


@pytest.mark.parametrize("first", ["torch", "octavo"])
def test_import_works_beside_torch(first):
    second = "octavo" if first == "torch" else "torch"
    loaded = modules_after(f"import {first}, {second}; octavo.SamplingParams()")
    assert {"torch", "octavo"} <= loaded


GENERATE = """
from octavo import LLM, SamplingParams
llm = LLM({model!r}, max_model_len=128, max_num_seqs=2)
[output] = llm.generate(["Hello"], SamplingParams(max_tokens=2), use_tqdm=False)
assert len(output.outputs[0].token_ids) == 2
"""


def test_model_with_tokenizer_json_never_imports_transformers(tiny_model):
    model = tiny_model("llama", tokenizer=True)
    assert (model / "tokenizer.json").is_file()
    loaded = modules_after(GENERATE.format(model=str(model)))
    assert "tokenizers" in loaded
    assert not loaded & {"torch", "transformers"}


def test_gguf_never_imports_transformers_or_gguf(smollm2):
    loaded = modules_after(GENERATE.format(model=str(smollm2)))
    assert not loaded & {"torch", "transformers", "gguf"}


def shared_objects() -> list[Path]:
    return sorted(path for path in INSTALLED.rglob("*.so*") if path.is_file())


def test_there_is_one_library_and_one_extension():
    names = sorted(path.name.split(".")[0] for path in shared_objects())
    # The CUDA back end is a library of its own, in a package that was built with it.
    assert names in (["_core", "liboctavo"], ["_core", "liboctavo", "liboctavo_cuda"])


@pytest.mark.parametrize("library", shared_objects(), ids=lambda path: path.name)
def test_libraries_link_the_system_alone(library):
    dynamic = subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True
    ).stdout
    needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "NEEDED" in line]
    system = ("libc.", "libm.", "libstdc++.", "libgcc_s.", "libpthread.", "libdl.", "ld-linux")
    others = [name for name in needed if not name.startswith(system)]
    assert others in ([], ["liboctavo.so"])
    for forbidden in ("libtorch", "libc10", "libpython"):
        assert forbidden not in dynamic
    # Found beside the package wherever that is installed, never by a path of the build.
    paths = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "PATH" in line]
    assert set(paths) <= {"$ORIGIN/lib"}


def test_library_exports_octavo_alone():
    names = subprocess.run(
        ["nm", "-DC", "--defined-only", INSTALLED / "lib" / "liboctavo.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    functions = [name.split(maxsplit=2)[2] for name in names if name.split()[1] == "T"]
    # Weak names are templates', which another library may have too; a whole libstdc++ would be
    # thousands.
    assert len(names) < 1000
    assert any(name.startswith("octavo::Engine::step") for name in functions)
    assert [name for name in functions if not name.startswith("octavo::")] == []
    # What lies behind the public headers stays hidden, but for what their classes hold.
    inner = (
        "octavo::Scheduler",
        "octavo::BlockManager",
        "octavo::ModelRunner",
        "octavo::RefBackend",
    )
    assert [name for name in functions if name.startswith(inner)] == []


def test_versions_agree():
    version = (ROOT / "VERSION").read_text().strip()
    assert octavo.__version__ == version
    assert metadata.version("octavo") == version
    header = (INSTALLED / "include" / "octavo" / "version.h").read_text()
    assert f'"{version}"' in header


def test_package_is_small():
    size = sum(path.stat().st_size for path in INSTALLED.rglob("*") if path.is_file())
    assert size <= 20_000_000


def test_torch_is_no_run_time_requirement():
    requirements = metadata.requires("octavo") or []
    torch = [line for line in requirements if line.startswith("torch")]
    assert torch
    assert all("extra ==" in line for line in torch)


def octavo_info(*arguments: str) -> str:
    """What the installed command `octavo info` prints."""
    command = [Path(sys.executable).parent / "octavo", "info", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_command_reports_the_cmake_package():
    assert Path(octavo_info("--cmake-dir").strip()) == Path(octavo.get_cmake_dir())
    assert (Path(octavo.get_cmake_dir()) / "octavoConfig.cmake").is_file()


def test_command_reports_the_build_and_the_machine():
    text = octavo_info()
    assert octavo.__version__ in text
    assert octavo._core.cpu_isas()[0] in text
    assert str(octavo._core.default_num_threads()) in text
