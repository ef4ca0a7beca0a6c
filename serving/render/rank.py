"""A gang's rank: one model, one thread, one call after the other. A plain class; an actor of the farm wraps it.

A gang of one rank is its rank. With more, the leader's rank is the one that is called, and it shares the work out.
"""

import importlib.metadata
import time
from collections import OrderedDict
from collections.abc import Mapping

import torch

from serving import settings
from serving.models.registry import open_model
from serving.render.gang import predict_call
from serving.render.messages import Array, CallInput, CallOutput

_LIBRARIES = ("torch", "diffusers")
"""Libraries whose release may change the bytes of a prediction."""


class UnknownPrompts(Exception):
    """A call names prompts that this gang was not given, or has let go."""


class Rank:
    """Loads `model_name` and predicts calls with it, on one thread. Raises ModelError."""

    def __init__(self, model_name: str) -> None:
        torch.set_num_threads(1)
        model = open_model(model_name)
        self._denoiser = model.load_denoiser()
        self._prompts: OrderedDict[str, dict[str, Array]] = OrderedDict()
        self.numerics = {
            **self._denoiser.numerics,
            "threads_per_rank": "1",
            "weights": model.weights_hash(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        }

    def keep_prompts(self, key: str, embeddings: Mapping[str, Array]) -> None:
        """Hold the embeddings of a take's texts, float32 [tokens, dim] each; the least used are let go."""
        self._prompts[key] = dict(embeddings)
        self._prompts.move_to_end(key)
        while len(self._prompts) > settings.MAX_PROMPT_SETS_PER_GANG:
            self._prompts.popitem(last=False)

    def predict(self, call: CallInput, prompts_key: str) -> CallOutput:
        """The prediction of one call. Raises UnknownPrompts."""
        torch.set_num_threads(1)  # the setting belongs to a thread, and an actor's methods may change threads
        if prompts_key not in self._prompts:
            raise UnknownPrompts(prompts_key)
        self._prompts.move_to_end(prompts_key)
        started = time.monotonic()
        prediction = predict_call(self._denoiser, call, self._prompts[prompts_key])
        return CallOutput(prediction, time.monotonic() - started)
