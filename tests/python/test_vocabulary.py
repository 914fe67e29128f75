"""token_bytes: what each id adds to a text, against the detokenizer on random ids."""

import fake_core  # noqa: F401
import numpy as np
import pytest
import text_models
from octavo.detokenizer import IncrementalDetokenizer
from octavo.structured_outputs import token_bytes
from octavo.tokenizer import Tokenizer, load_tokenizer
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

SPECIALS = ("<unk>", "<s>", "</s>")
WORDS = [
    "[UNK]",
    "[CLS]",
    "play",
    "##ing",
    "##ed",
    "the",
    "don",
    "'",
    "t",
    ".",
    ",",
    "a",
    "日",
    "##本",
]


def byte_level() -> Tokenizer:
    backend = text_models.byte_level(400, SPECIALS)
    backend.add_tokens(["a token of its own", "Größe ▁ "])
    return Tokenizer(backend, special_tokens_map={"eos_token": "</s>"})


def sentencepiece() -> Tokenizer:
    return Tokenizer(text_models.sentencepiece_like())


def metaspace() -> Tokenizer:
    backend = text_models.sentencepiece_like()
    backend.decoder = decoders.Metaspace()
    return Tokenizer(backend)


def without_decoder() -> Tokenizer:
    backend = text_models.sentencepiece_like()
    backend.decoder = None
    return Tokenizer(backend)


def word_pieces(cleanup: bool = True) -> Tokenizer:
    backend = Backend(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=cleanup)
    backend.add_special_tokens(["[UNK]", "[CLS]"])
    return Tokenizer(backend)


def with_suffixes() -> Tokenizer:
    words = ["<unk>", "lo", "w</w>", "er</w>", "new", "a</w>", "b", "日本</w>"]
    backend = Backend(models.BPE({w: i for i, w in enumerate(words)}, merges=[], unk_token="<unk>"))
    backend.decoder = decoders.BPEDecoder()
    backend.add_special_tokens(["<unk>"])
    return Tokenizer(backend)


def random_ids(tokenizer: Tokenizer, seed: int, count: int) -> list[list[int]]:
    """Sequences without special tokens, of few different ids, so that bytes make characters."""
    random = np.random.default_rng(seed)
    ids = np.array(sorted(set(tokenizer.get_vocab().values()) - tokenizer.skipped_ids))
    sequences = []
    for _ in range(count):
        pool = random.choice(ids, size=random.integers(1, 12))
        sequences.append(random.choice(pool, size=random.integers(0, 40)).tolist())
    return sequences


def shown(tokenizer: Tokenizer, ids: list[int]) -> str:
    detokenizer = IncrementalDetokenizer(tokenizer, continuation=True)
    detokenizer.feed(ids)
    detokenizer.finish()
    return detokenizer.text


def check_against_the_detokenizer(tokenizer: Tokenizer, count: int, *, invalid: bool) -> None:
    """With `invalid`, on bytes that are no UTF-8 too."""
    table = token_bytes(tokenizer, tokenizer.max_token_id + 1)
    valid = 0
    for ids in random_ids(tokenizer, 1, count):
        added = b"".join(table[i] for i in ids)
        try:
            expected = added.decode("utf-8")
            valid += 1
        except UnicodeDecodeError:
            if not invalid:
                continue
            expected = added.decode("utf-8", errors="replace")
        assert shown(tokenizer, ids) == expected
    assert valid > count / 10


def test_byte_level():
    check_against_the_detokenizer(byte_level(), 1000, invalid=True)


@pytest.mark.parametrize("make", [sentencepiece, metaspace])
def test_sentencepiece_and_its_kin(make):
    check_against_the_detokenizer(make(), 1000, invalid=False)


def test_smollm2(smollm2):
    check_against_the_detokenizer(load_tokenizer(str(smollm2)), 1000, invalid=True)


def test_bytes_of_multibyte_characters():
    for tokenizer in (byte_level(), sentencepiece()):
        table = token_bytes(tokenizer, tokenizer.max_token_id + 1)
        for text in ("naïve 東京 😀", " two  spaces\n\t", "quick brown fox"):
            ids = tokenizer.encode(" x" + text, add_special_tokens=False)
            assert b"".join(table[i] for i in ids).lstrip() == f"x{text}".encode()


@pytest.mark.parametrize(
    "make", [word_pieces, lambda: word_pieces(False), with_suffixes, without_decoder]
)
def test_other_decoders(make):
    """Between other tokens, since the first or the last is decoded in a way of its own."""
    tokenizer = make()
    table = token_bytes(tokenizer, tokenizer.max_token_id + 1)
    assert all(table[i] for i in set(tokenizer.get_vocab().values()) - tokenizer.skipped_ids)
    anchor = next(i for word in ("a", "b") if (i := tokenizer.get_vocab().get(word)) is not None)
    frame = tokenizer.decode([anchor, anchor])
    for ids in random_ids(tokenizer, 2, 300):
        text = tokenizer.decode([anchor, *ids, anchor])
        added = b"".join(table[i] for i in ids).decode()
        assert text in {frame[:cut] + added + frame[cut:] for cut in range(len(frame) + 1)}


def test_special_and_unknown_ids_have_none():
    tokenizer = byte_level()
    size = tokenizer.max_token_id + 1
    table = token_bytes(tokenizer, size + 5)
    assert len(table) == size + 5
    assert table[size:] == [b""] * 5
    specials = [tokenizer.convert_tokens_to_ids(token) for token in SPECIALS]
    assert [table[i] for i in specials] == [b""] * 3
    assert len([entry for entry in table if entry]) == size - 3
    assert table[tokenizer.convert_tokens_to_ids("a token of its own")] == b"a token of its own"
    assert len(token_bytes(tokenizer, 10)) == 10


def test_an_added_token_that_is_not_special_has_its_text():
    backend = text_models.sentencepiece_like()
    backend.add_tokens([AddedToken("<tool>", special=False)])
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    tokenizer = Tokenizer(backend)
    table = token_bytes(tokenizer, tokenizer.max_token_id + 1)
    assert table[backend.token_to_id("<tool>")] == b"<tool>"
    assert table[backend.token_to_id("<end>")] == b""


class OnlyDecodes(Tokenizer):
    """A tokenizer that is not the library's, as SlowTokenizer."""

    @property
    def backend(self):
        return object()

    @property
    def skipped_ids(self):
        return frozenset(self.all_special_ids)

    def decode(self, token_ids, skip_special_tokens=False):
        return self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def get_vocab(self):
        return self._backend.get_vocab()

    def convert_ids_to_tokens(self, token_ids):
        return self._backend.id_to_token(token_ids)


def test_a_tokenizer_of_another_library():
    inner = text_models.sentencepiece_like()
    tokenizer = OnlyDecodes(inner, extra_special_tokens=SPECIALS)
    size = inner.get_vocab_size()
    assert token_bytes(tokenizer, size) == token_bytes(Tokenizer(inner), size)
