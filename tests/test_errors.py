"""Errors say whose fault it is, what happened and what to do, and survive being copied."""

from __future__ import annotations

import copy
import inspect

import pytest

from stepwell import errors
from stepwell.errors import StepwellError, WorkflowRuntimeError

SAMPLES: list[tuple[StepwellError, str]] = [
    (errors.RunNotFound("r1"), "'r1'"),
    (errors.RunAlreadyExists("dup"), "Workflow run with run_id 'dup' already exists."),
    (errors.WorkflowNotRegistered("flow", ["a", "b"]), "known: a, b."),
    (errors.WorkflowNotRegistered("flow"), "none is known"),
    (errors.NoPendingQuestion("r1", "q"), "'q'"),
    (errors.NoPendingQuestion("r1"), "no pending question."),
    (errors.InvalidArgument("run_id is empty"), "run_id is empty"),
    (errors.DefinitionMismatch("flow", "step 'a' is gone", run_id="r1"), "of run 'r1'"),
    (errors.UnserializableValue("state.x", int), "'state.x' has type builtins.int"),
    (errors.UnserializableValue("x", "int", message="mine"), "mine"),
    (errors.ValueTooLarge("state.x", 11, 10), "11 bytes; the limit is 10 bytes"),
    (errors.UnknownType("os.system", ["A"]), "'os.system'; known: A."),
    (errors.UnknownTask("x", ["a"]), "unknown task 'x'; known: a."),
    (errors.DocumentError(["a: one", "b: two"]), "a: one\nb: two"),
    (errors.WorkflowFailed("no such customer"), "no such customer"),
    (errors.StoreError("no"), "no"),
    (errors.StoreUnavailable("no"), "no"),
    (errors.StoreLocked("no"), "no"),
    (errors.StoreFull("no"), "no"),
    (errors.StoreReadOnly("no"), "no"),
    (errors.StoreCorrupt("no"), "no"),
    (errors.StoreVersionError(9, 3), "version 9; this release supports up to 3"),
    (errors.LeaseLost("r1"), "'r1'"),
    (errors.StepTimeoutError("s", 1.5), "Step 's' timed out after 1.5 seconds."),
    (errors.ExecutionRefused("s", "process", "it is a lambda"), "in a process: it is a lambda."),
    (errors.ChildFailed("r1", "failed", "boom"), "ended as failed: boom"),
    (errors.RestoredError("app.Boom", "bang"), "app.Boom: bang"),
]
PLAIN = [
    errors.WorkflowValidationError,
    errors.WorkflowTimeoutError,
    errors.WorkflowRuntimeError,
    errors.WorkflowDone,
    errors.WorkflowCancelledByUser,
    errors.WorkflowStepDoesNotExistError,
    errors.WorkflowConfigurationError,
    errors.ContextSerdeError,
    errors.ContextStateError,
]


def test_every_error_has_a_sample_here():
    ours = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, StepwellError) and cls is not StepwellError
    }
    assert ours == {type(error) for error, _ in SAMPLES}


def test_every_error_is_drawn_in_the_tree():
    tree = errors.__doc__ or ""
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, Exception):
            assert f" {cls.__name__}" in tree


@pytest.mark.parametrize(("error", "text"), SAMPLES)
def test_the_message_comes_first_and_the_hint_on_a_line_of_its_own(error: StepwellError, text: str):
    assert text in error.message
    assert str(error) == (f"{error.message}\n{error.hint}" if error.hint else error.message)


@pytest.mark.parametrize(("error", "_text"), SAMPLES)
def test_an_error_is_rebuilt_from_its_name_and_text(error: StepwellError, _text: str):
    kind = type(error)
    again = errors.rebuilt(f"{kind.__module__}.{kind.__qualname__}", str(error))
    assert isinstance(again, kind)
    assert (str(again), again.message) == (str(error), error.message)


def test_other_names_are_not_rebuilt():
    assert errors.rebuilt("os.system", "x") is None
    assert str(errors.rebuilt("stepwell.errors.WorkflowTimeoutError", "late")) == "late"


@pytest.mark.parametrize(("error", "_text"), SAMPLES)
def test_a_copy_has_all_that_the_error_has(error: StepwellError, _text: str):
    again = copy.copy(error)
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_a_hint_may_be_given():
    assert str(StepwellError("a", hint="b")) == "a\nb"
    assert str(StepwellError("a")) == "a"


def test_codes_are_unique_and_name_someone():
    kinds = [type(error) for error, _ in SAMPLES]
    codes = {cls: cls.code for cls in kinds} | {cls: cls.code for cls in PLAIN}
    assert len(set(codes.values())) == len(codes)
    assert {cls.whose for cls in codes} <= {"user", "workflow", "operator", "stepwell"}


@pytest.mark.parametrize("cls", PLAIN)
def test_the_words_of_the_event_style_are_direct_exceptions(cls: type[Exception]):
    assert cls.__bases__ == (Exception,)
    assert str(cls("text")) == "text"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.RunAlreadyExists("r"), RuntimeError),
        (errors.RunAlreadyExists("r"), WorkflowRuntimeError),
        (errors.StepTimeoutError("s", 1), TimeoutError),
        (errors.RunNotFound("r"), LookupError),
        (errors.UnknownType("t"), ValueError),
        (errors.UnserializableValue("p", int), ValueError),
        (errors.ValueTooLarge("p", 2, 1), ValueError),
        (errors.StoreFull("x"), errors.StoreError),
        (errors.InvalidArgument("x"), ValueError),
        (errors.InvalidArgument("x"), TypeError),
    ],
)
def test_errors_are_caught_as_what_python_would_call_them(error: Exception, kind: type[Exception]):
    assert isinstance(error, kind)
