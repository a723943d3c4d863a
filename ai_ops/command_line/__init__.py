"""The command line: what each command of ``nautobot-server ai_ops`` asks, and how its answer is shown."""
