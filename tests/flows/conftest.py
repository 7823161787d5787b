"""The lab, under the name by which the tests of this folder know it."""

from tests.lab import Lab, collected, eventually

__all__ = ["Lab", "collected", "eventually"]
