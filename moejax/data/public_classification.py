"""The public tasks with labels, in our words."""

from moejax.data.public_sources import (
    BANKING,
    CLICKBAIT,
    CLINC,
    COUNTERFACTUAL,
    HWU,
    INDUCTION,
    NEWS,
    SENTENCES,
    SMS,
    TWEETS,
    Public,
)
from moejax.data.raw_forms import DEV, Form
from moejax.data.raw_json import examples_json, splits_json
from moejax.data.raw_lines import (
    coarse_and_fine,
    file_per_label,
    numbered,
    tab_lines,
    tweeteval,
    tweeteval_resplit,
)
from moejax.data.raw_tables import intents_csv, news_csv, pairs_tsv, reviews_tsv, scenarios_csv

EMOJI = (
    "red heart", "smiling face with heart eyes", "face with tears of joy", "two hearts", "fire",
    "smiling face with smiling eyes", "smiling face with sunglasses", "sparkles", "blue heart",
    "face blowing a kiss", "camera", "United States", "sun", "purple heart", "winking face", "hundred points",
    "beaming face with smiling eyes", "Christmas tree", "camera with flash", "winking face with tongue",
)  # fmt: skip
STANCES = {
    "abortion": "legalization of abortion",
    "atheism": "atheism",
    "climate": "climate change is a real concern",
    "feminist": "feminist movement",
    "hillary": "Hillary Clinton",
}
REVIEW = {"negative": "a terrible, bad movie", "positive": "a great, enjoyable movie"}
INTENTS = """alarm_query alarm_remove alarm_set audio_volume_down audio_volume_mute audio_volume_up
calendar_query calendar_remove calendar_set cooking_recipe datetime_convert datetime_query
email_addcontact email_query email_querycontact email_sendemail general_affirm
general_commandstop general_confirm general_dontcare general_explain general_joke general_negate
general_praise general_quirky general_repeat iot_cleaning iot_coffee iot_hue_lightchange
iot_hue_lightdim iot_hue_lightoff iot_hue_lighton iot_hue_lightup iot_wemo_off iot_wemo_on
lists_createoradd lists_query lists_remove music_likeness music_query music_settings news_query
play_audiobook play_game play_music play_podcasts play_radio qa_currency qa_definition
qa_factoid qa_maths qa_stock recommendation_events recommendation_locations
recommendation_movies social_post social_query takeaway_order takeaway_query transport_query
transport_taxi transport_ticket transport_traffic weather_query""".split()
SCENARIOS = {
    "iot": "smart home", "qa": "question answering", "general": "general chat", "takeaway": "takeaway food",
    "datetime": "date and time", "social": "social media",
}  # fmt: skip


def _folds() -> tuple[str, ...]:
    run = "autoGeneFromRealAnno/autoGene_2018_03_22-13_01_25_169"
    return tuple(
        f"CrossValidation/{run}/CrossValidation/KFold_{fold}/testset/csv/{intent}.csv"
        for fold in range(1, 11) for intent in INTENTS
    )  # fmt: skip


def _tweets(folder: str, *labels: str) -> Form:
    return tweeteval({folder: "{}"}, labels)


