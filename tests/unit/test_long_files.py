"""The order of the test files."""

from pathlib import Path

from tests.plugin import LONG_FILES

TESTS = Path(__file__).parents[1]


def test_each_file_that_is_to_begin_first_exists():
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert [names.count(name) for name in LONG_FILES] == [1] * len(LONG_FILES)
