"""Makes the compressed dump of Nautobot's core schema; ``invoke snapshot`` runs this."""

from __future__ import annotations

from development import database, services


def main() -> None:
    """Migrate Nautobot from an empty database on the local PostgreSQL, dump it, and print the path of the dump."""
    settings = services.Settings.load()
    with services.Supervisor() as supervisor:
        missing = [each for each in services.wanted_services(settings) if not each.ready()]
        supervisor.start(*missing)
        path = database.make_snapshot(services.environment(settings))
        print(f"Wrote {path} ({path.stat().st_size // 1024} KiB).")


if __name__ == "__main__":
    main()
