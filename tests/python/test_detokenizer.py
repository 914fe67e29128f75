"""IncrementalDetokenizer: the sum of the pieces is the decoded text, for any ids and any split;
stop strings end it where they should and are never shown in part."""

import random

import fake_core  # noqa: F401
import pytest
import text_models
from octavo.decode_stages import stages_of
from octavo.detokenizer import IncrementalDetokenizer
from octavo.tokenizer import Tokenizer
from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, WordLevel


def with_added(backend: Backend) -> Tokenizer:
    backend.add_special_tokens(["<|end|>", "<|ünïcode ☃|>", "<s>"])
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken(" spaced ")])
    return Tokenizer(backend)


def wordpiece() -> Tokenizer:
    tokens = ["[UNK]", "hello", "##s", "world", ",", "do", "n't", "##ing", ".", "a"]
    backend = Backend(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    return Tokenizer(backend)


def metaspace(scheme: str) -> Tokenizer:
    backend = text_models.sentencepiece_like()
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return with_added(backend)


def undecoded() -> Tokenizer:
    tokens = ["<unk>", "a", "b", " c", "▁d", "é"]
    return Tokenizer(Backend(WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>")))


def replaced_after_fuse() -> Tokenizer:
    backend = text_models.sentencepiece_like()
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")]
    )
    return with_added(backend)


def stripped_pieces() -> Tokenizer:
    backend = text_models.sentencepiece_like()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Strip(content=" ", left=1)]
    )
    return with_added(backend)


TOKENIZERS = {
    "byte-level": lambda: with_added(text_models.byte_level()),
    "byte fallback": lambda: with_added(text_models.sentencepiece_like()),
    "metaspace always": lambda: metaspace("always"),
    "metaspace never": lambda: metaspace("never"),
    "no decoder": undecoded,
    "replace after fuse": replaced_after_fuse,
    "strip pieces": stripped_pieces,
    "wordpiece": wordpiece,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request) -> Tokenizer:
    return TOKENIZERS[request.param]()


def random_ids(tokenizer: Tokenizer, rng: random.Random) -> list[int]:
    """Random ids, of which many are bytes, specials or outside of the vocabulary."""
    size = len(tokenizer)
    pools = [range(size), range(min(size, 300)), range(max(size - 6, 0), size), [size + 7, 2**31]]
    return [rng.choice(rng.choice(pools[:3] if rng.random() < 0.9 else pools)) for _ in range(30)]


def pieces_of(detokenizer: IncrementalDetokenizer, ids: list[int], rng: random.Random) -> list[str]:
    pieces, position = [], 0
    while position < len(ids):
        count = rng.randint(0, 4)
        pieces.append(detokenizer.feed(ids[position : position + count]))
        position += count
    return [*pieces, detokenizer.finish()]


@pytest.mark.parametrize("skip", [True, False])
def test_pieces_add_up_to_the_decoded_text(tokenizer, skip):
    rng = random.Random(7)
    for _ in range(600):
        ids = random_ids(tokenizer, rng)[: rng.randint(0, 30)]
        detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip)
        pieces = pieces_of(detokenizer, ids, rng)
        known = [i for i in ids if i < 2**31]
        assert "".join(pieces) == tokenizer.decode(known, skip_special_tokens=skip)
        assert detokenizer.text == "".join(pieces)
        for piece in pieces:
            piece.encode("utf-8")


@pytest.mark.parametrize("text", text_models.TEXTS)
def test_encoded_text_comes_back_one_token_at_a_time(text):
    for make in (text_models.byte_level, text_models.sentencepiece_like):
        tokenizer = Tokenizer(make())
        ids = tokenizer.encode(text, add_special_tokens=False)
        detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)
        out = "".join([*(detokenizer.feed([i]) for i in ids), detokenizer.finish()])
        assert out == tokenizer.decode(ids)
        if make is text_models.byte_level:
            assert out == text


def test_a_character_comes_whole():
    tokenizer = Tokenizer(text_models.byte_level(vocab_size=256))
    ids = tokenizer.encode("a😀b", add_special_tokens=False)
    assert len(ids) == 6
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert [detokenizer.feed([i]) for i in ids] == ["a", "", "", "", "😀", "b"]


def test_an_incomplete_character_is_a_replacement_at_the_end():
    tokenizer = Tokenizer(text_models.byte_level(vocab_size=256))
    ids = tokenizer.encode("a😀", add_special_tokens=False)[:-1]
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert detokenizer.feed(ids) == "a"
    assert detokenizer.finish() == "\ufffd"


def test_byte_level_streams_at_once_and_unknown_decoders_do_not():
    assert stages_of(text_models.byte_level().decoder, continuation=False) is not None
    assert stages_of(text_models.sentencepiece_like().decoder, continuation=False) is not None
    assert stages_of(decoders.CTC(), continuation=False) is None
    assert (
        stages_of(decoders.Sequence([decoders.Fuse(), decoders.BPEDecoder()]), continuation=False)
        is None
    )


