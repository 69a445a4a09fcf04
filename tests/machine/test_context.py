"""The run's Context: what it may hold, what is committed, what is refused where it is written."""

from __future__ import annotations

import enum
import gc
import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)

from stepwell.errors import (
    ContextStateError,
    UnserializableValue,
    WorkflowConfigurationError,
)
from stepwell.machine import (
    Retry,
    WorkflowEngine,
    complete,
    get_context,
    goto,
    step,
    wait,
    workflow,
)
from stepwell.testing import SynchronousExecutor


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Address(BaseModel):
    street: str
    lines: tuple[str, ...] = ()
    seen: datetime | None = None


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


VALUES: list[tuple[Any, Any]] = [
    (Decimal, Decimal("10.10")),
    (Decimal, Decimal("1E+30")),
    (datetime, datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)),
    (datetime, datetime(2026, 3, 1, 9, 30)),
    (date, date(2026, 2, 28)),
    (timedelta, timedelta(days=3, seconds=5, microseconds=7)),
    (timedelta, timedelta(seconds=-90)),
    (UUID, UUID("12345678-1234-5678-1234-567812345678")),
    (Address, Address(street="Main", lines=("a", "b"), seen=datetime(2026, 1, 1, tzinfo=UTC))),
    (list[Address], [Address(street="A"), Address(street="B")]),
    (dict[str, Address], {"home": Address(street="A")}),
    (dict[int, str], {1: "one", 2: "two"}),
    (dict[UUID, Decimal], {UUID(int=1): Decimal("0.1")}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (set[int], {1, 2, 3}),
    (frozenset[str], frozenset({"a"})),
    (Colour, Colour.BLUE),
    (Size, Size.LARGE),
    (list[Colour], [Colour.RED]),
    (Optional[int], None),  # noqa: UP045 - as users write it
    (int | None, 5),
    (bytes, b"ab"),
    (float, 0.1),
    (int, 2**80),
    (bool, True),
    (str, "a\u00e9\U0001f600\n"),
    (list[Any], [1, "a", None, {"b": [2.5]}]),
    (dict[str, Any], {"a": {"b": [1, 2]}}),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(name="Rex")),
    (Literal["a", "b"], "b"),
]


@pytest.mark.parametrize(
    "number, kind, value", [(n, k, v) for n, (k, v) in enumerate(VALUES)], ids=lambda v: str(v)[:20]
)
def test_types_come_back_as_they_were(
    engine: WorkflowEngine, number: int, kind: Any, value: object
) -> None:
    seen: list[object] = []

    class Holder(BaseModel):
        held: kind  # pyright: ignore[reportInvalidTypeForm] - from the table
        later: kind | None = None  # pyright: ignore[reportInvalidTypeForm]

    @workflow(f"context-type-{number}")
    class Machine:
        Context = Holder

        @step(start=True)
        def first(self) -> Any:
            ctx = get_context()
            seen.append(ctx.held)
            ctx.later = value
            return goto(self.second)

        @step()
        async def second(self) -> Any:
            ctx = get_context()
            seen.extend((ctx.held, ctx.later))
            return complete(held=ctx.held)

    run = engine.start(Machine, held=value).refresh()
    assert (run.status, run.error) == ("completed", None)
    assert seen == [value] * 3
    assert {type(one) for one in seen} == {type(value)}
    assert getattr(run.context, "held") == value  # noqa: B009 - of a class made above


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinite_numbers_come_back(engine: WorkflowEngine, value: float) -> None:
    class Holder(BaseModel):
        held: float = 0.0

    @workflow(f"context-infinite{value}")
    class Machine:
        Context = Holder
        context: Holder

        @step(start=True)
        def first(self) -> Any:
            self.context.held = value
            return goto(self.second)

        @step()
        def second(self) -> Any:
            return complete(same=self.context.held == value)

    run = engine.start(Machine)
    assert (run.refresh().error, run.result) == (None, {"same": True})


# --- what is changed -----------------------------------------------------------------------------


class Deep(BaseModel):
    tags: list[str] = []
    address: Address = Address(street="none")
    table: dict[str, list[int]] = {}
    tries: int = 0


def test_changes_in_place_are_committed(engine: WorkflowEngine) -> None:
    @workflow("context-in-place")
    class Machine:
        Context = Deep
        context: Deep

        @step(start=True)
        def first(self) -> Any:
            self.context.tags.append("a")
            self.context.address.street = "Main"
            self.context.table.setdefault("x", []).append(1)
            return goto(self.second)

        @step()
        def second(self) -> Any:
            assert self.context is get_context()
            self.context.tags.append("b")
            self.context.table["x"].append(2)
            return complete()

    run = engine.start(Machine)
    assert run.data["tags"] == []  # as it was created
    run.refresh()
    assert run.data["tags"] == ["a", "b"]
    assert run.data["address"]["street"] == "Main"
    assert run.data["table"] == {"x": [1, 2]}


