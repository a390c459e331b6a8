"""Runs shards on stores: group commit, the reply barrier, timers and ownership."""
