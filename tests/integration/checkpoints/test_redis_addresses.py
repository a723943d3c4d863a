"""However an address is malformed: a sentence says so, and nothing of the password is in it or in a traceback."""

from __future__ import annotations

import asyncio
import logging
import traceback
from urllib.parse import quote

import pytest

from ai_ops.checkpointer import describe_checkpoint_redis, get_checkpointer, get_redis_connection, get_redis_url
from ai_ops.checkpoints.logic.addresses import read_address
from ai_ops.exceptions import AiOpsError, CheckpointStoreError, ConfigurationError

SECRETS = ("s3cret", "pa55word")
# One letter and one digit stand for all: with them an address is well-formed, and a connection is tried.
CHARACTERS = [chr(code) for code in range(128) if not chr(code).isalnum()]
CHARACTERS += ["x", "7", "é", "℀", "\u2028", "％", "\ud800"]
PLACES = {
    "password": "{scheme}://:s3cret{odd}pa55word@127.0.0.1:1{path}",
    "user": "{scheme}://s3cret{odd}pa55word:s3cret@127.0.0.1:1{path}",
    "no host": "{scheme}://:s3cret{odd}pa55word{path}",
    "two ats": "{scheme}://:s3cret{odd}@pa55word@127.0.0.1:1{path}",
    "option": "{scheme}://:s3cret@127.0.0.1:1{path}?password=pa55word{odd}",
    "option's name": "{scheme}://:s3cret@127.0.0.1:1{path}?s3cret{odd}=pa55word",
}
PATHS = {"redis": "/0", "rediss": "/0", "unix": "/nowhere.sock", "redis+sentinel": "/service/0", "redis+cluster": ""}


def leaked(error: BaseException) -> str:
    # Of a traceback the errors, with those before them; its lines of source have no values.
    return "".join(traceback.format_exception(error, limit=0)) + str(error) + repr(error)


@pytest.mark.parametrize("scheme", PATHS)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_wrong_with_an_address_is_said_without_its_secrets(monkeypatch, caplog, scheme, place):
    caplog.set_level(logging.DEBUG)
    # Only a malformed address is of interest here: what a well-formed one connects to is nothing.
    monkeypatch.setattr("ai_ops.checkpoints.connection.CONNECT_TIMEOUT", 0.2)
    for odd in CHARACTERS:
        url = PLACES[place].format(scheme=scheme, odd=odd, path=PATHS[scheme])
        monkeypatch.setattr("os.environ", {"LANGGRAPH_REDIS_URL": url})
        for action in (get_redis_url, get_redis_connection, describe_checkpoint_redis):
            try:
                action()
            except AiOpsError as error:
                text = leaked(error)
                # What stands where a host does can't be told from a host.
                if place != "no host" or isinstance(error, ConfigurationError):
                    assert not any(secret in text for secret in SECRETS), (odd, text)
    assert not any(secret in caplog.text for secret in SECRETS if place != "no host")


@pytest.mark.parametrize(("character", "code"), [("/", "%2F"), ("?", "%3F"), ("#", "%23"), ("[", "%5B"), ("]", "%5D")])
@pytest.mark.parametrize("scheme", PATHS)
def test_the_sentence_names_the_character_and_what_to_write_for_it(monkeypatch, scheme, character, code):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"{scheme}://:s3cret{character}x@127.0.0.1{PATHS[scheme]}")
    with pytest.raises(ConfigurationError) as raised:
        get_redis_connection()
    assert f"it has a {character} in the wrong place" in str(raised.value)
    assert f"write it as {code}" in str(raised.value)


def test_a_character_that_is_percent_encoded_arrives(monkeypatch):
    for password in (chr(code) * 3 for code in range(33, 127)):
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"redis://me:{quote(password, safe='')}@127.0.0.1:7/3")
        options = get_redis_connection().connection_pool.connection_kwargs
        assert (options["password"], options["host"], options["port"], options["db"]) == (password, "127.0.0.1", 7, 3)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://h:70000/0", "host or port"),
        ("redis://.h/0", "host or port"),
        ("redis://" + "h" * 64 + "/0", "host or port"),
        ("redis://h/0/1", "number of a database"),
        ("redis://h/zero", "number of a database"),
        ("redis://h?db=zero", "does not accept, or not with this value"),
        ("redis://h?socket_timeout=soon", "does not accept, or not with this value"),
        ("redis://h?nonsense=1", "does not accept, or not with this value"),
        ("rediss://h?ssl_cert_reqs=perhaps", "does not accept, or not with this value"),
        ("redis+sentinel://h/service?nonsense=1", "does not accept, or not with this value"),
        ("redis+cluster://h?nonsense=1", "does not accept, or not with this value"),
        ("redis://h?decode_responses=true", "has the option decode_responses"),
        ("unix://h/socket", "no path of a socket"),
        ("unix://", "no path of a socket"),
        ("REDIS://h", "must begin with"),
        ("redis:/h", "must begin with"),
    ],
)
def test_an_address_or_option_that_is_none_is_answered_with_a_sentence(monkeypatch, url, sentence):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", url)
    with pytest.raises(ConfigurationError, match=sentence):
        get_redis_connection()


@pytest.mark.parametrize("scheme", ["redis+cluster", "rediss+cluster"])
def test_a_cluster_that_cannot_be_reached_is_answered_with_a_sentence(monkeypatch, scheme):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"{scheme}://:s3cret@127.0.0.1:1")
    for action in (get_redis_connection, describe_checkpoint_redis):
        with pytest.raises(CheckpointStoreError, match="can't be reached") as raised:
            action()
        assert "s3cret" not in leaked(raised.value)


def test_agents_are_told_in_a_sentence_that_sentinel_cannot_be_reached(monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis+sentinel://:s3cret@127.0.0.1:1/service")

    async def ask():
        async with get_checkpointer():
            raise AssertionError("there is no Sentinel")

    with pytest.raises(CheckpointStoreError, match="can't be reached"):
        asyncio.run(ask())


@pytest.mark.parametrize(("variable", "value"), [
    ("NAUTOBOT_REDIS_HOST", "s3cret@h"), ("NAUTOBOT_REDIS_HOST", "h:1/s3cret"), ("NAUTOBOT_REDIS_PORT", "s3cret"),
    ("NAUTOBOT_REDIS_SCHEME", "s3cret"), ("LANGGRAPH_REDIS_DB", "s3cret"),
])  # fmt: skip
def test_nautobots_variables_are_not_quoted_either(monkeypatch, variable, value):
    monkeypatch.setattr("os.environ", {variable: value})
    with pytest.raises(ConfigurationError, match=variable) as raised:
        get_redis_connection()
    assert "s3cret" not in leaked(raised.value)


def test_what_is_shown_of_an_address_has_no_secret():
    address = read_address("redis://me:s3cret@h:1/0?password=pa55word")
    assert address.shown == "redis://h:1/0"
    assert not any(secret in repr(address) for secret in SECRETS)
    assert (address.username, address.password) == ("me", "s3cret")
    assert read_address("redis://:a+cluster@h").kind == ""
