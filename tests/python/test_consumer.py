"""A C++ program embeds the installed library by find_package(octavo)."""

import os
import shutil
import subprocess
from pathlib import Path

import octavo
import pytest
from engine_driver import generate, greedy, make_engine

SOURCE = Path(__file__).resolve().parent.parent / "consumer"
PROMPT = [5, 17, 3, 99, 42]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def build(directory: Path, cmake_dir: str | Path) -> Path:
    """Builds tests/consumer against the package at `cmake_dir`; returns the program."""
    assert shutil.which("cmake"), "the tests need cmake: run them by `make test`"
    configured = run("cmake", "-S", SOURCE, "-B", directory, f"-Doctavo_DIR={cmake_dir}")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    built = run("cmake", "--build", directory)
    assert built.returncode == 0, built.stdout + built.stderr
    return directory / "consumer"


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    return build(tmp_path_factory.mktemp("consumer"), octavo.get_cmake_dir())


def test_program_generates_what_python_generates(consumer, tiny_model):
    model = tiny_model("llama")
    result = run(consumer, model, *PROMPT)
    assert result.returncode == 0, result.stderr
    ids = [int(line) for line in result.stdout.split()]
    assert len(ids) == 8
    assert [ids] == generate(make_engine(model), [PROMPT], greedy(8))


def test_errors_are_exceptions_of_the_public_headers(consumer, tiny_model, tmp_path):
    missing = run(consumer, tmp_path / "nothing", *PROMPT)
    assert missing.returncode == 1
    assert "nothing" in missing.stderr
    empty_prompt = run(consumer, tiny_model("llama"))
    assert empty_prompt.returncode == 1
    assert empty_prompt.stderr


def test_program_needs_only_the_library(consumer):
    dynamic = run("readelf", "-d", consumer).stdout.splitlines()
    needed = [line.split("[")[1] for line in dynamic if "NEEDED" in line]
    assert any(name.startswith("liboctavo.so") for name in needed)
    assert not any(name.startswith("libpython") for name in needed)


def test_package_can_be_moved(tmp_path, tiny_model):
    """No path of the machine that built it, or of its first place, is in the package."""
    installed = Path(octavo.get_cmake_dir()).parents[2]  # octavo/lib/cmake/octavo
    assert (installed / "lib" / "liboctavo.so").is_file()
    moved = tmp_path / "elsewhere" / "octavo"
    for part in ("lib", "include"):
        shutil.copytree(installed / part, moved / part)
    for file in (moved / "lib" / "cmake" / "octavo").iterdir():
        assert os.fspath(installed) not in file.read_text()
    program = build(tmp_path / "build", moved / "lib" / "cmake" / "octavo")
    assert str(moved) in run("readelf", "-d", program).stdout  # its run path
    result = run(program, tiny_model("llama"), *PROMPT)
    assert result.returncode == 0, result.stderr
