"""Settings of the app: each value is let pass, or refused with a sentence that names the setting."""

import math
from dataclasses import fields

import pytest

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError

ODD = [
    None,
    True,
    -1,
    10**13,
    0.5,
    math.nan,
    math.inf,
    "",
    " ",
    "x",
    "\x00",
    b"x",
    [],
    [1],
    {},
    {"x": 1},
    {1},
    object(),
]
NAMES = [each.name for each in fields(AiOpsSettings)]


@pytest.mark.parametrize("name", NAMES)
def test_any_value_of_a_setting_is_let_pass_or_refused_in_a_sentence_that_names_it(name):
    refusals = [refusal for value in ODD if (refusal := refusal_of(name, value))]
    assert len(refusals) >= len(ODD) / 2, f"{name} has no rule"
    for refusal in refusals:
        assert name in refusal
        assert refusal.endswith(".")


def refusal_of(name, value):
    try:
        AiOpsSettings(**{name: value})
    except ConfigurationError as refusal:
        return str(refusal)
    return None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"memory_limit_mb": 1}, "set both or neither"),
        ({"memory_limit_mb": 1, "memory_retention_days": 40}, "must not be longer than retention_days"),
        ({"flap_low_percent": 30}, "in this order"),
        ({"mass_failure_percent": 50}, "needs a control_url"),
        ({"compact_prefix": "checkpoint"}, "not the prefix of another saver's keys"),
        ({"time_limits": {"cleanup": 1}}, "time limit of cleanup"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given, words):
    with pytest.raises(ConfigurationError, match=words):
        AiOpsSettings(**given)
