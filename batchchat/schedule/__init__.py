"""What may be generated next and which requests share a padded batch. Pure: no torch, no files."""

from batchchat.schedule.feed import Feed
from batchchat.schedule.planner import PlannedBatch, Sharing, next_batch, padded_places, plan_batches
from batchchat.schedule.seeds import request_seed

__all__ = ["Feed", "PlannedBatch", "Sharing", "next_batch", "padded_places", "plan_batches", "request_seed"]
