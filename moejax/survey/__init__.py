"""The 29 methods of the survey as cards, grouped into files by the families of its section 3.30.

`CARDS["arrow"].axes.input_granularity` is `{"Step"}`. Cards are in the order of the survey's section 3.
"""

from moejax.survey.classifier import CLASSIFIER
from moejax.survey.embedding import EMBEDDING
from moejax.survey.others import OTHERS
from moejax.survey.target import TARGET
from moejax.survey.untrained import UNTRAINED
from moejax.taxonomy import Card

CARDS: dict[str, Card] = {
    card.key: card
    for card in sorted(
        EMBEDDING + CLASSIFIER + TARGET + UNTRAINED + OTHERS, key=lambda card: card.number or 0
    )
}
