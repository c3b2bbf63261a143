"""Your own images: fine-tune a CLIP on a folder, then compare an image with captions by the trained model.

    python examples/own_images.py FOLDER [SECTION.FIELD=VALUE ...]

FOLDER holds `captions.csv`, with the columns `image` and `caption`, and the files it names in `images/`. The recipe is
`photos` (data/recipes/photos.yaml): negatives by rules and a small CLIP from nothing, without a GPU or a model hub. To
start from a CLIP that was trained before, e.g.

    python examples/own_images.py FOLDER train.model=ViT-B-32 train.pretrained=openai train.lr=1e-6
"""

import csv
import sys
from pathlib import Path

from degla import Run, clip


def main(folder: str, *overrides: str) -> None:
    """Make the run `own-images` of the folder, and print where its model is and what it says about one image."""
    root = Path(folder).resolve()
    own = [f"ingest.root={root}", "ingest.format.captions=captions.csv"]
    run = Run.open("own-images", [*own, *overrides], recipe="photos")
    for stage in run.stages:
        print(run.make(stage))
    print(f"model: {run['model'].path / 'student'} (open_clip.create_model('local-dir:...') loads it as well)")

    with (root / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    image = root / "images" / rows[0]["image"]
    captions = list(dict.fromkeys(row["caption"] for row in rows))[:3]

    model = run.model()
    image_D = clip.embed_images(model, [image])[0]  # every row has L2 norm 1, so a dot product is the cosine
    text_ND = clip.embed_texts(model, captions)
    for caption, similarity in zip(captions, (text_ND @ image_D).tolist(), strict=True):
        print(f"{similarity:+.3f}  {image.name}  {caption}")


if __name__ == "__main__":
    main(*sys.argv[1:])
