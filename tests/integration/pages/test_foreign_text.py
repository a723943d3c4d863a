"""Text of others in a Job's log, as Nautobot stores it and renders it."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nautobot.core.templatetags.helpers import render_markdown
from nautobot.core.utils.logging import sanitize

from ai_ops.logic.foreign_text import for_markdown, printable

LINES = ("{}", "Thread {}: 3 keys", "{} and {}", "{}{}", "❌ Failed: {}", "Kept {}, {}")
PIECES = (
    "![](http://evil/x.png)",
    "[log in](http://evil)",
    "![a][b]",
    "[b]: http://evil",
    "<http://evil>",
    "<me@evil>",
    "<img src=http://evil/x.png>",
    "<div>",
    "<!--",
    "<?x?>",
    "<![CDATA[",
    "# head",
    "> quote",
    "1. one",
    "123456. one",
    "- item",
    "+ item",
    "    code",
    "```",
    "``",
    "__strong__",
    "_em_",
    "*em*",
    "***",
    "---",
    "| a | b |",
    "&lt;img src=x&gt;",
    "&#91;",
    "\\",
    "\\[",
    "\x02klzzwxh:0000\x03",
    "\n\n",
    "\r",
    "\u2028",
    "password: x",
    "x@",
    " ",
    "a",
    "(http://evil)",
    "[",
    "]",
    "!",
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=5).map("".join)


class Rendered(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@given(st.sampled_from(LINES), texts, texts)
@example("{} and {}", "![", "](http://evil/x.png)")
@example("{}{}", "x@![a]", "(http://evil/x.png)")
def test_a_log_line_shows_foreign_text_as_it_is_and_nothing_of_it_acts(line, one, other):
    html = render_markdown(line.format(for_markdown(one), for_markdown(other)))
    rendered = Rendered(html)
    assert set(rendered.tags) <= {"p"}, html
    expected = line.format(printable(one), printable(other))
    assert re.sub(r"\s", "", rendered.text) == re.sub(r"\s", "", expected)


@given(st.sampled_from(LINES), texts, texts)
@example("{}", "x@![a](http://evil/x.png)", "")
@example("{}", "`x@![a](http://evil/x.png)`", "")
@example("{}", "password: `![a](http://evil/x.png)", "")
def test_what_nautobot_takes_out_of_a_line_brings_nothing_to_life(line, one, other):
    html = render_markdown(sanitize(line.format(for_markdown(one), for_markdown(other))))
    assert not {"a", "img"} & set(Rendered(html).tags), html


@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_alone_renders_as_itself(piece):
    html = render_markdown(for_markdown(piece))
    assert set(Rendered(html).tags) <= {"p"}, html
