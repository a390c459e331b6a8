"""Mutants of the heart: the coordinator with one promise broken on purpose, and the tests that must notice.

A suite is worth what it catches. `heart/` lists the mutants: each replaces a line or two in a copy of the
package and names the tests that fail on it. `python -m tests.mutants` (or `make mutants`) makes each copy,
runs those tests against it, and fails where a mutant survives, or where tests fail for another reason than
an assertion about the promise. `--survey` asks more: which of the suites as a whole catch it.
"""
