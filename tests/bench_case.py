"""All parts of the benchmark at sizes of a second or two."""

from dataclasses import replace

from benchmarks import decode, machine, merging, model, points
from benchmarks.cases import Size
from benchmarks.measure import Effort
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig

EFFORT = Effort(seconds=0.02, least=2, most=2, few=1, span=0.0)
RATES = machine.Rates(1e11, 1e10)
SIZE = Size(16, 32, 6, 2, 4)
ENCODER = EncoderConfig(vocab=50, width=32, layers=2, heads=4, hidden=48, positions=40, remat=False)
DECODER = DecoderConfig(vocab=50, width=32, layers=2, heads=4, kv_heads=4, hidden=48, remat=False)
SETTINGS = (
    model.Setting(ENCODER, model.SIX, 2, 2, 6, pools=(3,)),
    model.Setting(DECODER, model.SEVEN, 2, 2, 6, pools=(3,)),
    model.Setting(DECODER, model.SEVEN, 2, 2, 6, decoded=9, pools=(3,)),
)
POINTS = (
    points.Point(SIZE, peers=True),
    points.Point(SIZE, back=True, peers=True),
    points.Point(SIZE, grain="example"),
    points.Point(SIZE, grain="task"),
)


def parts(peers: bool) -> dict:
    """The parts that run in this process; with peers each kind of model once."""
    return {
        "layer": list(points.part(RATES, EFFORT, peers, POINTS)),
        "decode": list(decode.part(RATES, EFFORT, peers, [replace(SIZE, n=1)])),
        "model": list(model.part(RATES, EFFORT, peers, SETTINGS[: 3 if peers else 1 : 2])),
        "merging": list(merging.part(EFFORT, peers, [SIZE], [SIZE])),
    }


def results(parts: dict) -> dict:
    """As the benchmark saves them."""
    return machine.provenance() | {
        "rates": RATES._asdict(), "parts": parts, "seconds": 90.0, "complete": True
    }  # fmt: skip
