"""The shard's promises, told as stories in a world where time moves only when told."""