CLASSIFICATION = {
    "sst2": Public(
        SENTENCES,
        numbered(
            {split: f"data/stsa.binary.{name}" for split, name in DEV.items()}, ("negative", "positive")
        ),
        "sentiment", "Is this movie review sentence positive or negative?", REVIEW,
    ),
    "cad_imdb": Public(
        COUNTERFACTUAL, reviews_tsv("sentiment/orig"),
        "sentiment", "Is this movie review positive or negative?", REVIEW,
    ),
    "mpqa": Public(
        SENTENCES,
        file_per_label("mpqa", {"data/raw/mpqa.neg": "negative", "data/raw/mpqa.pos": "positive"}, "latin-1"),
        "sentiment", "Is the polarity of this opinion phrase positive or negative?",
        {"negative": "negative, bad", "positive": "positive, good"},
    ),
    "tweet_sentiment": Public(
        TWEETS, tweeteval_resplit("tweet_sentiment", "sentiment", ("negative", "neutral", "positive")),
        "sentiment", "What is the sentiment of this tweet?",
        {"negative": "this tweet is negative, unhappy", "neutral": "this tweet is neutral, factual",
         "positive": "this tweet is positive, happy"},
    ),
    "tweet_emotion": Public(
        TWEETS, _tweets("emotion", "anger", "joy", "optimism", "sadness"),
        "emotion", "Which emotion does this tweet express?",
        {"anger": "anger, I am furious", "joy": "joy, I am happy", "optimism": "optimism, I am hopeful",
         "sadness": "sadness, I am sad"},
    ),
    "tweet_emoji": Public(
        TWEETS, _tweets("emoji", *EMOJI),
        "emotion", "Which emoji belongs to this tweet?", {name: name for name in EMOJI},
    ),
    "tweet_hate": Public(
        TWEETS, _tweets("hate", "not hateful", "hateful"),
        "abuse", "Is this tweet hateful against women or immigrants?",
        {"not hateful": "a harmless message", "hateful": "hate speech against women or immigrants"},
    ),
    "tweet_offensive": Public(
        TWEETS, _tweets("offensive", "not offensive", "offensive"),
        "abuse", "Is this tweet offensive?",
        {"not offensive": "a polite, harmless message", "offensive": "an offensive, insulting message"},
    ),
    "tweet_irony": Public(
        TWEETS, _tweets("irony", "not ironic", "ironic"),
        "irony", "Is this tweet ironic?",
        {"not ironic": "a sincere statement", "ironic": "an ironic, sarcastic statement"},
    ),
    "tweet_stance": Public(
        TWEETS,
        tweeteval(
            {f"stance/{part}": f"Target: {name}. Tweet: {{}}" for part, name in STANCES.items()},
            ("none", "against", "favor"),
        ),
        "stance", "Is this tweet in favor of the target, against it, or neither?",
        {"none": "no opinion about the target", "against": "against the target",
         "favor": "in favor of the target"},
    ),
    "subj": Public(
        SENTENCES,
        file_per_label(
            "subj", {f"data/raw/subj.{label}": label for label in ("subjective", "objective")}, "latin-1"
        ),
        "subjectivity", "Is this sentence a subjective opinion or an objective description?",
        {"subjective": "a subjective opinion about a movie",
         "objective": "an objective description of a plot"},
    ),
    "trec": Public(
        SENTENCES,
        coarse_and_fine(
            "trec", "data/raw/TREC.train", "data/raw/TREC.test",
            {"ABBR": "abbreviation", "DESC": "description", "ENTY": "entity", "HUM": "human",
             "LOC": "location", "NUM": "number"},
        ),
        "question type", "What kind of answer does this question ask for?",
        {"abbreviation": "what does this abbreviation stand for",
         "description": "a definition, description or reason",
         "entity": "an animal, thing, product or other entity", "human": "a person or group of people",
         "location": "a place, city or country", "number": "a number, date or amount"},
    ),
    "ag_news": Public(
        NEWS, news_csv("ag_news", "data/ag_news_csv/test.csv", ("world", "sports", "business", "technology")),
        "topic", "Which section does this news item belong to?",
        {"world": "world politics news", "sports": "sports news", "business": "business news",
         "technology": "science and technology news"},
    ),
    "clickbait": Public(
        CLICKBAIT,
        file_per_label(
            "clickbait", {"dataset/clickbait_data.gz": "clickbait", "dataset/non_clickbait_data.gz": "news"}
        ),
        "spam", "Is this headline clickbait?",
        {"clickbait": "a clickbait headline", "news": "a serious news headline"},
    ),
    "sms_spam": Public(
        SMS, tab_lines("sms_spam", "data/SMSSpamCollection"),
        "spam", "Is this text message spam?",
        {"ham": "a personal message to a friend", "spam": "an advertisement, prize or paid service"},
    ),
    "banking77": Public(
        BANKING, intents_csv("banking77", "banking_data/train.csv", "banking_data/test.csv"),
        "intent", "Which banking intent is this?",
    ),
    "clinc150": Public(CLINC, splits_json("data/data_full.json"), "intent", "Which intent is this?"),
    "hwu_scenario": Public(
        HWU, scenarios_csv("hwu_scenario", _folds(), SCENARIOS),
        "intent", "Which scenario does this request belong to?",
    ),
    "cad_nli": Public(
        COUNTERFACTUAL, pairs_tsv("NLI/all_combined"),
        "pair", "Does the premise entail the hypothesis?",
        {"entailment": "the hypothesis is true, it follows",
         "neutral": "the hypothesis may or may not be true",
         "contradiction": "the hypothesis is false, it contradicts"},
    ),
    "wic": Public(
        INDUCTION,
        examples_json("word_in_context", lambda said: "same" if said == "same" else "not the same"),
        "pair", "Does the word have the same meaning in both sentences?",
        {"same": "the same meaning", "not the same": "different meanings"},
    ),
    "sts_level": Public(
        INDUCTION, examples_json("sentence_similarity", lambda said: said.split(" - ")[1]),
        "pair", "How similar are the two sentences?",
        {"definitely not": "the sentences are unrelated", "probably not": "the sentences are hardly related",
         "possibly": "the sentences are somewhat related", "probably": "the sentences are quite similar",
         "almost perfectly": "the sentences are very similar", "perfectly": "the sentences mean the same"},
    ),
}  # fmt: skip
