import pytest
from pydantic import Field, ValidationError

from pipeline.config import Config, from_yaml, placement


class Inner(Config):
    depth: int = 1
    threads: int = placement(2, description="threads")


class Outer(Config):
    rate: float = Field(0.1, gt=0, description="share")
    device: str = placement("cpu", description="where")
    inner: Inner = Inner()
    several: tuple[Inner, ...] = (Inner(),)


def test_placement_stays_out_of_the_identity() -> None:
    one = Outer()
    two = Outer(device="cuda", inner=Inner(threads=9), several=(Inner(threads=5),))
    assert one.identity() == two.identity() == {"rate": 0.1, "inner": {"depth": 1}, "several": [{"depth": 1}]}


def test_every_other_field_is_in_the_identity() -> None:
    assert Outer(rate=0.2).identity() != Outer().identity()
    assert Outer(inner=Inner(depth=2)).identity() != Outer().identity()


def test_unknown_keys_and_changes_are_refused() -> None:
    with pytest.raises(ValidationError):
        Outer(rtae=0.2)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Outer().rate = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("nested", [0, 300], ids=["libyaml", "plain"])
def test_both_readers_of_yaml_say_the_same(nested: int) -> None:
    rest = f"\nrest: {'[' * nested}{']' * nested}" if nested else ""
    found = from_yaml("base: &base {a: 1, b: 2}\none: &one {<<: *base, b: 3}\ntwo: {<<: *one, a: 4}" + rest)
    assert (found["one"], found["two"]) == ({"a": 1, "b": 3}, {"a": 4, "b": 3})
    several = "one: &one {name: 1}\ntwo: &two {name: 2, more: 3}\nall: {<<: [*one, *two]}\nown: {<<: *two, name: 4}"
    found = from_yaml(several + rest)
    assert (found["all"], found["own"]) == ({"name": 1, "more": 3}, {"name": 4, "more": 3}), "the first, and its own"
    with pytest.raises(ValueError, match="<< merges what is no mapping"):
        from_yaml("one: {<<: [1]}" + rest)
    with pytest.raises(ValueError, match="'a' stands twice"):
        from_yaml("one: {a: 1, b: 2, a: 3}" + rest)
