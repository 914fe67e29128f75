"""Tokenizer and its files: the ids are those of transformers' AutoTokenizer."""

import json
import random
import subprocess
import sys

import fake_core  # noqa: F401
import pytest
import text_models
from octavo import _core
from octavo.errors import ModelLoadError, NotSupportedError, ValidationError
from octavo.gguf_tokenizer import merges_from_scores, tokenizer_from_metadata
from octavo.tokenizer import Tokenizer, load_tokenizer
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

TEXTS = [
    *text_models.TEXTS,
    "<s>[INST] Hi [/INST] there",
    " leading and trailing ",
    "a<|im_end|> b <|im_end|>",
]


@pytest.fixture(scope="module")
def auto():
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained


def random_texts(count: int) -> list[str]:
    rng = random.Random(5)
    alphabet = "ab 19\n\t.,'éß東😀ـק\u0301\u200d▁Ġ<>|"
    return ["".join(rng.choices(alphabet, k=rng.randint(1, 40))) for _ in range(count)]


def assert_equal(ours: Tokenizer, theirs) -> None:
    for text in [*TEXTS, *random_texts(200)]:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special), text
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip
            )
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        assert getattr(ours, name) == getattr(theirs, name), name
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_id"), name
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.all_special_ids == theirs.all_special_ids
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size


# Directories with a tokenizer.json.


def test_byte_level_with_side_files(tmp_path, auto):
    backend = text_models.byte_level(specials=("<|endoftext|>",))
    config = {
        "bos_token": "<|endoftext|>",
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": True},
        "additional_special_tokens": ["<|im_start|>"],
        "chat_template": "{{ messages }}",
    }
    path = text_models.save(backend, tmp_path, config, model_type="llama")
    ours = load_tokenizer(str(path))
    assert_equal(ours, auto(str(path)))
    assert ours.chat_template == "{{ messages }}"
    assert ours.convert_ids_to_tokens(ours.eos_token_id) == "<|im_end|>"


def test_added_tokens_decoder(tmp_path, auto):
    backend = text_models.byte_level(specials=("<|endoftext|>",))
    size = backend.get_vocab_size()
    config = {
        "added_tokens_decoder": {
            "0": {"content": "<|endoftext|>", "special": True},
            str(size + 1): {"content": "<|im_end|>", "special": True, "rstrip": True},
            str(size): {"content": "<|im_start|>", "special": False, "normalized": False},
        },
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    path = text_models.save(backend, tmp_path, config, model_type="llama")
    assert_equal(load_tokenizer(str(path)), auto(str(path)))


def test_special_tokens_map(tmp_path, auto):
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "normalized": False}}
    backend = text_models.byte_level()
    path = text_models.save(backend, tmp_path, model_type="llama", special_tokens_map=tokens)
    assert_equal(load_tokenizer(str(path)), auto(str(path)))


@pytest.mark.parametrize("options", [{}, {"legacy": True}, {"add_prefix_space": False}])
def test_llama_class(tmp_path, auto, options):
    """The file has the normalizer of old conversions; the class decides where spaces go."""
    backend = text_models.sentencepiece_like()
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        **options,
    }
    path = text_models.save(backend, tmp_path, config, model_type="llama")
    assert_equal(load_tokenizer(str(path)), auto(str(path)))


def test_llama_class_of_byte_level_file(tmp_path, auto):
    backend = text_models.byte_level(specials=("<s>", "</s>", "<unk>"))
    config = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    path = text_models.save(backend, tmp_path, config, model_type="llama")
    assert_equal(load_tokenizer(str(path)), auto(str(path)))


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path, auto):
    backend = text_models.byte_level(specials=("<pad>",))
    backend.enable_truncation(4)
    backend.enable_padding(length=8, pad_token="<pad>")
    path = text_models.save(backend, tmp_path, {"pad_token": "<pad>"}, model_type="llama")
    ours = load_tokenizer(str(path))
    text = "The quick brown fox jumps over the lazy dog"
    assert ours.encode(text) == auto(str(path)).encode(text)
    assert len(ours.encode(text)) > 4
    assert ours.decode(ours.encode("Hi")) == "Hi"


