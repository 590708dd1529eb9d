"""Small data that programs look for, made in a copy of their repository."""
from __future__ import annotations

import json
import pickle
import random
import string
from pathlib import Path

import numpy as np

WORDS = [a + b for a in ("ba", "do", "ki", "lu", "me", "no") for b in ("r", "s", "ta", "vo", "x")]


def text(count: int, seed: int = 0) -> str:
    """`count` made-up words in lines of eight."""
    rng = random.Random(seed)
    return "\n".join(" ".join(rng.choice(WORDS) for _ in range(8)) for _ in range(count // 8)) + "\n"


def written(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def corpus(here: Path, root: Path) -> None:
    written(here / "data/train.txt", text(8000))


def words(here: Path, root: Path) -> None:
    for i, name in enumerate(("train", "valid", "test")):
        written(here / "words" / f"{name}.txt", text((2400, 400, 400)[i], i))


def names(here: Path, root: Path) -> None:
    rng = random.Random(0)
    written(here / "names.txt", "\n".join("".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 9))) for _ in range(2000)))


def names3(here: Path, root: Path) -> None:
    rng = random.Random(0)
    for language in ("One", "Two", "Three"):
        lines = "\n".join("".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 9))).title() for _ in range(50))
        for folder in ("data/names", "../data/names"):
            written(here / folder / f"{language}.txt", lines)


def input(here: Path, root: Path) -> None:
    written(here / "input.txt", string.printable + text(4000))


def results(here: Path, root: Path) -> None:
    (here / "results").mkdir(exist_ok=True)


def waves(here: Path, root: Path) -> None:
    """Instead of `generate_sine_wave.py`, which writes with torch.save."""
    import torch
    x = np.arange(60) + np.random.RandomState(2).randint(-80, 80, 20).reshape(20, 1)
    torch.save(np.sin(x / 20.0), here / "traindata.pt")


def bsds(here: Path, root: Path) -> None:
    from PIL import Image
    rng = np.random.RandomState(0)
    for part, count in (("train", 4), ("test", 2)):
        folder = here / "dataset/BSDS300/images" / part
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.randint(0, 256, (300, 280, 3)).astype(np.uint8)).save(folder / f"{i}.jpg")


def citations(folder: Path, papers: int = 150) -> None:
    """Of the form of the Cora data set: papers with words and a class, and who cites whom. As many as the split by number needs."""
    rng = np.random.RandomState(0)
    kinds = ("Case_Based", "Genetic_Algorithms", "Neural_Networks", "Probabilistic_Methods", "Reinforcement_Learning", "Rule_Learning", "Theory")
    lines = [f"{1000 + i} " + " ".join(map(str, (rng.rand(30) < 0.2).astype(int))) + f" {kinds[rng.randint(7)]}" for i in range(papers)]
    written(folder / "cora.content", "\n".join(lines).replace(" ", "\t") + "\n")
    written(folder / "cora.cites", "\n".join(f"{1000 + rng.randint(papers)}\t{1000 + rng.randint(papers)}" for _ in range(3 * papers)) + "\n")


def cora(here: Path, root: Path) -> None:
    citations(here / "cora", 400)


def cora2(here: Path, root: Path) -> None:
    for folder in (here / "data/cora", root / "data/cora"):
        citations(folder, 1600)


def tokens(here: Path, root: Path) -> None:
    rng = np.random.RandomState(0)
    for part in ("train", "val"):
        written(here / "data/toy" / f"{part}.bin", rng.randint(0, 65, 2000).astype(np.uint16).tobytes())
    written(here / "data/toy/meta.pkl", pickle.dumps({"vocab_size": 65}))


def ner(here: Path, root: Path) -> None:
    rng = random.Random(0)
    folder = here / "data/toy"
    for part, count in (("train", 40), ("val", 10), ("test", 10)):
        lines = [[rng.choice(WORDS) for _ in range(rng.randint(3, 8))] for _ in range(count)]
        written(folder / part / "sentences.txt", "\n".join(map(" ".join, lines)) + "\n")
        written(folder / part / "labels.txt", "\n".join(" ".join(rng.choice("OBI") for _ in line) for line in lines) + "\n")
    written(folder / "words.txt", "\n".join([*WORDS, "<pad>", "UNK"]))
    written(folder / "tags.txt", "O\nB\nI")
    params = {"train_size": 40, "dev_size": 10, "test_size": 10, "vocab_size": len(WORDS) + 2, "number_of_tags": 3, "pad_word": "<pad>",
              "pad_tag": "O", "unk_word": "UNK"}
    written(folder / "dataset_params.json", json.dumps(params))
