"""PHATGOOSE on T5-XL, pool "FLAN": 91 of its 166 experts, scored on BIG-bench Hard. Never run at scale.

    python train.py --config configs/papers/phatgoose_flan.py --data-dir FOLDER
    python eval.py --config configs/papers/phatgoose_flan.py --data-dir FOLDER

FOLDER/p3, FOLDER/flan, FOLDER/bigbench and FOLDER/bbh hold bigscience/P3, Open-Orca/FLAN, tasksource/bigbench and
lukaemon/bbh. The other 75 experts are of categories of Natural Instructions v2, which no column of these sets names.
"""

from dataclasses import replace
from pathlib import Path

from moejax.config import Config
from moejax.load_config import load_config

MORE_P3 = (
    "super_glue_wsc.fixed", "super_glue_copa", "hellaswag", "super_glue_wic", "race_high", "race_middle",
    "web_questions",
)  # fmt: skip
FLAN = (
    "ai2_arc_ARC-Easy_1.0.0", "ai2_arc_ARC-Challenge_1.0.0", "algebra__linear_1d_1.0.0", "bool_q_1.0.0", "coqa_1.0.0",
    "definite_pronoun_resolution_1.1.0", "drop_2.0.0", "fix_punct", "gem_dart_1.1.0", "gem_e2e_nlg_1.1.0",
    "gem_web_nlg_en_1.1.0", "gem_wiki_lingua_english_en_1.1.0", "glue_sst2_2.0.0", "glue_cola_2.0.0",
    "glue_mnli_2.0.0", "glue_qnli_2.0.0", "glue_stsb_2.0.0", "glue_wnli_2.0.0", "lambada_1.0.0",
    "natural_questions_open_1.0.0", "newsroom_1.0.0", "openbookqa_0.1.0", "opinion_abstracts_idebate",
    "opinion_abstracts_rotten_tomatoes", "para_crawl_enes", "piqa_1.0.0", "quac_1.0.0", "sentiment140_1.0.0",
    "snli_1.1.0", "squad_v2.0_3.0.0", "super_glue_multirc_1.0.2", "super_glue_record_1.0.2", "trivia_qa_rc_1.1.0",
    "true_case", "unified_qa_science_inst", "word_segment", "qrecc", "wiki_dialog", "qrecc_ii", "wiki_dialog_ii",
    "aeslc_1.0.0", "wmt16_translate_cs-en_1.0.0", "wmt16_translate_de-en_1.0.0", "wmt16_translate_ru-en_1.0.0",
    "wmt16_translate_fi-en_1.0.0", "wmt16_translate_ro-en_1.0.0", "wmt16_translate_tr-en_1.0.0",
    "wmt14_translate_fr-en_1.0.0",
)  # fmt: skip
HARD = (
    "boolean_expressions", "causal_judgment", "date_understanding", "disambiguation_qa",
    "formal_fallacies_syllogisms_negation", "geometric_shapes", "hyperbaton", "logical_deduction",
    "movie_recommendation", "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects", "web_of_lies", "word_sorting",
)  # fmt: skip


def config() -> Config:
    """The P3 recipe with more experts and other held-out tasks."""
    p3 = load_config(Path(__file__).with_name("phatgoose_p3.py"))
    names = p3.data.held_in + MORE_P3 + FLAN
    data = replace(p3.data, source="hub:p3+flan+bigbench+bbh", held_in=names, held_out=HARD)
    return replace(p3, run="", data=data)
