"""What small models make of edits that a 7B model wrote: a logged round of SEAL's public code, learned again.

    python -m benchmarks.logged_edits measure rank_iter0.json examples/logged_smollm2.toml --out runs/logged-smollm2
    python -m benchmarks.logged_edits table rank_iter0.json runs/logged-* --json logged_edits.json

`measure` trains every edit of the round, and every raw passage for as many steps, and asks the passage's questions; they are also
asked un-edited, and with the passage in view. Beside the greedy answers it keeps the log-probabilities of the gold answers and of
the passage's other gold answers, so that dense scores can be compared afterwards. Stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfedit.config import Settings, load_settings, sub_seed
from selfedit.edits.parsing.logged import read_round
from selfedit.edits.text import passage_change, text_change
from selfedit.engine.base import AdapterBank, Engine, encode_answered
from selfedit.evaluation.machine import load_engine, resolve
from selfedit.inner import applied, training_failure
from selfedit.rewards.metrics.base import Case, make_metric
from selfedit.rewards.reliability import values_of
from selfedit.rewards.string_rules import exact_match, normalise, token_f1
from selfedit.run import write_atomically
from selfedit.templates import answer_in, answer_prompt, gold_text
from selfedit.types import Change, Probe, Scored, Task

from .logged_tables import against_large, ladder, passages, scores_compared
from .turns import say

MOST_OTHERS = 4
UNEDITED, IN_VIEW, PASSAGE = "no_edit", "in_context", "passage_only"


@dataclass(frozen=True)
class Article:
    """A passage of the round with its edits; ``correct[edit][seed]`` is the 7B model's accuracy after learning it."""

    task: Task
    edits: list[str]
    correct: list[list[float]]


def read_articles(path: Path) -> list[Article]:
    """The round's passages, in the file's order; every edit of one was asked the same questions."""
    logged = read_round(path)
    correct = values_of(logged.edits, logged.outcomes, "reward")
    articles = []
    for number, row in enumerate(json.loads(path.read_text(encoding="utf-8"))["articles"]):
        asked = {q["question"]: q["answer"] for c in row["completions"] for q in c["questions"]}
        probes = tuple(Probe(question, answer) for question, answer in asked.items())
        task = Task(f"articles[{number}]", row["title"], (row["context"],), probes)
        articles.append(Article(task, [c["text"] for c in row["completions"]], correct[number]))
    return articles


class Learner:
    """The small model: trains edits and answers, as its settings file says."""

    def __init__(self, settings: Settings) -> None:
        self.settings, _ = resolve(settings)
        self.engine: Engine = load_engine(self.settings)
        self.grader = make_metric("offline", self.settings.reward)

    def un_edited(self, article: Article, open_book: bool) -> dict[str, Any]:
        """The passage's questions, asked of the bare model."""
        return {"tokens": 0, "questions": self._asked([article.task], None, open_book)[0]}

    def learned(self, articles: Sequence[Article], seed: int) -> list[list[dict[str, Any]]]:
        """For each passage: after the raw passage, then after each edit."""
        changes: list[Change] = []
        tasks: list[Task] = []
        for article in articles:
            made = [passage_change(self.settings, self.engine, article.task)]
            made += [text_change(self.settings, self.engine, article.task, text) for text in article.edits]
            one = sub_seed(seed, "logged", article.task.id)  # the same for all of a passage's edits: they are compared
            changes += [replace(change, what=change.seeded(one)) for change in made]
            tasks += [article.task] * len(made)
        rows: list[dict[str, Any]] = [{"problem": "", "tokens": 0, "questions": []} for _ in changes]
        reasons, banks = applied(self.engine, changes, on=None)
        for i, reason in reasons.items():
            rows[i]["problem"] = reason
        for numbers, bank in banks:
            answered = self._asked([tasks[i] for i in numbers], bank, False)
            for member, i in enumerate(numbers):
                questions = [] if (problem := training_failure(bank, member)) else answered[member]
                rows[i] = {"problem": problem, "tokens": bank.trained_tokens[member], "questions": questions}
        found = iter(rows)
        return [[next(found) for _ in range(1 + len(article.edits))] for article in articles]

    def _asked(self, tasks: Sequence[Task], bank: AdapterBank | None, open_book: bool) -> list[list[dict[str, Any]]]:
        """Each question's greedy answer, its grades, and the log-probabilities of all of the passage's gold answers."""
        reward = self.settings.reward
        pairs = [[self._pairs(task, probe, open_book) for probe in task.probes] for task in tasks]
        scored = self.engine.score([[pair for row in rows for pair in row] for rows in pairs], on=None, members=bank)
        prompts = [[row[0][0] for row in rows] for rows in pairs]
        texts = self.engine.answer(prompts, on=None, members=bank, max_new_tokens=reward.max_answer_tokens)
        found = []
        for task, rows, scores, said in zip(tasks, pairs, scored, texts, strict=True):
            left = iter(scores)
            cases = [
                Case(p.question, p.golds, answer_in(text, p, self.settings.templates))
                for p, text in zip(task.probes, said, strict=True)
            ]
            verdicts = self.grader.grade(cases)
            found.append(
                [
                    _question(case, bool(verdict.right), [next(left) for _ in row])
                    for case, verdict, row in zip(cases, verdicts, rows, strict=True)
                ]
            )
        return found

    def _pairs(self, task: Task, probe: Probe, open_book: bool) -> list[tuple[list[int], list[int]]]:
        """The question with its own gold answer first, then with the passage's other ones."""
        templates = self.settings.templates
        prompt = answer_prompt(task, probe, templates, open_book)
        others = {normalise(p.answer): p for p in task.probes if normalise(p.answer) != normalise(probe.answer)}
        few = list(others.values())[:MOST_OTHERS]
        made = [encode_answered(self.engine, templates, prompt, gold_text(p, templates)) for p in (probe, *few)]
        return [(pair.prompt, pair.answer) for pair in made]


