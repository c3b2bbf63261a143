"""A loss term of your own, trained beside the built-in ones, and its column in the steps table.

    python examples/own_loss.py [RECIPE [SECTION.FIELD=VALUE ...]]      # default: the demo

The source code of `margin` counts in the fingerprint of the model: edit it, and the model is made again. Only processes
started from this script know the term: `degla status` or `degla run` over this run would call `train.objective.margin`
an unknown field. A term for everybody is a line of `TERMS` in stages/train/terms.py (CONTRIBUTING.md, "A loss term").
"""

import sys
from typing import Any

from degla import TERMS, Run, Term


def margin(student: Any, scale: Any) -> Any:
    """Mean over the negatives that are there of max(0, 0.2 + image·negative - image·caption).

    Args:
        student: embeddings of the whole batch, torch tensors of L2 norm 1: image_BD, text_BD, neg_BKD; have_BK says
            which negatives there are.
        scale: the learned logit scale; not used here.
    """
    own_B1 = (student.image_BD * student.text_BD).sum(-1, keepdim=True)
    negative_BK = (student.image_BD[:, None] * student.neg_BKD).sum(-1)
    hinge_BK = (0.2 + negative_BK - own_B1).clamp(min=0) * student.have_BK
    return hinge_BK.sum() / student.have_BK.sum().clamp(min=1)


# At the top of the script, so that a process that train starts finds it too (train.processes=2).
TERMS["margin"] = Term(function=margin, description="a hinge between a caption and its own negatives")


def main(recipe: str = "demo", *overrides: str) -> None:
    """Train with the term at weight 0.5 and print its course."""
    run = Run.open("own-loss", ["train.objective.margin=0.5", *overrides], recipe=recipe)
    for stage in list(run.stages)[: list(run.stages).index("train") + 1]:
        print(run.make(stage))
    print(run.sql("select step, round(loss, 3) as loss, round(margin_loss, 4) as margin_loss from steps order by step"))


if __name__ == "__main__":
    main(*sys.argv[1:])
