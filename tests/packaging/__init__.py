"""What is built: the archives, what they install, and what a user's type checkers see of it."""