# Directories without one.


def save_vocab_and_merges(tmp_path, backend: Backend, config: dict, model_type: str):
    backend.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return tmp_path


def test_opt_puts_its_end_token_first(tmp_path, auto):
    backend = text_models.byte_level(specials=("<s>", "<pad>", "</s>", "<unk>"))
    token = {"__type": "AddedToken", "normalized": True}
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "add_prefix_space": False,
        "bos_token": {"content": "</s>", **token},
        "eos_token": {"content": "</s>", **token},
        "unk_token": {"content": "</s>", **token},
        "pad_token": {"content": "<pad>", **token},
    }
    path = save_vocab_and_merges(tmp_path, backend, config, "opt")
    ours = load_tokenizer(str(path))
    assert_equal(ours, auto(str(path)))
    assert ours.encode("Hello")[0] == ours.encode("</s>", add_special_tokens=False)[0] == 2


def test_gpt2_vocab_and_merges(tmp_path, auto):
    backend = text_models.byte_level(specials=("<|endoftext|>",))
    path = save_vocab_and_merges(tmp_path, backend, {}, "gpt2")
    ours = load_tokenizer(str(path))
    assert_equal(ours, auto(str(path)))
    assert ours.eos_token == "<|endoftext|>"
    assert ours.encode("Hi")[0] != ours.bos_token_id


def test_sentencepiece_model_through_transformers(tmp_path, auto):
    spm = pytest.importorskip("sentencepiece")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(text_models.CORPUS))
    spm.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    corpus.unlink()
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    ours, theirs = load_tokenizer(str(tmp_path)), auto(str(tmp_path))
    assert ours.encode("Hello, world")[0] == ours.bos_token_id
    assert_equal(ours, theirs)


def test_missing_and_malformed_files(tmp_path):
    with pytest.raises(ModelLoadError, match="does not exist"):
        load_tokenizer(str(tmp_path / "nothing"))
    with pytest.raises(ModelLoadError, match=r"no tokenizer; expected one of tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json: .*expected"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelLoadError, match=r"tokenizer_config\.json: expected a JSON object"):
        load_tokenizer(str(tmp_path))


# Chat templates.


def test_chat_template_files_come_first(tmp_path):
    path = text_models.save(text_models.byte_level(), tmp_path, {"chat_template": "config"})
    assert load_tokenizer(str(path)).chat_template == "config"
    (path / "chat_template.jinja").write_text("file\n")
    assert load_tokenizer(str(path)).chat_template == "file\n"
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    both = {"default": "file\n", "tool_use": "tools"}
    assert load_tokenizer(str(path)).chat_template == both


def test_named_chat_templates(tmp_path, auto):
    named = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    path = text_models.save(text_models.byte_level(), tmp_path, {"chat_template": named})
    assert load_tokenizer(str(path)).chat_template == {"default": "A", "tool_use": "B"}


# The object.


def test_lone_surrogates_are_refused():
    with pytest.raises(ValidationError, match="surrogates"):
        Tokenizer(text_models.byte_level()).encode("a\ud800")
    with pytest.raises(TypeError):
        Tokenizer(text_models.byte_level()).encode(b"bytes")


def test_conversions():
    tokenizer = Tokenizer(text_models.byte_level(), special_tokens_map={"eos_token": "!"})
    assert tokenizer.convert_ids_to_tokens([0, 10**6])[1] is None
    assert tokenizer.convert_tokens_to_ids("!") == tokenizer.eos_token_id
    assert tokenizer.convert_tokens_to_ids(["!", "no such"]) == [tokenizer.eos_token_id, None]
    assert tokenizer.bos_token is None
    assert tokenizer.bos_token_id is None
    assert tokenizer.max_token_id == len(tokenizer) - 1
    assert bool(tokenizer)
    assert tokenizer.decode(tokenizer.eos_token_id) == "!"


