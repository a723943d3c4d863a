"""Libraries that are loaded when they are first used."""

from __future__ import annotations

import sys

import pytest

from development.late_import import import_later


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package with a module that says when it is loaded."""
    (tmp_path / "of_this_test").mkdir()
    (tmp_path / "of_this_test" / "__init__.py").write_text("inside = 'the package'")
    loaded = tmp_path / "loaded"
    client = f"open({str(loaded)!r}, 'a').write('x')\nANSWER = 42\ndef ask(): return ANSWER"
    (tmp_path / "of_this_test" / "client.py").write_text(client)
    monkeypatch.syspath_prepend(tmp_path)
    yield loaded
    for name in ("of_this_test", "of_this_test.client"):
        sys.modules.pop(name, None)


def test_a_module_is_loaded_once_when_something_in_it_is_used(library):
    import_later("of_this_test", "client")
    import of_this_test.client

    assert not hasattr(of_this_test.client, "__path__")
    assert not library.exists()
    assert of_this_test.client.ask() == of_this_test.client.ANSWER == 42
    assert library.read_text() == "x"
    with pytest.raises(AttributeError, match="nothing"):
        _ = of_this_test.client.nothing


def test_once_it_is_loaded_all_of_the_package_is_there(library):
    import_later("of_this_test", "client")
    from of_this_test import client

    assert client.ANSWER == 42
    import of_this_test

    assert of_this_test.inside == "the package"
    assert of_this_test.client is sys.modules["of_this_test.client"]
