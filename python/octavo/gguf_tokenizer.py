"""Builds the tokenizer that a GGUF file carries in its metadata.

Two models are known: "gpt2" (byte-level BPE, whose word splitting ``tokenizer.ggml.pre`` names) and
"llama" (SentencePiece BPE with byte fallback, whose merges follow from the pieces' scores). The
result encodes as the tokenizer.json of the same model does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo import _core
from octavo.errors import ModelLoadError, NotSupportedError
from octavo.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6  # tokenizer.ggml.token_type

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_PUNCTUATION_AND_SPACE}"

_DIGITS_APART = frozenset(("smollm", "starcoder", "refact", "codeshell", "minerva-7b"))
_GPT2_WORDS = frozenset(("gpt-2", "gpt2", "default", "", "phi-2", "olmo"))
_LLAMA3_WORDS = frozenset(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"))
_QWEN2_WORDS = frozenset(("qwen2", "deepseek-r1-qwen"))
_IGNORE_MERGES = frozenset(("llama-bpe", "llama3", "llama-v3", "falcon3"))

_NAMED_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelled so in the format
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
_END_OF_TURN_IDS = ("eot_token_id", "eom_token_id")


def load_gguf_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a .gguf file. Raises ModelLoadError or NotSupportedError."""
    return tokenizer_from_metadata(_core.read_gguf_metadata(path), path)


