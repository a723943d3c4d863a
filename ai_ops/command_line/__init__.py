"""The command line: the commands of ``nautobot-server ai_ops`` and their answers."""
