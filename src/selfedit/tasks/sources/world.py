"""The embedded world as a source of tasks: drawn, not stored; names of different splits never meet."""

from __future__ import annotations

import hashlib
import random

from ...config import TaskSettings, sub_seed
from ...types import Probe, Task
from ..world.lexicon import Split
from ..world.story import closed_book_stories, draw_probes, draw_story, passage, question
from ..world.writing import perfect_edit
from .base import texts_digest


def draw_tasks(split: Split, families: tuple[str, ...], n: int, seed: int, probes_per_kind: int = 2) -> list[Task]:
    """``n`` tasks about entities of ``split``; families take turns, so that every prefix is balanced."""
    tasks: list[Task] = []
    for i in range(n):
        rng = random.Random(f"{split}/{seed}/{i}")
        story = draw_story(rng, split, families[i % len(families)])
        tasks.append(
            Task(
                id=f"{split}-{seed}-{i}",
                title=" and ".join(story.mains),
                context=(passage(rng, story),),
                probes=draw_probes(rng, story, probes_per_kind),
                gold_edit=perfect_edit(rng, story),
                family=story.family,
            )
        )
    return tasks


def known_probes(n: int, seed: int = 0) -> list[Probe]:
    """``n`` direct questions about what the base was pretrained to know by heart."""
    rng, stories = random.Random(f"known/{seed}"), closed_book_stories()
    return [question(rng, "direct", rng.choice(rng.choice(stories).facts)) for _ in range(n)]


class World:
    """The embedded world: passages about made-up people, towns, companies and ships, drawn from the run's seed."""

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def _draw(self, split: Split, n: int, *names: object) -> list[Task]:
        families, seed = self.settings.families, sub_seed(self.seed, "tasks", *names)
        return draw_tasks(split, families, n, seed, self.settings.probes_per_kind)

    def draw(self, round: int) -> list[Task]:
        """The training contexts of a round: fresh ones every time."""
        return self._draw("train", self.settings.per_round, "train", round)

    def dev(self) -> list[Task]:
        """Development tasks, the same in every round."""
        return self._draw("dev", self.settings.dev, "dev")

    def evaluation(self) -> list[Task]:
        """The ladder's held-out tasks: never the ones `dev` returns."""
        return self._draw("test" if self.settings.split == "test" else "dev", self.settings.evaluation, "evaluation")

    def known(self, n: int) -> list[Probe]:
        """Questions that the base answers closed-book, for the retention guard."""
        return known_probes(n, sub_seed(self.seed, "known"))

    def sha256s(self) -> dict[str, str]:
        """A hash of the development and evaluation tasks; it is other where another version draws other ones."""
        digests = [texts_digest(task) for task in [*self.dev(), *self.evaluation()]]
        return {"world": hashlib.sha256(b"".join(digests)).hexdigest()}