def contained(text: str, golds: Sequence[str]) -> bool:
    """Whether one of the gold answers stands in the text, word for word after SQuAD's normalisation."""
    said = f" {normalise(text)} "
    return any((gold := normalise(one)) and f" {gold} " in said for one in golds)


def _question(case: Case, right: bool, scored: Sequence[Scored]) -> dict[str, Any]:
    """``gold``: log-probabilities of the gold answer's tokens, the last one of the stop; ``others``: sums over theirs."""
    return {
        "text": case.text,
        "f1": token_f1(case.text, case.golds),
        "exact": exact_match(case.text, case.golds),
        "contained": contained(case.text, case.golds),
        "right": right,
        "gold": [round(p, 4) for p in scored[0].logprobs],
        "greedy": scored[0].greedy,
        "others": [[round(sum(s.logprobs[:-1]), 4), len(s.logprobs) - 1] for s in scored[1:]],
    }


def measure(articles: Sequence[Article], settings: Settings, seeds: Sequence[int], out: Path, at_once: int) -> None:
    """Append what is missing in ``out/trials.jsonl``: a line a passage, seed and way."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "trials.jsonl"
    done = {(row["passage"], row["seed"]) for row in read_trials(out)}
    learner = Learner(settings)
    say(f"{learner.settings.model.path}, {learner.settings.model.dtype}; {len(done)} of {len(articles) * len(seeds)} are done")
    with file.open("a", encoding="utf-8") as stream:
        for seed in seeds:
            left = [i for i in range(len(articles)) if (i, seed) not in done]
            for start in range(0, len(left), at_once):
                some = left[start : start + at_once]
                learned = learner.learned([articles[i] for i in some], seed)
                for i, rows in zip(some, learned, strict=True):
                    ways: dict[str, Any] = {PASSAGE: rows[0], **{str(k): row for k, row in enumerate(rows[1:])}}
                    if seed == seeds[0]:
                        ways[UNEDITED] = learner.un_edited(articles[i], False)
                        ways[IN_VIEW] = learner.un_edited(articles[i], True)
                    stream.write(json.dumps({"passage": i, "seed": seed, "ways": ways}, ensure_ascii=False) + "\n")
                stream.flush()
                say(f"seed {seed}: {start + len(some)} of {len(left)} passages")


def read_trials(out: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole; one that was cut off is measured again."""
    file = out / "trials.jsonl"
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        file.write_text("".join(lines[:-1]), encoding="utf-8")
    yield from (json.loads(line) for line in lines if line.endswith("\n"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logged_edits", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("measure", help="train and ask (resumes)")
    one.add_argument("round", type=Path, help="the logged round")
    one.add_argument("settings", type=Path, help="a settings file: the model, how it learns, how it is asked")
    one.add_argument("--out", type=Path, required=True, help="directory of what is measured")
    one.add_argument("--seeds", type=int, nargs="+", default=[0])
    one.add_argument("--passages", type=int, help="the first so many only")
    one.add_argument("--at-once", type=int, default=4, help="passages that are learned at once")
    two = verbs.add_parser("table", help="what the trials say, as JSON")
    two.add_argument("round", type=Path, help="the logged round")
    two.add_argument("outs", type=Path, nargs="+", help="directories of `measure`, one a model")
    two.add_argument("--json", type=Path, required=True, help="where the numbers go")
    asked = parser.parse_args(arguments)
    articles = read_articles(asked.round)
    if asked.verb == "measure":
        measure(articles[: asked.passages], load_settings(asked.settings), asked.seeds, asked.out, asked.at_once)
    else:
        models = {out.name: summary(list(read_trials(out)), articles) for out in asked.outs}
        write_atomically(asked.json, json.dumps({"models": models}, indent=1) + "\n")
    return 0


def summary(trials: Sequence[dict[str, Any]], articles: Sequence[Article]) -> dict[str, Any]:
    """A model's part of the table."""
    found = passages(trials)
    rows, paired = ladder(found)
    correct = {i: article.correct for i, article in enumerate(articles)}
    first, *others = (against_large(found, correct, by) for by in ("probability", "logprob", "share", "right", "f1"))
    table = {"n_trials": len(trials), "ladder": rows, "paired": paired, "scores": scores_compared(found)}
    return table | first | {"by_other_scores": others}


if __name__ == "__main__":
    sys.exit(main())
