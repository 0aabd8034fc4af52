"""RouteLLM: each request goes to a strong or to a weak member whole, by how likely the strong one's answer is better.

Strong iff P(strong beats weak | q) >= alpha, decided once from the request. Members are the base, the base under each
expert, the base under the uniform merge of all, and the model beside the base. Labels: every member answers granted
rows alone (`outcomes`); the better grade wins, equal ones tie.
predictor  `mf`: sigma(w_2 . ((v_s - v_w) * W_1 q)), v_m = P_m / |P_m|, on the request's vector q; ties are dropped;
           `sw`: Bradley-Terry ratings of tiers over all granted rows, each row weighted by its nearness to q; a tie is
           half a win for each; nothing is trained;
           `bert`: the given layers of the base, tuned, the mean over the request's tokens and a linear head over
           (strong wins, tie, weak wins); P = 1 - (p_tie + p_weak), so that a tie says that the weak one suffices.
The paper's fourth, a causal decoder that prints a rating, is not built.
grade      `right`: whether the best choice is the right one (a decoder: how likely the answer is); `likelihood`.
battles    `all` pairs of members, as in the paper, where 64 models fought; `pair`: the two alone.
sample     rows that alpha is calibrated on, the (1 - share) quantile of P: public ones, or the target's inputs.
gold       the target's labelled rows join the public ones in training (the paper's D_gold).
Source: Ong et al. 2024 (2406.18665), section 4, and its released code (no bias, unit rows, noise on q, tiers).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from moejax.adapted import Adapted
from moejax.contract import Fitted, Grants, Method, Rows, count, one_stack, plain_arrays
from moejax.either import Either
from moejax.experts.folder import closest
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.places import EXPERTS
from moejax.routing import preference
from moejax.survey import CARDS
from moejax.train import judge
from moejax.train.battles import Plan, factorise, fought, ranking
from moejax.train.choose import Beside, Choose
from moejax.train.optimiser import Optimiser
from moejax.train.outcomes import BASE, MERGED, Outcomes, members, most_often_right, outcomes, wanted
from moejax.train.price import prices, share_of
from moejax.types import NotApplicable, UserError

SIZE = 64  # rows of a batch that is only looked at


@dataclass(frozen=True)
class Config:
    """As above. strong, weak: `base`, `uniform`, `beside`, an expert's name; no strong one: the expert, or the model
    beside the base, that is right most often.

    share: of requests for the strong member; cost: the mean price of a request instead (the base's is 1). mf: width,
    noise, epochs; sw: tiers; bert: steps. rate, batch, decay: None, the paper's for each predictor.
    """

    predictor: Literal["mf", "sw", "bert"] = "mf"
    strong: str = ""
    weak: str = "base"
    share: float = 0.5
    cost: float | None = None
    sample: Literal["general", "target"] = "general"
    gold: bool = False
    battles: Literal["all", "pair"] = "all"
    grade: Literal["right", "likelihood"] = "right"
    width: int = 128
    noise: float = 0.1
    epochs: int = 10
    tiers: int = 10
    steps: int = 2000
    rate: float | None = None
    batch: int | None = None
    decay: float | None = None


def needs(config: Config) -> frozenset[str]:
    """Public labelled rows; the target's inputs to calibrate on, its labelled rows to train on, where asked for."""
    more = {"target_inputs"} if config.sample == "target" else set()
    return frozenset({"general"} | more | ({"target_labels"} if config.gold else set()))


def adapt(config: Config, base: Base) -> Adapted:
    """One decision a request, for the whole model."""
    merged = MERGED in (config.strong, config.weak)
    route = Choose(config.predictor, merged, base.model if config.predictor == "bert" else None)
    either = Either(Adapted(base.beside.model), Beside(route)) if base.beside else None
    return Adapted(base.model, EXPERTS, route=route, either=either)


def fit(config: Config, base: Base, pool: Pool, grants: Grants, work: Any) -> Fitted:
    """Grade all members on granted rows, choose the pair, learn who wins, and calibrate the threshold."""
    if config.predictor == "bert":
        one_stack(base, "routellm(bert)")
    if not 0 <= config.share <= 1:
        raise UserError(f"routellm: share is {config.share}: expected a share of the requests, 0 to 1")
    public = grants.general()
    rows = [public.train, *([grants.target_labels().train] if config.gold else [])]
    found = [outcomes(base, pool, some, SIZE, work) for some in rows]
    strong, weak = pair(config, base, pool, found[0])
    grades, columns = (
        np.concatenate([getattr(one, config.grade) for one in found]),
        range(found[0].right.shape[1]),
    )
    both = (columns[1 + strong], columns[1 + weak])
    fights = list(combinations(columns, 2)) if config.battles == "all" else [both]
    lesson = Lesson(rows, grades, both, fights)
    learned = {"mf": _factorised, "sw": _ranked, "bert": _tuned}[config.predictor](
        config, base, pool, public.validation, lesson, work
    )
    price = prices(base, pool, rows[0].take(np.arange(1)).tokens.shape[1])[[1 + strong, 1 + weak]]
    model = learned | {"strong": np.int32(strong), "weak": np.int32(weak), "price": np.float32(price)}
    router = jax.tree.map(jnp.asarray, {"model": model, "places": {}, "knobs": {"threshold": np.float32(0)}})
    sample = grants.target_inputs().train if config.sample == "target" else public.validation
    route: Any = adapt(config, base).route
    before = METHOD.arrays(config, base, pool, Fitted(router, pool.names))
    share = config.share if config.cost is None else share_of(config.cost, *price)
    alpha = preference.threshold(wanted(route, before, sample, SIZE), share)
    chosen = {"threshold": f"{len(sample)} {'public' if config.sample == 'general' else 'target'} rows"}
    if not config.strong:
        name = next(name for name, number in members(base, pool).items() if number == strong)
        chosen[f"strong member {name}"] = f"{len(rows[0])} public rows"
    router["knobs"]["threshold"] = jnp.float32(alpha)
    return Fitted(
        router, pool.names, trained=0 if config.predictor == "sw" else count(learned), chosen=chosen
    )


def pair(config: Config, base: Base, pool: Pool, found: Outcomes) -> tuple[int, int]:
    """Numbers of the strong and the weak member; the base is -1. Raises UserError where they are one."""
    numbers = members(base, pool)
    for name in filter(None, (config.strong, config.weak)):
        if name not in numbers:
            raise UserError(f"routellm: there is no member {name!r}{closest(name, numbers)}")
    weak = numbers[config.weak]
    others = [1 + m for m in numbers.values() if m not in (-1, -2, weak)]
    if not config.strong and not others:
        raise NotApplicable("there is no second member to choose")
    strong = numbers[config.strong] if config.strong else most_often_right(found, others) - 1
    if strong == weak:
        raise UserError(f"routellm: strong and weak are both {config.weak!r}: name two members")
    return strong, weak


class Lesson(NamedTuple):
    """What is learned from: granted rows with the grades of all members, the pair's columns, and who fights whom."""

    rows: Sequence[Rows]
    grades: Float[np.ndarray, "n m"]
    pair: tuple[int, int]
    fights: Sequence[tuple[int, int]]


def _queries(rows: Sequence[Rows]) -> Float[np.ndarray, "n q"]:
    """Vectors of the requests. Raises NotApplicable where there are none."""
    found = [some.take(np.arange(len(some))).query for some in rows]
    if any(v is None for v in found):
        raise NotApplicable("no encoder of sentence vectors is at hand: say --embedder minilm")
    return np.concatenate(found).astype(np.float32)


def _training(config: Config) -> tuple[float, int, float]:
    """Rate, batch and decay: as given, or the paper's for the predictor."""
    rate, batch, decay = (3e-4, 64, 1e-5) if config.predictor == "mf" else (1e-5, 16, 0.01)
    return (
        rate if config.rate is None else config.rate,
        batch if config.batch is None else config.batch,
        decay if config.decay is None else config.decay,
    )


def _factorised(
    config: Config, base: Base, pool: Pool, others: Rows, lesson: Lesson, work: Any
) -> dict[str, Any]:
    """The factorised model, of its best epoch on other rows."""
    rate, batch, decay = _training(config)
    plan = Plan(config.width, config.noise, config.epochs, rate, batch, decay)
    found = getattr(outcomes(base, pool, others, SIZE, work), config.grade)
    taught = _queries(lesson.rows), fought(lesson.grades, lesson.fights)
    checked = _queries([others]), fought(found, lesson.fights)
    return factorise(plan, [BASE, *(info["hash"] for info in pool.infos), MERGED], taught, checked, work)


def _ranked(
    config: Config, base: Base, pool: Pool, others: Rows, lesson: Lesson, work: Any
) -> dict[str, Any]:
    """All granted queries with their battles by tier; nothing is learned."""
    found = ranking(_queries(lesson.rows), lesson.grades, lesson.fights, config.tiers)
    strong, weak = lesson.pair
    if found["tiers"][strong] == found["tiers"][weak]:
        both = " and ".join(list(members(base, pool))[e] for e in lesson.pair)
        raise UserError(f"routellm: {both} fall into one of {config.tiers} tiers: give more tiers")
    return found


def _tuned(config: Config, base: Base, pool: Pool, others: Rows, lesson: Lesson, work: Any) -> dict[str, Any]:
    """The base's given layers and a head, tuned to say who wins."""
    strong, weak = lesson.pair
    verdicts = (1 - np.sign(lesson.grades[:, strong] - lesson.grades[:, weak])).astype(np.int32)
    start = judge.fresh(base, work.key("head"))
    router = {"model": start, "places": {}, "knobs": {}}
    rate, batch, decay = _training(config)
    stream = judge.judgements(lesson.rows, verdicts, batch, work.seed)
    return work.train(
        "classifier", Adapted(base.model), METHOD.arrays(config, base, pool, Fitted(router, pool.names)),
        {"router": {"model": start}}, stream, Optimiser(rate, config.steps, decay=decay), losses=judge.judged,
    )["router"]["model"]  # fmt: skip


def arrays(config: Config, base: Base, pool: Pool, fitted: Fitted) -> dict[str, Any]:
    """The plain ones, and the parameters and label vectors of the model beside the base."""
    plain = plain_arrays(config, base, pool, fitted)
    if base.beside is None:
        return plain
    return plain | {"beside": base.beside.params, "beside_labels": base.beside.labels}


METHOD = Method(
    CARDS["routellm"],
    Config,
    adapt,
    fit=fit,
    arrays=arrays,
    grants=needs,
    query=True,
    unbuilt={"predictor": ("causal",)},
)
