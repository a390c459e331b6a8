"""The memory: stores make batches of row changes durable and read them back; they decide nothing."""
