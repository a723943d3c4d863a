"""Agents see each tool of each server under a name of its own."""

from hypothesis import given
from hypothesis import strategies as st

from ai_ops.mcp.logic.tool_names import MAX_NAME_CHARACTERS, distinct_names

SERVER_NAMES = {1: "a b", 2: "a-b", 3: "a b_c", 4: "東京", 5: "大阪", 6: "x" * 200}
OWN_NAMES = ["pay", "c_pay", "a_b_pay", "server_pay", "y" * 64]


def test_only_tools_of_two_servers_are_prefixed():
    tools = [(1, "Billing", "pay"), (2, "Shop (EU)", "pay"), (1, "Billing", "list")]
    assert distinct_names(tools) == ["Billing_pay", "Shop_EU_pay", "list"]
    assert distinct_names(tools, always=True) == ["Billing_pay", "Shop_EU_pay", "Billing_list"]


@given(
    st.lists(st.tuples(st.sampled_from(sorted(SERVER_NAMES)), st.sampled_from(OWN_NAMES)), unique=True), st.booleans()
)
def test_no_two_names_are_alike_and_the_order_of_servers_is_nothing(chosen, always):
    tools = [(key, SERVER_NAMES[key], name) for key, name in chosen]
    found = distinct_names(tools, always=always)
    assert len(set(found)) == len(found)
    assert all(len(each) <= MAX_NAME_CHARACTERS for each in found)
    assert dict(zip(tools, found, strict=True)) == dict(
        zip(reversed(tools), distinct_names(tools[::-1], always=always), strict=True)
    )


def test_a_server_that_knows_the_names_to_come_takes_none_of_them():
    tools = [(1, "A", "pay"), (2, "B", "pay"), (2, "B", "A_pay")]
    for _ in range(3):
        # The name that the first server's tool would get, and then the one after it.
        tools.append((2, "B", distinct_names(tools)[0]))
        names = distinct_names(tools)
        assert len(set(names)) == len(names)
        assert names[2:] == [name for *_, name in tools[2:]]
        assert names == distinct_names(tools[::-1])[::-1]


def test_what_a_server_lists_twice_under_one_name_is_one_tool():
    assert distinct_names([(1, "A", "pay"), (1, "A", "pay")]) == ["pay", "pay"]
    assert distinct_names([(1, "A", "pay"), (1, "A", "pay"), (2, "B", "pay")]) == ["A_pay", "A_pay", "B_pay"]
