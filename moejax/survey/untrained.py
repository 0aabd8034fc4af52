"""Family 4: do not train a router.

The survey also counts Airoboros and LlamaIndex here, when a model is asked to choose: see `embedding.py`.
"""

from moejax.taxonomy import Card, Paper, infobox

UNTRAINED = (
    Card(
        key="phatgoose",
        title="PHATGOOSE",
        number=16,
        paper=Paper("Muqeeth, Liu, Liu, Raffel", 2024, "2402.05859", "ICML 2024"),
        axes=infobox("Custom Private None Step Module Sparse Output OOD Zero-Shot"),
        families=frozenset({"untrained"}),
        remarks=("It sometimes matches multitask routing, says the survey; outperforms it, says the paper.",),
        grants=frozenset({"own"}),
        extras=frozenset({"gate"}),
        open=True,
        holds=frozenset({"simplex", "single", "silent", "equivariant"}),
    ),
    Card(
        key="arrow",
        title="Arrow",
        number=24,
        paper=Paper(
            "Ostapenko, Su, Ponti, Charlin, Le Roux, Pereira, Caccia, Sordoni",
            2024,
            "2405.11157",
            "ICML 2024",
        ),
        axes=infobox("Standard Private None Step Module Sparse Parameter OOD Zero-Shot"),
        families=frozenset({"untrained"}),
        remarks=(
            "The paper averages the LoRAs' factors; the version in peft mixes their outputs: Output.",
            "The paper routes to four experts; the released code routes to all by default: Dense.",
            "The paper also reports gains on the experts' own tasks, so In-Distribution applies too.",
            "The better of its libraries trains clusters of experts anew on pooled data: Shared.",
        ),
        open=True,
        holds=frozenset({"simplex", "single", "silent", "equivariant"}),
    ),
)
