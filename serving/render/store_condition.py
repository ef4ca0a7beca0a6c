"""The encoder's work on pictures: reads a take's assets, and keeps what they become for its model."""

from serving.models.registry import open_model
from serving.render.conditions import make_condition, pack_condition
from serving.render.farm_messages import ConditionOrder
from serving.store.artifact_keys import asset_artifact
from serving.store.artifacts import Artifacts
from serving.store.latents import write_condition


def store_condition(order: ConditionOrder, artifacts: Artifacts) -> None:
    """Keep what the pictures of a take become. Raises ModelError, and ArtifactMissing if a picture is gone."""
    pictures = {sha256: artifacts.get(asset_artifact(order.tenant, sha256)) for sha256 in order.take.assets}
    condition = make_condition(order.plan, order.take, open_model(order.plan.model), pictures)
    write_condition(artifacts, order.content_key, pack_condition(condition))
