"""What is set up and started: the worker type, the embedded stack, the command line, the demo."""
