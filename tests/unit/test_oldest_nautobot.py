"""The oldest Nautobot that is supported has what the app takes from it."""

from __future__ import annotations

import tomllib

from development.oldest_nautobot import OLDEST, PROJECT, RECORDED, imported_names


def test_every_name_that_the_app_imports_is_in_the_oldest_nautobot():
    missing = sorted(imported_names() - set(RECORDED.read_text().splitlines()))
    assert not missing, (
        f"Nautobot {OLDEST} is not known to have these: run python -m development.oldest_nautobot. Give each that is "
        f"still missing a fallback for ImportError: {missing}"
    )


def test_a_name_with_a_fallback_may_be_newer(tmp_path):
    (tmp_path / "module.py").write_text(
        "import contextlib\nfrom nautobot.one import sure\ntry:\n    from nautobot.two import newer\n"
        "except ImportError:\n    newer = contextlib.nullcontext\n"
    )
    assert imported_names(tmp_path) == {"nautobot.one sure"}


def test_it_is_the_oldest_that_can_be_installed():
    needed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"nautobot>={OLDEST.removesuffix('.0')},<4" in needed
    assert f'min_version = "{OLDEST}"' in (PROJECT / "ai_ops" / "__init__.py").read_text()