def test_a_continuation_keeps_the_first_space():
    tokenizer = Tokenizer(text_models.sentencepiece_like())
    ids = tokenizer.encode("dog", add_special_tokens=False)
    assert tokenizer.decode(ids) == "dog"
    going_on = IncrementalDetokenizer(tokenizer, continuation=True)
    assert going_on.feed(ids) + going_on.finish() == " dog"


def test_never_raises():
    tokenizer = Tokenizer(text_models.byte_level())
    detokenizer = IncrementalDetokenizer(tokenizer, stop=["x"])
    detokenizer.feed([-1, 10**12, 2**32, 2**64, len(tokenizer)])
    assert detokenizer.finish() == ""
    assert detokenizer.finish() == ""
    assert detokenizer.feed([1]) == ""


# Stop strings.


def expected_stop(
    texts: list[str], stops: list[str], min_tokens: int, include: bool
) -> tuple[str, str | None, int]:
    """By brute force: the text, the stop string, the tokens; `texts[i]` is token i's text."""
    text = ""
    for count, piece in enumerate(texts, start=1):
        for char in piece:
            text += char
            if count <= min_tokens:
                continue
            for stop in stops:
                if text.endswith(stop):
                    return (text if include else text[: -len(stop)]), stop, count
    return text, None, len(texts)


@pytest.mark.parametrize("include", [False, True])
def test_stop_strings_against_brute_force(include):
    backend = Backend(BPE({c: i for i, c in enumerate("ab c")} | {"ab": 5, "bab": 6, "aa": 7}, []))
    backend.decoder = decoders.Fuse()
    tokenizer = Tokenizer(backend)
    rng = random.Random(3)
    for _ in range(3000):
        ids = [rng.choice([0, 1, 2, 3, 5, 6, 7]) for _ in range(rng.randint(0, 14))]
        stops = [
            "".join(rng.choices("ab c", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 3))
        ]
        min_tokens = rng.choice([0, 0, 3])
        texts = [backend.id_to_token(i) for i in ids]
        text, stop, count = expected_stop(texts, stops, min_tokens, include)
        detokenizer = IncrementalDetokenizer(
            tokenizer, stop=stops, include_stop_str_in_output=include, min_tokens=min_tokens
        )
        shown = ""
        for piece in pieces_of(detokenizer, ids, rng):
            shown += piece
            assert text.startswith(shown), (ids, stops)
        assert (shown, detokenizer.stop_string) == (text, stop), (ids, stops, min_tokens)
        assert detokenizer.num_tokens == count


def test_only_a_possible_beginning_is_held_back():
    tokenizer = Tokenizer(text_models.byte_level(vocab_size=256))
    detokenizer = IncrementalDetokenizer(tokenizer, stop=["</answer>"])
    pieces = [detokenizer.feed(tokenizer.encode(c)) for c in "x < y </ans"]
    assert pieces == ["x", " ", "", "< ", "y", " ", "", "", "", "", ""]
    assert detokenizer.finish() == "</ans"


def test_stop_string_within_a_token_that_goes_on():
    tokenizer = Tokenizer(text_models.byte_level())
    ids = tokenizer.encode("the lazy dog")
    detokenizer = IncrementalDetokenizer(tokenizer, stop=["laz"])
    assert detokenizer.feed(ids) == "the "
    assert detokenizer.stop_string == "laz"
    assert detokenizer.finish() == ""


def test_the_first_in_the_list_wins_a_tie():
    tokenizer = Tokenizer(text_models.byte_level())
    for stops, text in ((["dog", "og"], "lazy "), (["og", "dog"], "lazy d")):
        detokenizer = IncrementalDetokenizer(tokenizer, stop=stops)
        assert detokenizer.feed(tokenizer.encode("lazy dog")) == text
        assert detokenizer.stop_string == stops[0]


def test_stop_strings_with_an_unknown_decoder():
    tokenizer = wordpiece()
    detokenizer = IncrementalDetokenizer(tokenizer, stop=["worlds"])
    texts = [detokenizer.feed([i]) for i in (1, 3, 2, 4)]  # hello world ##s ,
    assert "".join(texts) == "hello "
    assert detokenizer.num_tokens == 3
    assert detokenizer.stopped
    assert detokenizer.finish() == ""


@pytest.mark.parametrize("skip", [True, False])
def test_stop_strings_of_random_text(tokenizer, skip):
    """With any decoder: a stop string of the text cuts it at its first occurrence."""
    rng = random.Random(11)
    for _ in range(150):
        ids = [i for i in random_ids(tokenizer, rng) if i < 2**31]
        text = tokenizer.decode(ids, skip_special_tokens=skip)
        if not text:
            continue
        start = rng.randrange(len(text))
        stop = text[start : start + rng.randint(1, 4)]
        detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip, stop=[stop])
        shown = ""
        for piece in pieces_of(detokenizer, ids, rng):
            shown += piece
            assert stop not in shown
        if tokenizer.backend.decoder is not None and stages_of(
            tokenizer.backend.decoder, continuation=False
        ):
            assert shown == text[: text.index(stop)]
        assert detokenizer.stopped
