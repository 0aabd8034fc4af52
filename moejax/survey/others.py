"""The four methods that the survey's section 3.30 puts in no family."""

from moejax.taxonomy import Card, Paper, infobox

OTHERS = (
    Card(
        key="calm",
        title="CALM",
        number=12,
        paper=Paper(
            "Bansal, Samanta, Dalmia, Gupta, Vashishth, Ganapathy, Bapna, Jain, Talukdar",
            2024,
            "2401.02412",
            "ICLR 2024",
        ),
        axes=infobox("Standard Private/Shared Target/Expert Task N/A N/A Output ID/OOD Full"),
        remarks=(
            "The infobox has None for expert selection, which Figure 1 does not know: here N/A.",
            "Hidden states are mixed per token and per chosen layer: Step and Module.",
            "Its data show the combined skill; neither model's own training data are needed: Private.",
            "It is trained on 5 to 20% of the data that there are, less than Full.",
        ),
        grants=frozenset({"target_labels"}),
        holds=frozenset({"equivariant"}),
    ),
    Card(
        key="what_the_weight",
        title="What the Weight?",
        number=13,
        paper=Paper("Holtermann, Frohmann, Rekabsaz, Lauscher", 2024, "2401.12756", "Findings of EACL 2024"),
        axes=infobox(
            "Standard Private/Shared None/Target/Expert Example Module Sparse Output/Parameter OOD Zero-Shot"
        ),
        remarks=(
            "Weights are computed once for a corpus and used for all of it: Task, not Example.",
            "One weight per expert serves all layers: Model, not Module.",
            "Up to all experts are chosen, so Dense applies too.",
            "Two of its five scores need samples of the experts' text, the other three do not.",
            "As released, entropy is measured on the very text that is evaluated.",
        ),
        grants=frozenset({"own", "target_inputs"}),
        shots=100,
        extras=frozenset({"samples"}),
        holds=frozenset({"simplex", "single", "silent", "equivariant"}),
    ),
    Card(
        key="pwe_moe",
        title="PWE MoE",
        number=26,
        paper=Paper("Tang, Shen, Luo, Liu, Hu, Du", 2024, "2406.09770"),
        axes=infobox("Standard Shared Expert N/A Module Dense Parameter ID Full"),
        remarks=("Weights follow a user's preference, not the input, and change only with it.",),
        grants=frozenset({"expert_labels"}),
        holds=frozenset({"silent"}),
    ),
    Card(
        key="ramole",
        title="RAMoLE",
        number=29,
        paper=Paper("Zhao, Gan, Wang, Hu, Shen, Yang, Kuang, Wu", 2024, "2406.16989"),
        axes=infobox("Standard Shared Expert Step Module Dense Parameter ID/OOD Zero-Shot"),
        remarks=(
            "By the paper's equations experts' outputs are averaged: Output, not Parameter.",
            "It is dense over the retrieved experts only: Sparse over the pool.",
            "Candidates are chosen per example for the whole model, weights per token and module.",
        ),
        grants=frozenset({"own", "expert_inputs", "expert_labels"}),
        extras=frozenset({"samples"}),
        open=True,
        holds=frozenset({"simplex", "single", "silent"}),
    ),
)
