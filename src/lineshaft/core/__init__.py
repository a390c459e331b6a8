"""The judge: what may happen to a task, decided in pure functions over values, with the time passed in."""
