"""``get_tokenizer`` where programs written for vLLM look for it."""

from __future__ import annotations

import os
from typing import Any

from octavo.errors import ModelLoadError, NotSupportedError, validation_error
from octavo.hub import resolve_model

__all__ = ["get_tokenizer"]

_MODES = ("auto", "hf", "slow")


def get_tokenizer(
    tokenizer_name: str | os.PathLike[str],
    *,
    tokenizer_mode: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    download_dir: str | None = None,
    **kwargs: Any,
) -> Any:
    """The tokenizer of a model as transformers makes it, which such programs expect.

    ``LLM.get_tokenizer`` gives Octavo's own, without transformers. Other arguments go to
    ``transformers.AutoTokenizer``. ``trust_remote_code`` is accepted, as by ``LLM``, and has no
    effect: no code that comes with a model is run.

    Raises:
        ModelLoadError: there is no such model, or transformers cannot load its tokenizer.
        NotSupportedError: it is a .gguf file.
        ValidationError: an unknown tokenizer_mode.
    """
    if tokenizer_mode not in _MODES:
        raise validation_error(
            f"tokenizer_mode must be one of {_MODES}, got {tokenizer_mode!r}",
            parameter="tokenizer_mode",
        )
    path = resolve_model(tokenizer_name, revision=revision, weights=False, cache_dir=download_dir)
    if os.path.isfile(path):
        raise NotSupportedError(
            f"get_tokenizer: {path} is a file; expected a directory, since transformers makes the "
            "tokenizer, or LLM.get_tokenizer"
        )
    import transformers

    use_fast = kwargs.pop("use_fast", tokenizer_mode != "slow")
    try:
        return transformers.AutoTokenizer.from_pretrained(path, use_fast=use_fast, **kwargs)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"get_tokenizer: {path}: {error}") from error
