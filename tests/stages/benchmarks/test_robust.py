"""The means of attacked rows."""

from stages.benchmarks import robust


def test_attacked_and_untouched_rows_are_apart_and_so_are_the_two_kinds_of_sets() -> None:
    sets = ("sugarcrepe.swap_att", "valse.existence", "zeroshot.circles")
    names = [f"{name}.{side}" for name in sets for side in robust.SIDES]
    made = {item.name: item for item in robust.means("robust", names, {})}
    assert list(made) == [
        *("robust.zeroshot.mean", "robust.zeroshot.clean", "robust.zeroshot.circles"),
        *("robust.pairs.mean", "robust.pairs.clean", "robust.sugarcrepe.swap_att", "robust.valse.existence"),
    ]
    assert [rows[0][1] for rows, _ in made["robust.pairs.clean"].cells] == [
        "sugarcrepe.swap_att.clean", "valse.existence.clean",
    ]  # fmt: skip
    assert made["robust.zeroshot.circles"].subset == "zeroshot.circles.attacked"
