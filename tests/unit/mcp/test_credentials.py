"""Headers that carry credentials, which nothing may show."""

import base64
import html
import json
import re
import textwrap
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.exceptions import CredentialsError
from ai_ops.mcp.logic.credentials import HIDDEN, Credentials


def test_a_token_is_sent_as_a_bearer():
    credentials = Credentials.bearer("s3cret")
    assert (credentials.header, credentials.value) == ("Authorization", "Bearer s3cret")


def test_neither_repr_nor_str_show_the_secret():
    credentials = Credentials("X-Api-Key", "s3cret", "s3cret")
    assert "s3cret" not in f"{credentials} {credentials!r} {[credentials]}"
    swapped = Credentials("s3cret", "X-Api-Key", "X-Api-Key")
    assert "s3cret" not in f"{swapped} {swapped!r}"


@pytest.mark.parametrize(
    "value",
    [
        "s3\rcret",
        "s3\ncret",
        "s3\r\nX-Injected: y",
        "s3\0cret",
        "s3\x7fcret",
        "s3\tcret",
        "s3crét",
        " s3cret",
        "s3cret ",
    ],
)
def test_a_value_that_would_end_or_break_the_header_is_refused_without_showing_it(value):
    with pytest.raises(CredentialsError) as refusal:
        Credentials("X-Api-Key", value, value)
    assert value not in str(refusal.value)
    assert str(refusal.value).startswith("the value has ")


@pytest.mark.parametrize(
    "name",
    ["Host", "host", "Content-Length", "Transfer-Encoding", "Mcp-Session-Id", "mcp-anything", "Connection", "Accept"],
)
def test_headers_that_say_where_a_message_goes_or_ends_are_not_for_credentials(name):
    with pytest.raises(CredentialsError, match="is not for credentials"):
        Credentials(name, "s3cret", "s3cret")


@pytest.mark.parametrize("name", ["", "X Api", "X-Api:", "X\r\nY", "ключ"])
def test_a_name_that_no_header_has_is_refused(name):
    with pytest.raises(CredentialsError, match="characters that no header's name has"):
        Credentials(name, "s3cret", "s3cret")


def test_an_empty_secret_is_refused():
    with pytest.raises(CredentialsError):
        Credentials.bearer("")


def test_what_a_server_sends_back_is_hidden():
    credentials = Credentials.bearer("s3cret")
    assert credentials.hide_in("you sent Bearer s3cret, s3cret!") == "you sent (hidden), (hidden)!"


SECRET = "s3cret-T0ken/+=&<\" '\\~"