def test_changes_of_an_attempt_that_failed_are_dropped(engine: WorkflowEngine) -> None:
    seen: list[Any] = []

    @workflow("context-dropped", default_retry=Retry(max_attempts=3, base_delay=0))
    class Machine:
        Context = Deep
        context: Deep

        @step(start=True)
        def first(self) -> Any:
            seen.append((list(self.context.tags), self.context.tries))
            self.context.tags.append("a")
            self.context.tries += 1
            if len(seen) < 3:
                raise OSError("not yet")
            return complete()

    run = engine.start(Machine).refresh()
    assert seen == [([], 0)] * 3
    assert (run.data["tags"], run.data["tries"]) == (["a"], 1)


def test_a_step_has_a_copy_of_its_own(engine: WorkflowEngine) -> None:
    kept: list[Deep] = []

    @workflow("context-copy")
    class Machine:
        Context = Deep
        context: Deep

        @step(start=True)
        def first(self) -> Any:
            kept.append(self.context)
            return wait.for_signal("go")

        @step()
        def second(self) -> Any:
            assert self.context is not kept[0]
            return complete()

    run = engine.start(Machine)
    kept[0].tags.append("after the end of the step")
    engine.signal("go")
    assert (run.refresh().status, run.data["tags"]) == ("completed", [])


def test_a_start_keeps_no_hand_on_what_it_was_given(engine: WorkflowEngine) -> None:
    @workflow("context-given")
    class Machine:
        Context = Deep

        @step(start=True)
        def first(self) -> Any:
            return wait.for_signal("go")

        @step()
        def second(self) -> Any:
            return complete()

    tags = ["a"]
    run = engine.start(Machine, tags=tags)
    tags.append("b")
    engine.signal("go")
    assert run.refresh().data["tags"] == ["a"]


def test_a_run_may_start_with_a_context(engine: WorkflowEngine) -> None:
    @workflow("context-whole")
    class Machine:
        Context = Deep

        @step(start=True)
        def first(self) -> Any:
            return complete()

    assert engine.start(Machine, Deep(tags=["x"])).refresh().data["tags"] == ["x"]
    with pytest.raises(TypeError, match="a Context, or the fields of one, not both"):
        engine.start(Machine, Deep(), tags=["x"])
    with pytest.raises(TypeError, match=r"start\(\) takes .*Machine\.Context, not Address"):
        engine.start(Machine, Address(street="x"))


def test_create_context(engine: WorkflowEngine) -> None:
    @workflow("context-created")
    class Machine:
        class Context(BaseModel):
            user_id: int
            label: str

        @classmethod
        def create_context(cls, user_id: int) -> Context:
            return cls.Context(user_id=user_id, label=f"user {user_id}")

        @step(start=True)
        def first(self) -> Any:
            return complete(label=get_context().label)

    assert engine.result(engine.start(Machine, user_id=7).id) == {"label": "user 7"}
    with pytest.raises(TypeError, match="user_id"):
        engine.start(Machine)
    assert engine.runs.filter(name="context-created").count() == 1


def test_create_context_that_makes_something_else(engine: WorkflowEngine) -> None:
    @workflow("context-else")
    class Machine:
        Context = Deep

        @classmethod
        def create_context(cls) -> Any:
            return {"tags": []}

        @step(start=True)
        def first(self) -> Any:
            return complete()

    with pytest.raises(TypeError, match=r"Machine.create_context\(\) must return Machine.Context"):
        engine.start(Machine)


# --- what is refused -----------------------------------------------------------------------------


class Strict(BaseModel):
    score: int = Field(default=0, le=100)
    name: str = ""
    extra: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def no_spaces(cls, value: str) -> str:
        if " " in value:
            raise ValueError("has spaces")
        return value


def scorer(name: str, change: Callable[[Strict], None]) -> Any:
    @workflow(f"context-scorer-{name}")
    class Scorer:
        Context = Strict
        context: Strict

        @step(start=True)
        def first(self) -> Any:
            change(self.context)
            return wait.for_signal("score")

        @step()
        def second(self) -> Any:
            return complete()

    return Scorer


