"""How everything is set up and started: worker, embedded stack, command line, demo."""
