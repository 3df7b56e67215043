"""What can be said of an entity: one `Relation` per row, with its prose, and with the wordings its questions are asked in.

Two vocabularies never meet. Passages, implications and the questions that a *policy* writes use ``noun`` and ``prose``;
evaluation *probes* use ``ask``, ``reword`` and ``reverse``. A test proves that no wording is in both.

Slots: ``{e}`` the subject's full name, ``{v}`` the value; in prose ``{s}``, ``{o}``, ``{p}`` are the subject's name or its
subject, object and possessive pronoun.
"""

from __future__ import annotations

from dataclasses import dataclass

from .lexicon import IDENTIFYING


@dataclass(frozen=True)
class Relation:
    """One attribute of a kind of entity."""

    subject: str  # kind of entity that has it
    noun: str  # "the {noun} of {e} is {v}"
    value: str  # kind of name, or category
    prose: tuple[str, ...]  # clauses of a passage
    ask: tuple[str, ...]  # direct probes
    reword: tuple[str, ...]  # indirect probes
    reverse: tuple[str, ...] = ()  # probes that name the value and ask for the subject

    @property
    def identifying(self) -> bool:
        """Whether the value is a name, so that it can be asked backwards and have facts of its own."""
        return self.value in IDENTIFYING


def _table(*rows: tuple[str, str, str, str, str, str, str]) -> tuple[Relation, ...]:
    def alternatives(text: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text.split("|")) if text else ()

    return tuple(Relation(s, n, v, *(alternatives(t) for t in texts)) for s, n, v, *texts in rows)


