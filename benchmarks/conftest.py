"""What tests of the benchmarks use."""

pytest_plugins = ["tests.embedded_stack"]
