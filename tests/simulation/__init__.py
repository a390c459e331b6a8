"""A seeded simulator: one coordinator, its store, clients and workers, in virtual time and under faults."""