@pytest.mark.parametrize(
    "written",
    [
        str,
        str.lower,
        str.upper,
        lambda text: quote(text, safe=""),
        lambda text: quote(text).lower(),
        quote_plus,
        lambda text: quote(quote(text)),
        lambda text: "".join(f"%{ord(each):02X}" for each in text),
        lambda text: json.dumps(text)[1:-1],
        lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
        lambda text: repr(text)[1:-1],
        html.escape,
        lambda text: "".join(f"&#{ord(each)};" for each in text),
        lambda text: json.dumps(html.escape(quote(text)))[1:-1],
        lambda text: "".join(f"%u{ord(each):04X}" for each in text),
        lambda text: "".join(f"\\u{{{ord(each):x}}}" for each in text),
        lambda text: "".join(f"\\U{ord(each):08x}" for each in text),
        lambda text: html.escape(text).replace("/", "&sol;").replace("+", "&plus;").replace("=", "&equals;"),
        lambda text: "\n".join(text),
        lambda text: "\r\n\t".join(textwrap.wrap(text, 7)),
        lambda text: "\u200b".join(text),
        lambda text: f"{text[:4]}\u00ad{text[4:]}",
        lambda text: "".join(chr(ord(each) + 0xFEE0) if each != " " else "\u3000" for each in text),
        lambda text: text.replace("k", "\u212a").replace("s", "\u017f"),
        lambda text: text.encode().hex(),
        lambda text: text.encode().hex().upper(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
        lambda text: quote(base64.b64encode(text.encode()).decode().rstrip("="), safe=""),
    ],
)
def test_a_secret_that_comes_back_changed_is_hidden(written):
    credentials = Credentials("X-Api-Key", SECRET, SECRET)
    assert credentials.hide_in(f"a {written(SECRET)} b {written(SECRET)}!") == "a (hidden) b (hidden)!"


@given(st.text(max_size=5), st.text(max_size=5), st.booleans())
def test_a_secret_inside_what_comes_back_in_base64_is_hidden_wherever_it_begins(before, after, in_urls):
    encode = base64.urlsafe_b64encode if in_urls else base64.b64encode
    back = encode(f"{before}{SECRET}{after}".encode()).decode()
    hidden = Credentials("X-Api-Key", SECRET, SECRET).hide_in(back)
    assert HIDDEN in hidden
    # The characters that depend on what stands around it stay, with less than one of the secret on each side.
    assert len(hidden) <= len(encode(before.encode())) + len(HIDDEN) + len(encode(after.encode())) + 4


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ("Token abc-DEF-123", "no token ABC-def-123 here"),
        ("Bearer abc-DEF-123", "abc-DEF-123"),
        (
            "Basic " + base64.b64encode(b"bob:hunter2").decode(),
            "bob:hunter2 is wrong, so is hunter2, and Ym9iOmh1bnRlcjI",
        ),
        ("Basic " + base64.b64encode("bob:pä".encode()).decode(), "the password p\u00e4"),
        ("session=abcdef123456; other=ghijkl", "no session abcdef123456"),
        ('Digest username="x", response="0123456789"', "response 0123456789"),
        ("id:secret-part", "secret-part"),
    ],
)
def test_the_parts_of_a_value_are_hidden_too(value, back):
    hidden = Credentials("Authorization", value, value).hide_in(back)
    for part in ("abc-def-123", "hunter2", "ym9iomh1bnrlcji", "p\u00e4", "abcdef123456", "0123456789", "secret-part"):
        assert part not in hidden.lower()


def test_a_scheme_is_a_word_like_any_other():
    assert Credentials.bearer("s3cret-token").hide_in("Bearer is needed") == "Bearer is needed"


@pytest.mark.parametrize(
    ("secret", "back"), [("%00", "&#37;00"), ("%41%42", "&#37;41%42"), ("&#65;", "%26#65;"), ("\\u0041", "%5Cu0041")]
)
def test_a_secret_that_looks_like_a_written_character_is_hidden(secret, back):
    assert Credentials("X-Api-Key", secret, secret).hide_in(f"- {back} -") == "- (hidden) -"


# With a letter that no way to write a space has: a secret of nothing but such is found nowhere.
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).filter(re.compile("[g-tvw]").search)


@given(SECRETS, st.text(), st.data())
def test_a_secret_of_which_any_characters_are_written_otherwise_is_hidden(secret, around, data):
    forms = [str, lambda each: f"%{ord(each):02x}", lambda each: f"&#{ord(each)};", lambda each: f"\\u{ord(each):04x}"]
    back = "".join(data.draw(st.sampled_from(forms))(each) for each in secret)
    hidden = Credentials("X-Api-Key", secret, secret).hide_in(f" {back} ")
    assert hidden == " (hidden) "
    # Whatever else there is, nothing raises.
    Credentials("X-Api-Key", secret, secret).hide_in(around + back + around)


def test_a_name_that_may_be_the_secret_is_hidden_and_a_usual_one_is_not():
    assert Credentials("s3cret", "X-Api-Key", "X-Api-Key").hide_in("S3CRET: x") == "(hidden): x"
    assert Credentials("X-Api-Key", "s3cret", "s3cret").hide_in("X-Api-Key: s3cret") == "X-Api-Key: (hidden)"


def test_a_long_secret_and_a_long_text_take_no_time():
    credentials = Credentials.bearer("a.b-" * 2000)
    started = time.process_time()
    credentials.hide_in("%41+" * 10_000)
    assert time.process_time() - started < 30, "a try at each place for each form would take hours"
