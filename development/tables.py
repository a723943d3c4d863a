"""Tables of the generated documentation."""

from collections.abc import Iterable, Iterator


def table(*rows: Iterable[str]) -> Iterator[str]:
    """Return the lines of a Markdown table; the first row has the headings."""
    heading, *others = (list(row) for row in rows)
    for row in (heading, ["---"] * len(heading), *others):
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
    yield ""
