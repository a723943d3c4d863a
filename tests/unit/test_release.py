"""A release: its version, its notes in the changelog; and the make targets that files at the root name."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from development.release import release
from development.services import PROJECT

TODAY = datetime(2027, 1, 2, tzinfo=UTC)
MARK = "<!-- towncrier release notes start -->"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "changes").mkdir()
    ours = (PROJECT / "pyproject.toml").read_text()
    towncrier = ours[ours.index("[tool.towncrier]") : ours.index("[tool.pytest.ini_options]")]
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nversion = "0.9.0"\n\n{towncrier}\n[tool.y]\nversion = "3"\n'
    )
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{MARK}\n\n## 0.9.0 (2026-12-01)\n")
    for name, text in (("7.fixed", "A\nfault."), ("8.added", "A page."), ("+x.added", "A button."), (".gitignore", "")):
        (tmp_path / "changes" / name).write_text(text)
    return tmp_path


def test_the_notes_become_a_section_above_the_others_and_are_gone(project):
    release("1.0.0", project, TODAY)
    assert (project / "CHANGELOG.md").read_text() == (
        f"# Changelog\n\n{MARK}\n\n## 1.0.0 (2027-01-02)\n\n### Added\n\n- A page. (#8)\n- A button.\n\n"
        "### Fixed\n\n- A\n  fault. (#7)\n\n\n## 0.9.0 (2026-12-01)\n"
    )
    assert [each.name for each in (project / "changes").iterdir()] == [".gitignore"]
    assert 'version = "1.0.0"' in (project / "pyproject.toml").read_text()
    assert 'version = "3"' in (project / "pyproject.toml").read_text()


@pytest.mark.parametrize("version", ["one", "1.0", "0.8.9", "0.9.0rc1", "1.0.0; rm"])
def test_what_is_no_newer_version_is_refused_and_changes_nothing(version, project):
    before = (project / "CHANGELOG.md").read_text()
    with pytest.raises(SystemExit):
        release(version, project, TODAY)
    assert (project / "CHANGELOG.md").read_text() == before
    assert len(list((project / "changes").iterdir())) == 4


def test_a_dry_run_shows_the_section_and_changes_nothing(project):
    assert "- A button." in release("1.0.0", project, TODAY, dry_run=True)
    assert len(list((project / "changes").iterdir())) == 4
    assert "1.0.0" not in (project / "CHANGELOG.md").read_text() + (project / "pyproject.toml").read_text()


def test_without_notes_there_is_no_release(project):
    for note in (project / "changes").glob("*.*"):
        note.unlink()
    with pytest.raises(SystemExit, match="no notes"):
        release("1.0.0", project, TODAY)


@pytest.mark.parametrize(
    "name", ["CONTRIBUTING.md", ".github/workflows/ci.yml", ".pre-commit-config.yaml", "README.md", ".ci/run"]
)
def test_the_make_targets_that_are_named_exist(name):
    targets = set(re.search(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)[1].split())
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)(?=\s|`|$|,|;)", (PROJECT / name).read_text()))
    assert named
    assert named <= targets | {"and", "the"}


def test_the_files_that_the_security_page_names_exist():
    for path in re.findall(r"`(tests/[\w/.]+)`", (PROJECT / "SECURITY.md").read_text()):
        assert (PROJECT / path).exists(), path
