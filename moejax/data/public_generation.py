"""The public tasks whose answers are free text, in our words."""

from moejax.data.public_sources import GSM, HARD, INDUCTION, Public
from moejax.data.raw_json import examples_json, options_json, questions_jsonl

INDUCED = {
    "string": {
        "first_word_letter": "Write the first letter of the word.",
        "second_word_letter": "Write the second letter of the word.",
        "letters_list": "Spell the word with a space between letters.",
        "singular_to_plural": "Write the plural of the word.",
        "orthography_starts_with": "Copy the words that start with the letter in brackets.",
    },
    "lexical/arithmetic": {
        "active_to_passive": "Rewrite the sentence in the passive voice.",
        "num_to_verbal": "Write the number in English words.",
        "sum": "Add the two numbers.",
        "diff": "Subtract the second number from the first.",
        "antonyms": "Write a word that means the opposite.",
        "synonyms": "Write a word with a similar meaning.",
        "rhymes": "Write a word that rhymes with the word.",
        "negation": "Negate the sentence.",
        "larger_animal": "Write the larger of the two animals.",
        "taxonomy_animal": "Write all animals that appear in the list.",
        "translation_en-de": "Translate the word into German.",
        "translation_en-es": "Translate the word into Spanish.",
        "translation_en-fr": "Translate the word into French.",
    },
}
HARD_ONES = """boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages
formal_fallacies geometric_shapes hyperbaton logical_deduction_five_objects
logical_deduction_seven_objects logical_deduction_three_objects movie_recommendation
multistep_arithmetic_two navigate object_counting penguins_in_a_table
reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks
sports_understanding temporal_sequences tracking_shuffled_objects_five_objects
tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies
word_sorting""".split()


def _generation() -> dict[str, Public]:
    tasks = {}
    for cluster, names in INDUCED.items():
        for name, said in names.items():
            task = Public(INDUCTION, examples_json(name), cluster, said, {}, "generation")
            tasks["ii_" + name.replace("-", "_")] = task
    tasks["gsm8k"] = Public(
        GSM, questions_jsonl("gsm8k", "grade_school_math/data"),
        "math", "Solve the problem step by step; the answer follows ####.", {}, "generation",
    )  # fmt: skip
    for name in HARD_ONES:
        form = options_json("bbh_" + name, f"bbh/{name}.json")
        tasks["bbh_" + name] = Public(HARD, form, "reasoning", name.replace("_", " "), {}, "generation", True)
    return tasks


GENERATION = _generation()
