"""Family 2: train the router as a classifier on the experts' data sets or on unseen data."""

from moejax.taxonomy import Card, Paper, infobox

CLASSIFIER = (
    Card(
        key="benchmark_routing",
        title="Routing with Benchmark Datasets",
        number=9,
        paper=Paper(
            "Shnitzer, Ou, Silva, Soule, Sun, Solomon, Thompson, Yurochkin", 2023, "2309.15789", "COLM 2024"
        ),
        axes=infobox("Standard Private General Task Model Sparse None OOD Zero-Shot"),
        families=frozenset({"classifier"}),
        remarks=(
            "The paper also routes single instances, so Example applies too.",
            "The survey's second score averages over queries past a threshold; it is their fraction.",
            "It needs to know whether each expert is right on each general row.",
        ),
        grants=frozenset({"general", "target_inputs"}),
        holds=frozenset({"simplex", "single", "silent", "equivariant"}),
    ),
    Card(
        key="zooter",
        title="Zooter",
        number=10,
        paper=Paper("Lu, Yuan, Lin, Lin, Yuan, Zhou, Zhou", 2023, "2311.08692", "NAACL 2024"),
        axes=infobox("Standard Private General Example Model Sparse None OOD Zero-Shot"),
        families=frozenset({"classifier"}),
        remarks=(
            "The survey has it match ranking all answers by reward; in the paper it stays behind that.",
            "Smoothing by tags acts on softmax-normalised scores and keeps a share of the row's own.",
            "It needs a reward for each expert's answer to each general row.",
        ),
        grants=frozenset({"general"}),
        holds=frozenset({"simplex", "single", "silent"}),
    ),
    Card(
        key="routoo",
        title="Routoo",
        number=14,
        paper=Paper("Mohammadshahi, Shaikh, Yazdani", 2024, "2401.13979"),
        axes=infobox("Standard Private Target/General Example Model Sparse None OOD Few-Shot"),
        families=frozenset({"classifier"}),
        remarks=(
            "Its router trains on questions like those of its benchmark, so OOD is generous.",
            "It needs a graded answer of each expert to each row, and a price of each expert.",
        ),
        grants=frozenset({"general", "target_labels"}),
        shots=16,
        holds=frozenset({"simplex", "single", "silent"}),
    ),
    Card(
        key="branch_train_mix",
        title="Branch-Train-Mix",
        number=21,
        paper=Paper("Sukhbaatar, Golovneva, Sharma, Xu, Lin, Rozière, Kahn and others", 2024, "2403.07816"),
        axes=infobox("Standard Shared Expert Step Module Sparse Output ID Few-Shot/Full"),
        families=frozenset({"classifier"}),
        remarks=(
            "Experts are trained on three domains, not four; the fourth is the untouched seed model.",
            "After mixing, all parameters are trained, on the experts' data and some of the seed's.",
            "Output holds for feed-forward layers; all other weights are averaged once: Parameter.",
            "Few-shot and full say how it is evaluated; it reads no target data.",
        ),
        grants=frozenset({"expert_labels"}),
        holds=frozenset({"simplex"}),
    ),
    Card(
        key="routellm",
        title="RouteLLM",
        number=27,
        paper=Paper(
            "Ong, Almahairi, Wu, Chiang, Wu, Gonzalez, Kadous, Stoica", 2024, "2406.18665", "ICLR 2025"
        ),
        axes=infobox("Standard Private Target/General Example Model Sparse None ID/OOD Zero-Shot"),
        families=frozenset({"classifier"}),
        remarks=(
            "It chooses between two classes of models, and was trained on battles among 64 models.",
            "Labelled rows of the target task are an option, not a need.",
            "A member may be the base itself, where no expert has any weight.",
        ),
        grants=frozenset({"general"}),
        holds=frozenset({"silent"}),
    ),
)
