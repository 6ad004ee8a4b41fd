"""errors: one tree, each failure with a hint in plain words."""

from __future__ import annotations

import pickle

import pytest

from voicehelper import errors

from .support import made_up

TREE = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.VoiceHelperError)]
NAMES = [
    "SettingsError",
    "InputError",
    "ConnectionFailed",
    "KeyRefused",
    "DeploymentNotFound",
    "ServerRefused",
    "RateLimited",
    "TurnFailed",
    "SpeechFailed",
    "SpeechCancelled",
]
every_error = pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)


def test_the_tree_has_the_ten_failures_of_the_design_under_one_root():
    assert {error.__name__ for error in TREE} == {*NAMES, "VoiceHelperError"}


@every_error
def test_every_failure_says_what_happened_and_what_to_do(error):
    what = made_up()
    raised = error(what)
    assert what in str(raised)
    assert raised.hint
    assert raised.hint in str(raised)


@every_error
def test_every_failure_says_whether_trying_again_may_help(error):
    assert isinstance(error("x").retryable, bool)


@every_error
def test_hint_and_retryable_can_be_given_for_one_case_without_changing_the_class(error):
    hint, before = made_up(), (error.hint, error.retryable)
    raised = error("x", hint=hint, retryable=not error.retryable)
    assert (raised.hint, raised.retryable) == (hint, not before[1])
    assert (error.hint, error.retryable) == before


def test_only_a_broken_connection_and_a_rate_limit_are_worth_trying_again_by_themselves():
    assert {error.__name__ for error in TREE if error.retryable} == {"ConnectionFailed", "RateLimited"}


def test_a_wrong_value_is_a_value_error_for_those_who_do_not_know_our_tree():
    assert issubclass(errors.InputError, ValueError)


def test_a_failed_turn_carries_the_turn():
    turn = object()
    assert errors.TurnFailed("x", turn=turn).turn is turn


@every_error
def test_a_notebook_cell_shows_the_message_and_the_hint_instead_of_frames(error):
    what = made_up()
    shown = error(what)._render_traceback_()
    assert what in "\n".join(shown)
    assert error.hint in "\n".join(shown)
    assert len(shown) == 2


@every_error
def test_a_failure_survives_being_sent_to_another_process(error):
    what = made_up()
    again = pickle.loads(pickle.dumps(error(what, hint="do this")))
    assert (type(again), again.message, again.hint) == (error, what, "do this")
