"""The client and the worker runtime: speaks the messages of `wire` over a transport."""