def test_a_tokenizer_json_needs_no_transformers(tmp_path):
    text_models.save(text_models.byte_level(), tmp_path, {"eos_token": "!"})
    code = (
        "import sys\n"
        "import fake_core\n"
        "from octavo.tokenizer import load_tokenizer\n"
        f"load_tokenizer({str(tmp_path)!r}).encode('Hello')\n"
        "assert not {'transformers', 'torch', 'sentencepiece'} & set(sys.modules)\n"
    )
    path = [str(p) for p in sys.path]
    prefix = f"import sys; sys.path[:] = {path!r}\n"
    subprocess.run([sys.executable, "-c", prefix + code], check=True)


# GGUF.


def byte_level_metadata(backend: Backend, pre: str, **fields) -> dict:
    vocab = backend.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    merges = json.loads(backend.to_str())["model"]["merges"]
    special = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
    user = {t.content for t in backend.get_added_tokens_decoder().values()} - special
    metadata = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "merges": [" ".join(merge) for merge in merges],
        "token_type": [3 if t in special else 4 if t in user else 1 for t in tokens],
        **fields,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITTERS = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    ),
    "llama-bpe": lambda: split_by(LLAMA3),
    "qwen2": lambda: split_by(LLAMA3.replace("{1,3}", "")),
}


def split_by(pattern: str):
    from tokenizers import Regex

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@pytest.mark.parametrize("pre", SPLITTERS)
def test_gguf_byte_level_is_the_same_tokenizer(pre):
    backend = text_models.byte_level(specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    backend.pre_tokenizer = SPLITTERS[pre]()
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    metadata = byte_level_metadata(backend, pre, eos_token_id=2, add_bos_token=False)
    ours = tokenizer_from_metadata(metadata)
    assert ours.eos_token == "<|im_end|>"
    assert len(ours) == backend.get_vocab_size()
    rng = random.Random(1)
    for text in [*TEXTS, *random_texts(300), "a <think>b</think> 12345 c"]:
        assert ours.encode(text) == backend.encode(text).ids, text
        ids = [rng.randrange(len(ours)) for _ in range(20)]
        for skip in (True, False):
            assert ours.decode(ids, skip) == backend.decode(ids, skip_special_tokens=skip)


def test_gguf_special_fields():
    backend = text_models.byte_level(specials=("<|bos|>", "<|eos|>", "<|eot|>"))
    fields = {"bos_token_id": 0, "eos_token_id": 1, "eot_token_id": 2}
    metadata = byte_level_metadata(backend, "gpt-2", **fields)
    metadata["tokenizer.chat_template"] = "T"
    plain = tokenizer_from_metadata(metadata)
    assert plain.encode("a")[0] != 0
    assert plain.chat_template == "T"
    assert plain.extra_eos_token_ids == [2]
    assert plain.all_special_ids == [0, 1, 2]
    metadata["tokenizer.ggml.add_bos_token"] = metadata["tokenizer.ggml.add_eos_token"] = True
    both = tokenizer_from_metadata(metadata)
    assert both.encode("a") == [0, *plain.encode("a"), 1]
    assert both.encode("a", add_special_tokens=False) == plain.encode("a")
    metadata["tokenizer.chat_template.tool_use"] = "U"
    named = tokenizer_from_metadata(metadata).chat_template
    assert named == {"default": "T", "tool_use": "U"}


def test_gguf_llama3_adds_bos_by_default():
    backend = text_models.byte_level(specials=("<|begin_of_text|>",))
    metadata = byte_level_metadata(backend, "llama-bpe", bos_token_id=0)
    assert tokenizer_from_metadata(metadata).encode("a")[0] == 0


def test_gguf_errors():
    backend = text_models.byte_level()
    with pytest.raises(
        NotSupportedError, match=r"tokenizer\.ggml\.pre is 'novel'; expected one of"
    ):
        tokenizer_from_metadata(byte_level_metadata(backend, "novel"))
    with pytest.raises(NotSupportedError, match=r"tokenizer\.ggml\.model is 't5'"):
        tokenizer_from_metadata({**byte_level_metadata(backend, ""), "tokenizer.ggml.model": "t5"})
    with pytest.raises(ModelLoadError, match=r"no tokenizer\.ggml\.tokens"):
        tokenizer_from_metadata({"tokenizer.ggml.model": "gpt2"})
    with pytest.raises(ModelLoadError, match=r"eos_token_id is 99999; expected 0\.\."):
        tokenizer_from_metadata(byte_level_metadata(backend, "", eos_token_id=99999))
    with pytest.raises(ModelLoadError, match="merges"):
        tokenizer_from_metadata(byte_level_metadata(backend, "", merges=["zq qz"]))
    with pytest.raises(ModelLoadError, match="not two tokens"):
        tokenizer_from_metadata(byte_level_metadata(backend, "", merges=["single"]))
    with pytest.raises(ModelLoadError, match="token_type has 1 entries"):
        tokenizer_from_metadata(byte_level_metadata(backend, "", token_type=[1]))
    with pytest.raises(ModelLoadError, match="scores"):
        tokenizer_from_metadata(byte_level_metadata(backend, "", model="llama"))


def sentencepiece_metadata(model_file: str, **fields) -> tuple[dict, object]:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=model_file)
    types = []
    for i in range(model.get_piece_size()):
        kind = 2 if model.is_unknown(i) else 3 if model.is_control(i) else 6
        types.append(kind if kind != 6 or model.is_byte(i) else 1)
    metadata = {
        "model": "llama",
        "tokens": [model.id_to_piece(i) for i in range(model.get_piece_size())],
        "scores": [model.get_score(i) for i in range(model.get_piece_size())],
        "token_type": types,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        **fields,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}, model