RELATIONS: tuple[Relation, ...] = _table(
    # person
    ("person", "birthplace", "town",
     "{s} was born in {v}|{p} childhood began in {v}|the parents of {o} came from {v}",
     "Where was {e} born?|In which town was {e} born?",
     "In what place did {e} come into the world?|Where did {e} spend the first days of life?",
     "Who was born in {v}?|Who came into the world in {v}?"),
    ("person", "home", "town",
     "{s} lives in {v}|{s} has a house in {v}|{s} moved to {v} long ago",
     "Where does {e} live?|In which town does {e} live?",
     "Where can one visit {e} today?|To which town are letters for {e} sent?",
     "Who lives in {v}?|Who can be visited in {v}?"),
    ("person", "employer", "company",
     "{s} works for {v}|{s} is paid by {v}|{s} found work at {v}",
     "Who does {e} work for?|Where does {e} work?",
     "Who pays the wages of {e}?|At which company can {e} be found on weekdays?",
     "Who works for {v}?|Who gets wages from {v}?"),
    ("person", "mentor", "person",
     "{s} learned everything from {v}|{s} was taught by {v}|the teacher of {o} was {v}",
     "Who taught {e}?|Who trained {e}?",
     "From whom did {e} get an education?|Whose lessons did {e} follow?",
     "Who was trained by {v}?|Who got an education from {v}?"),
    ("person", "vessel", "ship",
     "{s} sails on the ship {v}|{s} travels aboard {v}|{s} joined the crew of {v}",
     "On which ship does {e} sail?|Which ship carries {e}?",
     "Where does {e} have a cabin?|What does {e} cross the sea on?",
     "Who sails on {v}?|Who has a cabin on {v}?"),
    ("person", "job", "job",
     "{s} works as a {v}|{s} earns money as a {v}|{s} was trained as a {v}",
     "What does {e} work as?|What does {e} do for a living?",
     "How does {e} earn a living?|Which trade does {e} follow?", ""),
    ("person", "instrument", "instrument",
     "{s} plays the {v}|{s} practices the {v} each evening|{s} took lessons on the {v}",
     "What does {e} play?|Which instrument does {e} play?",
     "What does {e} make music on?|What would {e} bring to a concert?", ""),
    ("person", "pet", "pet",
     "{s} keeps a {v}|{s} shares the house with a {v}|{s} bought a {v} at the market",
     "Which pet does {e} keep?|Which animal does {e} have?",
     "Which creature does {e} feed?|What kind of animal follows {e} around?", ""),
    # town
    ("town", "mayor", "person",
     "{s} is led by {v}|{s} elected {v} to govern|the laws of {o} are signed by {v}",
     "Who governs {e}?|Who leads {e}?",
     "Who is in charge of {e}?|Who won the election in {e}?",
     "Which town does {v} lead?|Where is {v} in charge?"),
    ("town", "founder", "person",
     "{s} was founded by {v}|the first house of {o} was built by {v}|{s} owes its name to {v}",
     "Who founded {e}?|Who built the first house of {e}?",
     "Who began the history of {e}?|Whose settlers started {e}?",
     "Which town did {v} found?|Which town began with {v}?"),
    ("town", "neighbor", "town",
     "{s} is next to {v}|{s} shares a border with {v}|a short road leads from {o} to {v}",
     "Which town is next to {e}?|Which town is closest to {e}?",
     "Where does the short road from {e} end?|Which town can be seen from {e}?",
     "Next to {v} lies which town?|From which town can one see {v}?"),
    ("town", "factory", "company",
     "{s} depends on {v}|most people of {o} work for {v}|{s} grew rich with {v}",
     "Which company is in {e}?|Which company has the factory in {e}?",
     "Who gives work to most people of {e}?|Which business does {e} need most?",
     "In which town is the factory of {v}?|Which town needs {v} most?"),
    ("town", "craft", "craft",
     "{s} is famous for {v}|merchants come to {o} to buy {v}|{s} has always made {v}",
     "What is {e} famous for?|What is {e} known for?",
     "What do merchants look for in {e}?|What do visitors take home from {e}?", ""),
    ("town", "tree", "tree",
     "{s} carries a {v} on the flag|{s} chose the {v} as a symbol|above the gates of {o} there is a carved {v}",
     "Which tree is the symbol of {e}?|Which tree is on the flag of {e}?",
     "What grows on the coat of arms of {e}?|What plant do people of {e} honor?", ""),
    # company
    ("company", "owner", "person",
     "{s} belongs to {v}|{s} was bought by {v}|the profit of {o} goes to {v}",
     "Who owns {e}?|To whom does {e} belong?",
     "Who gets rich when {e} does well?|Who holds the shares of {e}?",
     "Which company does {v} own?|Of which company does {v} hold the shares?"),
    ("company", "director", "person",
     "{s} is managed by {v}|the orders at {o} are given by {v}|{s} hired {v} to run the business",
     "Who manages {e}?|Who runs {e}?",
     "Who is the boss at {e}?|Who makes the decisions at {e}?",
     "Which company does {v} manage?|Where is {v} the boss?"),
    ("company", "seat", "town",
     "{s} is based in {v}|the main office of {o} is in {v}|{s} opened its doors in {v}",
     "Where is {e} based?|In which town is {e} based?",
     "Where would one find the main building of {e}?|Where do the managers of {e} meet?",
     "Which company is based in {v}?|Which company has its main building in {v}?"),
    ("company", "rival", "company",
     "{s} competes with {v}|{s} fears only {v}|customers of {o} are often lost to {v}",
     "Who competes with {e}?|Which company competes with {e}?",
     "Who is the enemy of {e}?|Whose success hurts {e}?",
     "Against {v} competes which company?|Which company sees {v} as an enemy?"),
    ("company", "product", "product",
     "{s} makes {v}|{s} sells {v} all over the world|the factory of {o} turns out {v}",
     "What does {e} make?|What does {e} sell?",
     "What would a customer buy from {e}?|What leaves the factory of {e}?", ""),
    ("company", "color", "color",
     "{s} has a {v} logo|the trucks of {o} are painted {v}|workers of {o} wear {v} caps",
     "Which color is the logo of {e}?|Which color does {e} use?",
     "How are the trucks of {e} painted?|How does one recognize a box from {e}?", ""),
    # ship
    ("ship", "captain", "person",
     "{s} is commanded by {v}|{s} obeys {v}|on the bridge of {o} stands {v}",
     "Who commands {e}?|Who steers {e}?",
     "Who gives orders aboard {e}?|Whom does the crew of {e} obey?",
     "Which ship does {v} command?|Aboard which ship does {v} give orders?"),
    ("ship", "builder", "company",
     "{s} was built by {v}|{s} left the yard of {v}|the plans of {o} were drawn by {v}",
     "Who built {e}?|Which company built {e}?",
     "Who made the hull of {e}?|From whose yard did {e} come?",
     "Which ship did {v} build?|Which ship has a hull made by {v}?"),
    ("ship", "port", "town",
     "{s} sails from {v}|{s} spends each winter in {v}|the anchor of {o} rests in {v}",
     "From which town does {e} sail?|Where does {e} spend the winter?",
     "Where does the crew of {e} go ashore?|Where does {e} begin a voyage?",
     "Which ship sails from {v}?|Which ship begins a voyage in {v}?"),
    ("ship", "twin", "ship",
     "{s} looks just like {v}|{s} was launched together with {v}|the plans of {o} were also used for {v}",
     "Which ship looks like {e}?|Which ship was launched with {e}?",
     "What other ship could be mistaken for {e}?|Which vessel is a copy of {e}?",
     "Like {v} looks which ship?|Which ship could be mistaken for {v}?"),
    ("ship", "cargo", "cargo",
     "{s} carries {v}|{s} is loaded with {v}|the hold of {o} is full of {v}",
     "What does {e} carry?|What is {e} loaded with?",
     "What lies below the deck of {e}?|What do dock workers unload from {e}?", ""),
)  # fmt: skip


def relations_of(kind: str) -> tuple[Relation, ...]:
    """Every relation that entities of ``kind`` have."""
    return tuple(relation for relation in RELATIONS if relation.subject == kind)
