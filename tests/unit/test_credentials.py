"""Which headers carry credentials, and that nothing shows them."""

import pytest

from ai_ops.core.credentials import Credentials
from ai_ops.exceptions import CredentialsError


def test_a_token_is_sent_as_a_bearer():
    credentials = Credentials.bearer("s3cret")
    assert (credentials.header, credentials.value) == ("Authorization", "Bearer s3cret")


def test_neither_repr_nor_str_show_the_secret():
    credentials = Credentials("X-Api-Key", "s3cret", "s3cret")
    assert "s3cret" not in f"{credentials} {credentials!r} {[credentials]}"
    assert "X-Api-Key" in repr(credentials)


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