def test_gguf_sentencepiece_encodes_as_sentencepiece(tmp_path):
    spm = pytest.importorskip("sentencepiece")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(text_models.CORPUS))
    spm.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "m"),
        model_type="bpe",
        vocab_size=450,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    metadata, model = sentencepiece_metadata(str(tmp_path / "m.model"))
    ours = tokenizer_from_metadata(metadata)
    # In front of a space, transformers' LlamaTokenizer puts none, unlike SentencePiece.
    texts = [t for t in TEXTS if "<" not in t and "\0" not in t and t and not t.startswith(" ")]
    for text in [*texts, "The lazy dog  sleeps", "Größe 東京 😀"]:
        assert ours.encode(text, add_special_tokens=False) == model.encode(text), text
        assert ours.encode(text)[0] == 1
    text = "Hello,  東京 😀!"
    assert ours.decode(ours.encode(text), skip_special_tokens=True) == text


def test_merges_from_scores_are_best_first():
    tokens = ["a", "b", "c", "ab", "bc", "abc", "<x>"]
    scores = [0.0, 0.0, 0.0, -2.0, -1.0, -3.0, 0.0]
    assert merges_from_scores(tokens, scores) == [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]
    assert merges_from_scores(tokens, scores, frozenset((4,))) == [("a", "b"), ("ab", "c")]


def test_gguf_tokenizer_of_smollm2(smollm2):
    """Against the tokenizer.json of the model, rebuilt from its parts."""
    ours = load_tokenizer(str(smollm2))
    metadata = _core.read_gguf_metadata(str(smollm2))
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    known = Backend(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    known.pre_tokenizer = SPLITTERS["smollm"]()
    known.decoder = decoders.ByteLevel()
    known.add_special_tokens(tokens[:17])
    for text in [*TEXTS, *random_texts(300)]:
        assert ours.encode(text) == known.encode(text).ids, text
    assert (ours.bos_token, ours.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert ours.encode("Hello")[0] != ours.bos_token_id
    assert len(ours) == 49152
    assert ours.chat_template.startswith("{% for message in messages %}")


def test_tokenizer_files_beside_a_gguf_come_first(tmp_path):
    text_models.save(text_models.byte_level(), tmp_path, {"eos_token": "!"})
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF, but not read")
    assert load_tokenizer(str(gguf)).eos_token == "!"
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError):
        load_tokenizer(str(gguf))


def test_template_of_the_post_processor_survives(tmp_path, auto):
    backend = text_models.byte_level(specials=("<s>", "</s>"))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="$A $B", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}
    path = text_models.save(backend, tmp_path, config, model_type="llama")
    ours = load_tokenizer(str(path))
    assert_equal(ours, auto(str(path)))
    assert ours.encode("a")[-1] == 1
