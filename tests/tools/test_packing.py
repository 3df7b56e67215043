"""Rows of documents: a branch sees its passage and itself, nothing else, and is never without its passage."""

import random

import pytest
import torch

from selfedit.tasks.world.story import closed_book_stories
from tools.base.documents import Document, document
from tools.base.packing import Packer


@pytest.fixture(scope="module")
def packer(tokenizer):
    return Packer(tokenizer)


def drawn(stage, seed):
    rng, known = random.Random(seed), closed_book_stories()
    return lambda: document(rng, stage, known)


@pytest.mark.parametrize("stage", ["bind", "grow", "full"])
def test_every_answer_that_counts_sees_its_passage_and_no_other_branch(packer, stage):
    documents = []

    def draw():
        documents.append(drawn(stage, len(documents))())
        return documents[-1]

    batch = packer.batch(6, 192, draw)
    bos = packer.bos
    for row in range(6):
        ids, visible = batch.ids[row], batch.visible[row]
        for t in (batch.weights[row] == 1.0).nonzero().flatten().tolist():
            seen = ids[visible[t]].tolist()
            assert seen.count(bos) == 1  # one document
            assert seen[0] == bos
            assert seen.count(packer.encode(" Answer")[0]) <= 1  # one question
            assert batch.positions[row][visible[t]].tolist() == list(range(len(seen)))


def test_labels_are_the_next_token_and_padding_never_counts(packer):
    batch = packer.batch(8, 128, drawn("full", 1))
    counted = batch.weights > 0
    following = torch.roll(batch.ids, -1, dims=1)
    assert (batch.labels[counted] == following[counted]).all()
    assert not counted[batch.ids == 0].any()


def test_a_document_that_does_not_fit_is_left_out_whole(packer):
    long = Document("Passage:" + " Mira Torberg" * 60 + "\n", [[(" Question: x? Answer:", 0.0), (" yes", 1.0)]])
    short = Document("", [[(" Question: y? Answer:", 0.0), (" no", 1.0)]])
    queue = [short, long, long, long]
    batch = packer.batch(1, 64, lambda: queue.pop(0))
    assert packer.encode(" yes")[0] not in batch.ids[0].tolist()
    assert packer.encode(" no")[0] in batch.ids[0].tolist()


def test_the_same_step_gives_the_same_batch(packer):
    a, b = packer.batch(4, 128, drawn("grow", 7)), packer.batch(4, 128, drawn("grow", 7))
    assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_words_remembered_give_the_same_ids_as_whole_texts(packer, tokenizer):
    tokenizer = tokenizer.backend_tokenizer
    texts = ["", " ", "\n", "Passage: a\n", "  two  spaces \n\n", "It's Ünï — ☃ 12,5!", "\t\u00a0x\u3000"]
    for stage in ("bind", "grow", "full"):
        for seed in range(20):
            doc = drawn(stage, seed)()
            texts += [doc.prefix, *(text for branch in doc.branches for text, _ in branch)]
    for text in texts:
        assert packer.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids
