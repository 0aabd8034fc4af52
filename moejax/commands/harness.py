"""Base, experts and a method as a model of lm_eval, the EleutherAI lm-evaluation-harness: `Moejax`."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval import utils  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs  # pyright: ignore[reportMissingImports]

from moejax.commands.parse import parse
from moejax.commands.routed import Routed, ready
from moejax.evaluate.completions import Settings, complete
from moejax.evaluate.continuations import continuations
from moejax.models.prompts import chat, longest, tokenizer_of
from moejax.types import UserError

UNSAID = 2048  # tokens of context where nobody says how many
KNOWN = {"do_sample", "temperature", "top_p", "until", "max_gen_toks"}


class Moejax(TemplateLM):
    """`Moejax(base=FOLDER, experts=FOLDER, method="arrow", batch_size=16)`; the fields of `Routed`, as strings too.

    Scores and texts are those of lm_eval's own "hf" backend, with a router among experts in it: contexts are cut on
    the left, an empty one is the beginning token, and the request that routers see is the context. Raises UserError.
    """

    def __init__(
        self, batch_size: int | str = 8, max_length: int = 0, max_gen_toks: int = 256, seed: int = 0,
        add_bos_token: bool | None = None, max_batch_size: Any = None, device: Any = None, **options: Any,
    ):  # fmt: skip
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise UserError(f"--batch_size is {batch_size!r}: expected a number of rows, 1 or more")
        given = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
        words = [
            name if value is True else f"{name}={value}"
            for name, value in given.items()
            if value is not False
        ]
        self.routed = parse(Routed, words, "model_args", Routed.__doc__ or "")
        self.ready = ready(self.routed)
        if self.ready.base.kind == "encoder":
            raise UserError(
                f"{self.routed.base} is an encoder: lm_eval's tasks want a model that writes text"
            )
        self.backend = "causal" if self.ready.base.kind == "decoder" else "seq2seq"
        self.tokenizer = tokenizer_of(self.ready.base)
        self.batch_size, self.max_gen_toks, self.seed = int(batch_size), max_gen_toks, seed
        self.add_bos_token, self.max_length = add_bos_token, max_length or self._longest()

    def _longest(self) -> int:
        said = self.tokenizer.model_max_length
        return longest(self.ready.base) or (said if said and said < 10**9 else UNSAID)

    @property
    def eot_token_id(self) -> int:
        """The end token. Raises UserError where the tokenizer has none."""
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                f"{self.ready.base.folder}: the tokenizer names no eos_token, which lm_eval's tasks need"
            )
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: the beginning token, else the end token."""
        begins = self.tokenizer.bos_token_id
        return self.eot_token_id if begins is None else begins

    @property
    def tokenizer_name(self) -> str:
        """The name under which lm_eval keeps requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids; a text that begins with the beginning token gets no second one."""
        special = self.add_bos_token if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            special = False
        return self.tokenizer.encode(string, **({} if special is None else {"add_special_tokens": special}))

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation in the words of the base's template."""
        return chat(self.ready.base, chat_history, add_generation_prompt)

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval writes beside the results."""
        base, pool, _, _, label, *_ = self.ready
        hashes = [info.get("hash") for info in pool.infos]
        return {"base": base.identity, "method": label, "experts": dict(zip(pool.names, hashes, strict=True))}

    def _loglikelihood_tokens(self, requests: Sequence[tuple], **kwargs: Any) -> list[tuple[float, bool]]:
        pairs = [(context, answer) for _, context, answer in requests]
        if (most := max((len(answer) for _, answer in pairs), default=0)) > self.max_length:
            raise UserError(
                f"a continuation has {most} tokens, but the base sees {self.max_length}: say max_length"
            )
        base, _, adapted, arrays, _, query, _ = self.ready
        found = continuations(base, adapted, arrays, pairs, self.batch_size, self.max_length, query)
        for (words, _, _), answer in zip(requests, found, strict=True):
            if words is not None:
                self.cache_hook.add_partial("loglikelihood", words, answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, in windows of `max_length` in which each token is predicted once."""
        windows: list[tuple[None, list[int], list[int]]] = []
        of: list[int] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            rolled = utils.get_rolling_token_windows(
                ids, self.prefix_token_id, self.max_length, context_len=1
            )
            some = [(None, *utils.make_disjoint_window(window)) for window in rolled]
            windows, of = windows + some, of + [number] * len(some)
        sums = [0.0] * len(requests)
        for number, (logp, _) in zip(of, self._loglikelihood_tokens(windows), strict=True):
            sums[number] += logp
        for request, logp in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, logp)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to the first of the request's stop strings, or to the end token."""
        groups: dict[Settings, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(self._settings(request.args[1]), []).append(number)
        base, _, adapted, arrays, _, wants_query, _ = self.ready
        found: dict[int, str] = {}
        for settings, numbers in groups.items():
            texts, room = [requests[i].args[0] for i in numbers], self._room(settings.max_new)
            ids = [(self.tok_encode(text) or [self.prefix_token_id])[-room:] for text in texts]
            query = base.embedder(texts) if wants_query and base.embedder else None
            done = complete(base, adapted, arrays, ids, settings, query)
            found |= {i: one.text for i, one in zip(numbers, done, strict=True)}
        for number, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, found[number])
        return [found[i] for i in range(len(requests))]

    def _room(self, new: int) -> int:
        """Tokens that a context may have; a model that encodes it needs none of them for the answer."""
        room = self.max_length - new if self.backend == "causal" else self.max_length
        if room < 1:
            raise UserError(f"max_gen_toks {new} leaves no room in the {self.max_length} tokens of the base")
        return room

    def _settings(self, given: Mapping[str, Any]) -> Settings:
        asked: Any = normalize_gen_kwargs(dict(given), self.max_gen_toks)
        if unknown := sorted(asked.keys() - KNOWN):
            raise UserError(
                f"generation option {unknown[0]!r} is not known here: there are {', '.join(sorted(KNOWN))}"
            )
        drawn = bool(asked["do_sample"])
        temperature, top_p = (float(asked.get(name, 1.0)) for name in ("temperature", "top_p"))
        stop, most = tuple(filter(None, asked["until"])), asked["max_gen_toks"]
        if not drawn:
            temperature, top_p = 0.0, 1.0
        return Settings(most, temperature, top_p, stop, self.seed, self.batch_size)