def tokenizer_from_metadata(metadata: dict[str, Any], path: str = "metadata") -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describes; ``path`` is for messages."""
    prefix = "tokenizer.ggml."
    fields = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    tokens = fields.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens) or not tokens:
        raise ModelLoadError(f"{path}: no tokenizer.ggml.tokens; expected a list of strings")
    kind = fields.get("model")
    try:
        if kind == "gpt2":
            backend = _byte_level(fields, tokens, path)
        elif kind == "llama":
            backend = _sentencepiece(fields, tokens, path)
        else:
            raise NotSupportedError(
                f"{path}: tokenizer.ggml.model is {kind!r}; expected 'gpt2' or 'llama'"
            )
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelLoadError(f"{path}: malformed tokenizer metadata: {error}") from error
    specials = _add_special_tokens(backend, fields, tokens, path)
    named = _named_tokens(fields, tokens, path)
    _set_post_processor(backend, fields, named, default_bos=_adds_bos(fields))
    end_of_turn = [fields[key] for key in _END_OF_TURN_IDS if _is_id(fields.get(key), tokens)]
    return Tokenizer(
        backend,
        special_tokens_map=named,
        extra_special_tokens=specials,
        chat_template=_chat_templates(metadata),
        extra_eos_token_ids=end_of_turn,
    )


def _byte_level(fields: dict[str, Any], tokens: list[str], path: str) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers

    pre = fields.get("pre", "")
    merges = [_split_merge(merge, path) for merge in fields.get("merges", ())]
    try:
        model = models.BPE(
            vocab=_vocabulary(tokens), merges=merges, ignore_merges=pre in _IGNORE_MERGES
        )
    except Exception as error:  # the library raises plain Exception for a merge out of vocabulary
        raise ModelLoadError(f"{path}: tokenizer.ggml.merges: {error}") from error
    backend = Backend(model)
    backend.pre_tokenizer = _word_splitter(pre, path)
    if pre in _QWEN2_WORDS:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _word_splitter(pre: str, path: str) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if pre in _GPT2_WORDS:
        return ByteLevel(add_prefix_space=False, use_regex=True)
    if pre in _DIGITS_APART:
        words = ByteLevel(add_prefix_space=False, use_regex=True)
        return Sequence([Digits(individual_digits=True), words])
    pattern = _LLAMA3 if pre in _LLAMA3_WORDS else _QWEN2 if pre in _QWEN2_WORDS else None
    if pattern is None:
        known = sorted((_GPT2_WORDS | _DIGITS_APART | _LLAMA3_WORDS | _QWEN2_WORDS) - {""})
        raise NotSupportedError(
            f"{path}: tokenizer.ggml.pre is {pre!r}; expected one of {', '.join(known)} "
            "(or put the model's tokenizer.json beside the file)"
        )
    split = Split(Regex(pattern), behavior="isolated")
    return Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])


def _sentencepiece(fields: dict[str, Any], tokens: list[str], path: str) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    scores = fields.get("scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ModelLoadError(
            f"{path}: tokenizer.ggml.scores is missing or not one for each of {len(tokens)} tokens"
        )
    unknown = fields.get("unknown_token_id", 0)
    unk_token = tokens[unknown] if _is_id(unknown, tokens) else None
    merges = merges_from_scores(tokens, scores, _never_merged(fields, len(tokens), path))
    model = models.BPE(
        vocab=_vocabulary(tokens),
        merges=merges,
        unk_token=unk_token,
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Backend(model)
    prefix_space = bool(fields.get("add_space_prefix", True))
    scheme = "first" if prefix_space else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix_space:
        steps.append(decoders.Strip(content=" ", left=1))
    backend.decoder = decoders.Sequence(steps)
    return backend


def merges_from_scores(
    tokens: list[str], scores: list[float], skipped: frozenset[int] = frozenset()
) -> list[tuple[str, str]]:
    """The merges that SentencePiece performs, best first.

    It joins the neighbours whose joint piece has the best score, so every way to cut a piece into
    two pieces is a merge, ranked by the piece's score. ``skipped`` are ids that never join.
    """
    ids = {token: i for i, token in reversed(list(enumerate(tokens))) if i not in skipped}
    ranked: list[tuple[float, int, int, int, int, str, str]] = []
    for token, token_id in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                key = (-scores[token_id], -len(left), -len(right), ids[left], ids[right])
                ranked.append((*key, left, right))
    ranked.sort()
    return [(entry[5], entry[6]) for entry in ranked]


def _never_merged(fields: dict[str, Any], count: int, path: str) -> frozenset[int]:
    types = _token_types(fields, count, path)
    apart = (_UNKNOWN, _CONTROL, _UNUSED, _BYTE)
    return frozenset(i for i, token_type in enumerate(types) if token_type in apart)


def _token_types(fields: dict[str, Any], count: int, path: str) -> list[int]:
    types = fields.get("token_type", [])
    if types and len(types) != count:
        raise ModelLoadError(
            f"{path}: tokenizer.ggml.token_type has {len(types)} entries; expected {count}"
        )
    return list(types)


def _add_special_tokens(
    backend: Any, fields: dict[str, Any], tokens: list[str], path: str
) -> list[str]:
    """Makes control and user-defined tokens match whole; returns the control tokens."""
    from tokenizers import AddedToken

    types = _token_types(fields, len(tokens), path)
    control = [t for t, kind in zip(tokens, types, strict=False) if kind == _CONTROL and t]
    user = [t for t, kind in zip(tokens, types, strict=False) if kind == _USER_DEFINED and t]
    named = list(_named_tokens(fields, tokens, path).values())
    control = list(dict.fromkeys([*control, *named]))
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    backend.add_tokens([AddedToken(t, normalized=False, special=False) for t in user])
    return control


def _named_tokens(fields: dict[str, Any], tokens: list[str], path: str) -> dict[str, str]:
    named = {}
    for name, key in _NAMED_IDS.items():
        value = fields.get(key)
        if value is None:
            continue
        if not _is_id(value, tokens):
            raise ModelLoadError(
                f"{path}: tokenizer.ggml.{key} is {value}; expected 0..{len(tokens) - 1}"
            )
        named[name] = tokens[value]
    return named


def _adds_bos(fields: dict[str, Any]) -> bool:
    """Whether BOS is added where the file does not say."""
    return fields.get("model") == "llama" or fields.get("pre") in _IGNORE_MERGES


def _set_post_processor(
    backend: Any, fields: dict[str, Any], named: dict[str, str], *, default_bos: bool
) -> None:
    from tokenizers import processors

    bos = named.get("bos_token") if fields.get("add_bos_token", default_bos) else None
    eos = named.get("eos_token") if fields.get("add_eos_token", False) else None
    pieces = [token for token in (bos, eos) if token is not None]
    if not pieces:
        return
    ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys(pieces)]
    single = [*([bos] if bos else []), "$A", *([eos] if eos else [])]
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=[*single, "$B"], special_tokens=ids
    )


def _chat_templates(metadata: dict[str, Any]) -> str | dict[str, str] | None:
    default = metadata.get("tokenizer.chat_template")
    prefix = "tokenizer.chat_template."
    named = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    if not named:
        return default
    return {"default": default, **named} if default is not None else named


def _split_merge(merge: str, path: str) -> tuple[str, str]:
    cut = merge.find(" ", 1)
    if cut < 0:
        raise ModelLoadError(f"{path}: merge {merge!r} is not two tokens with a space between")
    return merge[:cut], merge[cut + 1 :]


def _vocabulary(tokens: list[str]) -> dict[str, int]:
    """Token to id; of equal tokens the first id counts."""
    return {token: i for i, token in reversed(list(enumerate(tokens)))}


def _is_id(value: Any, tokens: list[str]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(tokens)