@pytest.mark.parametrize(
    "name, change, text",
    [
        ("type", lambda c: setattr(c, "score", "many"), "score: Input should be a valid integer"),
        ("bound", lambda c: setattr(c, "score", 101), "score: Input should be less than or equal"),
        ("validator", lambda c: setattr(c, "name", "a b"), "name: Value error, has spaces"),
        ("none", lambda c: setattr(c, "name", None), "name: Input should be a valid string"),
        ("object", lambda c: c.extra.update(lock=object()), "context.extra"),
    ],
)
def test_a_wrong_value_fails_the_step_that_wrote_it(
    engine: WorkflowEngine, name: str, change: Callable[[Strict], None], text: str
) -> None:
    run = engine.start(scorer(name, change)).refresh()
    assert run.status == "failed"
    assert text in str(run.error)
    assert run.current_step == "first"


@pytest.mark.parametrize(
    "payload, text",
    [
        ({"score": "abc"}, "score: Input should be a valid integer"),
        ({"score": 101}, "score: Input should be less than or equal to 100 (got 101)"),
        ({"name": "a b"}, "name: Value error, has spaces (got 'a b')"),
        ({"score": None}, "score: Input should be a valid integer"),
    ],
)
@pytest.mark.parametrize("way", ["broadcast", "run", "correlation"])
def test_a_wrong_payload_is_refused_by_signal(
    engine: WorkflowEngine, way: str, payload: dict[str, Any], text: str
) -> None:
    cls = scorer(f"signal-{way}-{payload}", lambda c: None)
    runs = [engine.start(cls, correlation="c") for _ in range(3)]
    ways = {"run": {"run_id": runs[1].id}, "correlation": {"correlation": "c"}, "broadcast": {}}
    where: dict[str, Any] = ways[way]
    with pytest.raises(ValueError, match="signal 'score' does not fit run ") as caught:
        engine.signal("score", payload, **where)
    assert text in str(caught.value)
    assert {run.refresh().status for run in runs} == {"waiting"}
    assert engine.signal("score", {"score": 3}, **where) == (1 if way == "run" else 3)


def test_a_payload_that_can_not_be_kept_is_refused(engine: WorkflowEngine) -> None:
    run = engine.start(scorer("odd", lambda c: None))
    with pytest.raises(UnserializableValue, match=r"the payload of 'score'\.extra\.lock"):
        engine.signal("score", {"extra": {"lock": object()}})
    wrong: Any = [("score", 3)]
    with pytest.raises(TypeError, match="the payload of 'score' is a mapping of fields to values"):
        engine.signal("score", wrong)
    assert run.refresh().status == "waiting"


def test_a_start_that_does_not_fit_is_refused(engine: WorkflowEngine) -> None:
    cls = scorer("start", lambda c: None)
    with pytest.raises(ValueError, match="score"):
        engine.start(cls, score="many")
    assert engine.runs.filter(name="context-scorer-start").count() == 0


def test_undeclared_fields_are_dropped_and_told_of(
    engine: WorkflowEngine, caplog: pytest.LogCaptureFixture
) -> None:
    run = engine.start(scorer("dropped", lambda c: None))
    with caplog.at_level(logging.WARNING, "stepwell"):
        engine.signal("score", {"score": 3, "colour": "red", "age": 5})
    assert "its Context declares no age, colour; dropped" in caplog.text
    data = run.refresh().data
    assert (data["score"], "colour" in data) == (3, False)


def extras(name: str, extra: Any) -> Any:
    class Open(BaseModel):
        model_config = ConfigDict(extra=extra)
        score: int = 0

    @workflow(f"context-extra-{name}")
    class Machine:
        Context = Open

        @step(start=True)
        def first(self) -> Any:
            return wait.for_signal("more")

        @step()
        def second(self) -> Any:
            return complete(seen=getattr(get_context(), "colour", None))

    return Machine


def test_extra_fields_are_kept_where_they_are_allowed(
    engine: WorkflowEngine, caplog: pytest.LogCaptureFixture
) -> None:
    run = engine.start(extras("allow", "allow"), size=4)
    engine.signal("more", {"colour": "red"})
    assert (run.refresh().status, run.result) == ("completed", {"seen": "red"})
    assert run.data == {"score": 0, "size": 4, "colour": "red"}
    assert "dropped" not in caplog.text


def test_extra_fields_are_refused_where_they_are_forbidden(engine: WorkflowEngine) -> None:
    run = engine.start(extras("forbid", "forbid"))
    with pytest.raises(ValueError, match="colour: Extra inputs are not permitted"):
        engine.signal("more", {"colour": "red"})
    engine.signal("more", {"score": 1})
    assert run.refresh().status == "completed"


