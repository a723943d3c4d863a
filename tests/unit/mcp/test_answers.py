"""Messages of a server are read as the official SDK reads them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import JSONRPCMessage
from pydantic import ValidationError

from ai_ops.mcp.http.answers import message_in
from ai_ops.mcp.logic.protocol import ProtocolViolation

VALUES = st.sampled_from(
    [None, True, 1, 1.5, "", "1", "2.0", "ping", [], [1], {}, {"a": [1]}, {"code": 1, "message": "x"}, {"_meta": {}}]
)
MESSAGES = st.dictionaries(
    st.sampled_from(["jsonrpc", "id", "result", "error", "method", "params", "extra"]), VALUES, min_size=1
).map(lambda made: {"jsonrpc": "2.0", "id": 1, **made})


@given(MESSAGES)
def test_any_message_is_what_the_sdk_takes_it_for(message):
    text = json.dumps(message)
    try:
        expected = JSONRPCMessage.model_validate_json(text).root
    except ValidationError:
        with pytest.raises(ProtocolViolation):
            message_in(text)
    else:
        read = message_in(text)
        assert (type(read), read) == (type(expected), expected)
