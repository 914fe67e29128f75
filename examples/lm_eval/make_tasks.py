"""Writes four small tasks for lm-eval, made from the help texts that come with Python.

Usage: python make_tasks.py DIRECTORY [--items 24] [--seed 0]

DIRECTORY then holds a .jsonl file and a .yaml file for each task; give it to lm-eval as
--include_path. The same Python version and arguments give the same files.
"""

import argparse
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

TEMPLATES = Path(__file__).resolve().parent / "tasks"
NUM_ENDINGS = 4
BEGINNING_WORDS = 24
ENDING_WORDS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--items", type=int, default=24, help="items of each task, up to 50")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_tasks(arguments.directory, arguments.items, arguments.seed)


def make_tasks(directory: Path, num_items: int, seed: int = 0) -> list[str]:
    """Writes the tasks' files, and returns the tasks' names."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, make_items in TASKS.items():
        items = make_items(read_paragraphs(), random.Random(f"{name} {seed}"))[:num_items]
        if len(items) < num_items:
            raise ValueError(f"{name}: only {len(items)} items, expected {num_items}")
        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        task = (TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")
        # lm-eval would look for a relative path in the directory that it is run in.
        task = task.replace("DIRECTORY", str(directory.resolve()))
        (directory / f"{name}.yaml").write_text(task, encoding="utf-8")
    return list(TASKS)


def read_paragraphs() -> list[str]:
    """The paragraphs of prose, each in one line: no code, lists, headings or grammar."""
    paragraphs = set()
    for text in topics.values():
        for block in re.split(r"\n\s*\n", text):
            paragraph = " ".join(block.split())
            is_prose = re.fullmatch(r"[A-Z][^`:=]+\.", paragraph) and "\n " not in block
            if is_prose and 250 <= len(paragraph) <= 400:
                paragraphs.add(paragraph)
    return sorted(paragraphs)


def cloze_items(paragraphs: list[str], rng: random.Random) -> list[dict[str, Any]]:
    """The beginning of each paragraph, and what follows it among what follows others."""
    rng.shuffle(paragraphs)
    parts = []
    for paragraph in paragraphs:
        words = paragraph.split()
        parts.append((words[:BEGINNING_WORDS], words[BEGINNING_WORDS:][:ENDING_WORDS]))
    items = []
    for i, (beginning, ending) in enumerate(parts):
        others = [other for _, other in parts[:i] + parts[i + 1 :]]
        endings = rng.sample(others, NUM_ENDINGS - 1)
        answer = rng.randrange(NUM_ENDINGS)
        endings.insert(answer, ending)
        items.append(
            {
                "beginning": " ".join(beginning),
                "endings": [" ".join(words) for words in endings],
                "answer": answer,
            }
        )
    return items


def last_word_items(paragraphs: list[str], rng: random.Random) -> list[dict[str, Any]]:
    """Each paragraph without its last word, if that is made of letters, and the word."""
    rng.shuffle(paragraphs)
    cuts = [paragraph.removesuffix(".").rpartition(" ") for paragraph in paragraphs]
    return [
        {"beginning": beginning, "ending": f" {word}"}
        for beginning, _, word in cuts
        if word.isalpha()
    ]


def prose_items(paragraphs: list[str], rng: random.Random) -> list[dict[str, Any]]:
    """Whole paragraphs."""
    rng.shuffle(paragraphs)
    return [{"text": paragraph} for paragraph in paragraphs]


def recall_items(paragraphs: list[str], rng: random.Random) -> list[dict[str, Any]]:
    """Each paragraph and the first half of its first sentence again, and that sentence's end."""
    rng.shuffle(paragraphs)
    items = []
    for paragraph in paragraphs:
        sentence, _, rest = paragraph.partition(". ")
        words = sentence.split()
        if rest and 8 <= len(words) <= 24:
            middle = len(words) // 2
            beginning = f"{paragraph}\n\n{' '.join(words[:middle])}"
            items.append({"beginning": beginning, "ending": " " + " ".join(words[middle:])})
    return items


TASKS: dict[str, Callable[[list[str], random.Random], list[dict[str, Any]]]] = {
    "octavo_cloze": cloze_items,
    "octavo_last_word": last_word_items,
    "octavo_prose": prose_items,
    "octavo_recall": recall_items,
}

if __name__ == "__main__":
    main()