def test_aliases(engine: WorkflowEngine, caplog: pytest.LogCaptureFixture) -> None:
    class Named(BaseModel):
        order_id: int = Field(alias="orderId")
        total: Decimal = Field(default=Decimal(0), validation_alias="totalAmount")
        note: str = Field(default="", serialization_alias="theNote")

    @workflow("context-alias")
    class Machine:
        Context = Named
        context: Named

        @step(start=True)
        def first(self) -> Any:
            self.context.order_id += 1
            self.context.note = "n"
            return wait.for_signal("paid")

        @step()
        def second(self) -> Any:
            return complete(total=self.context.total)

    run = engine.start(Machine, orderId=7)
    assert run.refresh().data == {"order_id": 8, "total": "0", "note": "n"}
    assert engine.signal("paid", {"totalAmount": "9.50", "orderId": 9}) == 1
    assert "dropped" not in caplog.text
    run.refresh()
    assert (run.status, run.error) == ("completed", None)
    assert run.data == {"order_id": 9, "total": "9.50", "note": "n"}
    assert isinstance(run.context, Named)


def test_computed_fields_are_computed(engine: WorkflowEngine) -> None:
    class Sum(BaseModel):
        a: int = 1
        b: int = 2

        @computed_field
        @property
        def total(self) -> int:
            return self.a + self.b

    @workflow("context-computed")
    class Machine:
        Context = Sum
        context: Sum

        @step(start=True)
        def first(self) -> Any:
            self.context.a = 10
            return goto(self.second)

        @step()
        def second(self) -> Any:
            return complete(sum=self.context.total)

    run = engine.start(Machine).refresh()
    assert (run.error, run.result) == (None, {"sum": 12})
    assert run.data == {"a": 10, "b": 2}


def test_a_frozen_context_is_changed_by_signals(engine: WorkflowEngine) -> None:
    class Frozen(BaseModel):
        model_config = ConfigDict(frozen=True)
        a: int = 1

    @workflow("context-frozen")
    class Machine:
        Context = Frozen

        @step(start=True)
        def first(self) -> Any:
            return wait.for_signal("go")

        @step()
        def second(self) -> Any:
            return complete(b=get_context().a)

    run = engine.start(Machine)
    engine.signal("go", {"a": 2})
    assert (run.refresh().result, run.data) == ({"b": 2}, {"a": 2})


def test_secrets_are_not_lost_in_silence(engine: WorkflowEngine) -> None:
    class Hidden(BaseModel):
        token: SecretStr | None = None

    class Shown(Hidden):
        @field_serializer("token")
        def reveal(self, value: SecretStr | None) -> str | None:
            return None if value is None else value.get_secret_value()

    class Machine:
        Context: type[BaseModel] = Hidden

        @step(start=True)
        def first(self) -> Any:
            return goto(self.second)

        @step()
        def second(self) -> Any:
            return complete(same=get_context().token.get_secret_value() == "s3cret")

    with pytest.raises(WorkflowConfigurationError, match="token is a secret"):
        workflow("context-secret")(Machine)
    Machine.Context = Shown
    run = engine.start(workflow("context-secret")(Machine), token="s3cret")
    assert engine.result(run.id) == {"same": True}


def test_get_context_outside_of_a_step() -> None:
    with pytest.raises(ContextStateError, match=r"get_context\(\) works inside the steps"):
        get_context()


def test_a_field_that_later_code_adds_has_its_default(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"

    def grown(context: type[BaseModel]) -> Any:
        class Machine:
            Context = context

            @step(start=True)
            def first(self) -> Any:
                return wait.for_signal("go")

            @step()
            def second(self) -> Any:
                return complete(**get_context().model_dump())

        return workflow("context-grown")(Machine)

    class Old(BaseModel):
        a: int = 1
        gone: int = 2

    class New(BaseModel):
        a: int = 1
        more: str = "later"

    engine = WorkflowEngine()
    engine.set_executor(SynchronousExecutor(store))
    kept = grown(Old)
    run = engine.start(kept, a=5)
    engine.stop()
    del kept
    gc.collect()
    engine.set_executor(SynchronousExecutor(store))
    kept = grown(New)
    assert isinstance(engine.runs.get(id=run.id).context, kept.Context)
    assert engine.signal("go") == 1
    assert engine.runs.get(id=run.id).result == {"a": 5, "more": "later"}
    engine.stop()


def test_a_step_may_assign_another_context(engine: WorkflowEngine) -> None:
    @workflow("context-assigned")
    class Machine:
        Context = Deep
        context: Any

        @step(start=True)
        def first(self) -> Any:
            self.context = Deep(tags=["new"])
            return goto(self.second)

        @step()
        def second(self) -> Any:
            tags = self.context.tags
            self.context = {"tags": ["odd"]}
            return complete(tags=tags)

    run = engine.start(Machine).refresh()
    assert run.data["tags"] == ["new"]
    assert run.status == "failed"
    assert "step second of Machine set self.context to {'tags': ['odd']}" in str(run.error)
