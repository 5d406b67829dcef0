"""Suites that decide what an adapter is: code that passes is an adapter, whoever wrote it.

Each is a class of tests; an adapter's test file is a subclass that makes one. Nothing is skipped: if an engine lacks a
capability, the suite asks for a clear refusal instead. Fails as pytest fails.
"""

import pytest

__all__: list[str] = []

pytest.register_assert_rewrite(
    "holdfast.testing.conformance.feed",
    "holdfast.testing.conformance.store",
    "holdfast.testing.conformance.transport",
)
