"""resolve_model: local paths, names on the hub, and what is said when neither works."""

import sys
import types

import fake_core  # noqa: F401
import pytest
from octavo import ModelLoadError
from octavo.hub import resolve_model


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A huggingface_hub that "downloads" into a directory and notes what it was asked for."""
    fake = types.ModuleType("huggingface_hub")
    fake.calls, fake.directory, fake.error = [], tmp_path / "snapshot", None
    fake.directory.mkdir()

    def snapshot_download(repo, **options):
        fake.calls.append((repo, options))
        if fake.error is not None:
            raise fake.error
        return str(fake.directory)

    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def test_local_paths_are_taken_as_they_are(tmp_path, hub, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"")
    assert resolve_model(tmp_path) == str(tmp_path)
    assert resolve_model(str(gguf)) == str(gguf)
    monkeypatch.chdir(tmp_path.parent)
    assert resolve_model(tmp_path.name) == tmp_path.name
    assert hub.calls == []


def test_a_directory_with_one_gguf_means_that_file(tmp_path):
    (tmp_path / "only.gguf").write_bytes(b"")
    assert resolve_model(tmp_path) == str(tmp_path / "only.gguf")
    (tmp_path / "second.gguf").write_bytes(b"")
    assert resolve_model(tmp_path) == str(tmp_path)


def test_hub_name(hub):
    (hub.directory / "model.safetensors").write_bytes(b"")
    path = resolve_model("org/name", revision="v1", token="t")
    assert path == str(hub.directory)
    ((repo, options),) = hub.calls
    assert repo == "org/name"
    assert options["revision"] == "v1"
    assert options["token"] == "t"
    assert "*.safetensors" in options["allow_patterns"]
    assert "*.json" in options["allow_patterns"]
    assert not {"*.bin", "*.py"} & set(options["allow_patterns"])


def test_only_configuration_without_weights(hub):
    resolve_model("org/name", weights=False)
    assert "*.safetensors" not in hub.calls[0][1]["allow_patterns"]


def test_one_gguf_file_of_a_repository(hub):
    (hub.directory / "q4.gguf").write_bytes(b"")
    assert resolve_model("org/name:q4.gguf") == str(hub.directory / "q4.gguf")
    assert "q4.gguf" in hub.calls[0][1]["allow_patterns"]
    with pytest.raises(ModelLoadError, match=r"org/name has no file q8\.gguf"):
        resolve_model("org/name:q8.gguf")


def test_a_repository_without_safetensors(hub):
    (hub.directory / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"has no \*\.safetensors \(found pytorch_model\.bin"):
        resolve_model("org/name")


@pytest.mark.parametrize(
    "name", ["/no/such", "./no-such", "~/no-such", "a/b/c", "file.gguf", "dir/file.gguf", "a b", ""]
)
def test_what_looks_like_a_path_is_not_fetched(hub, name):
    with pytest.raises(ModelLoadError, match="does not exist; expected a directory"):
        resolve_model(name)
    assert hub.calls == []


def test_the_error_says_what_was_tried(hub, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub.error = ConnectionError("no route\nto host")
    with pytest.raises(ModelLoadError) as caught:
        resolve_model("org/name", revision="main")
    text = str(caught.value)
    assert "org/name is not a local path" in text
    assert "ConnectionError: no route" in text
    assert "at revision main" in text
    assert "\n" not in text
    assert "HF_HUB_OFFLINE" not in text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE is set"):
        resolve_model("org/name")


def test_offline_with_the_real_library(tmp_path, monkeypatch):
    """conftest has set HF_HUB_OFFLINE: the library looks at the cache and finds nothing."""
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE is set"):
        resolve_model("octavo-tests/none", cache_dir=str(tmp_path))


def test_a_cached_snapshot_is_found_offline(tmp_path):
    pytest.importorskip("huggingface_hub")
    repo = tmp_path / "models--org--name"
    commit = "0" * 40
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"")
    assert resolve_model("org/name", cache_dir=str(tmp_path)) == str(snapshot)
