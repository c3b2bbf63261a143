"""The pipeline: the six stages in order, the recipe that is their six configs, and a run of them.

run = Run.open("demo", overrides=["train.lr=1e-3"])
for stage in run.stages:
    print(run.make(stage))
run["scores"].table("scores").to_pandas()
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pipeline import clip
from pipeline import run as pipeline_run
from pipeline.assets import DATA
from pipeline.config import Config, from_yaml
from pipeline.errors import TransientError, UserError
from pipeline.home import open_store
from pipeline.run import Outcome, Working, quiet
from pipeline.stage import Stage
from pipeline.store import Store
from stages import assemble, evaluate, generate, ingest, report, train
from stages.assemble import Config as Assemble
from stages.evaluate import Config as Evaluate
from stages.generate import Config as Generate
from stages.ingest import Config as Ingest
from stages.report import Config as Report
from stages.report import lineage
from stages.train import Config as Train

STAGES: dict[str, Stage[Any]] = {
    verb.STAGE.name: verb.STAGE for verb in (ingest, generate, assemble, train, evaluate, report)
}
"""The six stages by name, in order."""

MAKER = {stage.makes: stage.name for stage in STAGES.values()}
"""Kind of artifact -> the stage that makes it."""

RECIPES = DATA / "recipes"


class Recipe(Config):
    """Settings of the whole pipeline; a recipe file holds only what differs from the defaults."""

    description: str = Field("", description="what this recipe is for")
    ingest: Ingest = Field(Ingest(), description="images and captions to pairs")
    generate: Generate = Field(Generate(), description="captions to negative captions")
    assemble: Assemble = Field(Assemble(), description="pairs and negatives to the training set")
    train: Train = Field(Train(), description="training set to fine-tuned CLIP")
    evaluate: Evaluate = Field(Evaluate(), description="CLIP to scores, before and after")
    report: Report = Field(Report(), description="everything to one page")


class Run(pipeline_run.Run):
    """A run of the six stages."""

    recipe: Recipe

    @classmethod
    def open(
        cls,
        name: str = "demo",
        overrides: Iterable[str] = (),
        *,
        recipe: str = "",
        home: str | Path | None = None,
        store: Store | None = None,
    ) -> "Run":
        """A run, new or existing; nothing is written or made yet.

        Args:
            name: of the run, a folder of the home.
            overrides: settings that differ from the recipe, as "section.field=value".
            recipe: recipe name or YAML file; default: the one the run already has, else the one of the run's name.
            home: folder or address (s3://...); default $DEGLA_HOME, else `runs/` here.
            store: instead of `home`, one that is open.

        Raises UserError for a name, recipe or setting that is wrong.
        """
        store = store or open_store(home)
        found = load(recipe or str(store.recipe(name) or name), list(overrides))
        told = found.report.model_copy(update={"run": name, "description": found.description})
        return cls(store, name, found.model_copy(update={"report": told}), STAGES)

    def check(self, stages: Sequence[str]) -> None:
        """As every run; and that what `assemble` is about to make is what `train` reads.

        Raises UserError when it is not: better now than after days of generation.
        """
        super().check(stages)
        self._check_types(stages)
        if "train" in stages:
            train.check_machine(self.recipe.train)
            self._check_weights()
            train.check_towers(self.recipe.train)
            train.check_paraphrases(self.recipe.train, self.recipe.generate.kinds)
            train.check_units(self.recipe.train, self.recipe.generate.kinds)
        tokenizer, model = self.recipe.assemble.tokenizer, self.recipe.train.model
        both = {"assemble", "train"} <= set(stages)
        if both and clip.tokenizer_digest(tokenizer) != clip.tokenizer_digest(model):
            raise UserError(
                "train",
                f"assemble.tokenizer is {tokenizer}, whose tokens are not {model}'s",
                "one tokenizer in assemble and train",
                f"--set assemble.tokenizer={model}",
            )

    def _check_weights(self) -> None:
        """The starting model's weights can be read; those that the run's model came of were, so they are left alone."""
        config, held = self.recipe.train, self.store.glance(self.name, "model")
        with suppress(TransientError):
            digest = self._read_outside("train")["model"]
            if held is None or (digest, config.activation) != (
                held.manifest.outside.get("model"),
                held.manifest.config.get("activation"),
            ):
                clip.check_model(config.model, config.pretrained, activation=config.activation)

    def _check_types(self, stages: Sequence[str]) -> None:
        """Negatives that are to be drawn must be asked for."""
        asked, drawn = self.recipe.generate.types, self.recipe.train.types
        wants = {"generate", "train"} <= set(stages) and self.recipe.train.negatives_per_caption > 0
        if wants and not set(asked) & set(drawn):
            raise UserError(
                "train",
                f"none of train.types ({', '.join(drawn) or 'none'}) is among generate.types "
                f"({', '.join(asked) or 'none'})",
                "a type that is asked for and drawn",
                "set generate.types, or train.negatives_per_caption=0 for plain CLIP",
            )

    @contextmanager
    def at_work(self, stages: Sequence[str]) -> Iterator[None]:
        """As every run; in the end its lineage page says what was made."""
        is_inner = bool(self.planned)
        try:
            with super().at_work(stages):
                yield
        finally:
            if self.outcomes and not is_inner:
                with suppress(OSError):  # a page is not worth a failed run
                    lineage.write(self)

    def make(self, stage: str, working: Working = quiet, *, force: bool = False) -> Outcome:
        """As every run; before negatives are paid for, what is to be trained and scored must be among the images.

        Raises UserError when it is not.
        """
        if stage in ("generate", "assemble"):
            if "train" in self.planned:
                train.check_pairs(self.recipe.train, self["pairs"])
                train.check_paraphrases(self.recipe.train, self.recipe.generate.kinds, self["pairs"])
            if "evaluate" in self.planned:
                evaluate.check_pairs(self.recipe.evaluate, self["pairs"])
        return super().make(stage, working, force=force)

    @property
    def report(self) -> Path:
        """The report's page. Raises UserError when there is none."""
        return self["report"].path / "report.html"

    def model(self) -> clip.Clip:
        """The trained model. Raises UserError when there is none."""
        return clip.load(str(self["model"].path / "student"))


def chosen(stages: Iterable[str]) -> list[str]:
    """The named stages in order; all of them when none is named. Raises UserError for an unknown name."""
    wanted = list(stages)
    for name in wanted:
        if name not in STAGES:
            raise UserError("run", f"no stage {name!r}", f"one of {', '.join(STAGES)}", "name a stage of the pipeline")
    return [name for name in STAGES if not wanted or name in wanted]


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name in data/recipes, or of that YAML file, with `section.field=value` overrides.

    Values are read as YAML; relative paths are taken from the YAML file's folder, those of overrides from the current
    one, and made absolute. Raises UserError for an unknown recipe, an unknown key or a value out of range, naming the
    field.
    """
    settings = read(RECIPES, name, "recipe")
    if _is_file(name):
        settings = Recipe.located(settings, Path(name).absolute().parent)
    for override in overrides:
        _set(settings, override)
    return validated(Recipe.located(settings, Path.cwd()))


def read(folder: Path, name: str, what: str) -> dict[str, Any]:
    """The mapping of `<folder>/<name>.yaml`, or of a YAML file of one's own.

    Args:
        folder: where the project keeps its own.
        name: of one of them, or a path that ends in .yaml or .yml.
        what: is read, for messages.

    Raises UserError when the file is missing, no YAML, or no mapping.
    """
    path = Path(name) if _is_file(name) else folder / f"{name}.yaml"
    try:
        content = from_yaml(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UserError(
            what, f"cannot read {name!r} ({error.strerror})", f"one of {known}, or a .yaml file", "name it right"
        ) from None
    except ValueError as error:
        raise UserError(what, f"{path.name} is not YAML: {error}", "valid YAML", f"mend {path.name}") from None
    if not isinstance(content, dict):
        raise UserError(what, f"{path.name} holds a {type(content).__name__}", "sections", f"mend {path.name}")
    return content


def is_recipe(name: str) -> bool:
    """Whether a name is that of a recipe in data/recipes, or of a YAML file of one's own."""
    return _is_file(name) or (RECIPES / f"{name}.yaml").exists()


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def validated(settings: dict[str, Any]) -> Recipe:
    """A recipe from plain data. Raises UserError naming the first wrong field."""
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        shown = first["type"] != "missing" and not isinstance(first["input"], dict)
        given = f" (given {first['input']!r})" if shown else ""
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        expected = expected[0].lower() + expected[1:]
        if first["type"] == "extra_forbidden":
            expected = f"one of {', '.join(_fields(first['loc'][:-1]))}"
        raise UserError(
            "recipe", f"{field} is wrong{given}", expected, f"mend {field} in the recipe or --set"
        ) from None


def schema() -> str:
    """JSON schema of recipes, for editors."""
    return json.dumps(Recipe.model_json_schema(), indent=1)


def _set(settings: dict[str, Any], override: str) -> None:
    name, separator, value = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise UserError("recipe", f"override {override!r} is wrong", "section.field=value", "e.g. train.lr=2e-6")
    try:
        parsed = from_yaml(value)
    except ValueError:
        parsed = value
    for key in keys[:-1]:
        inner = settings.setdefault(key, {})
        if not isinstance(inner, dict):
            raise UserError(
                "recipe", f"override {override!r} goes below {key}, a single value", "a section", "see data/recipes"
            )
        settings = inner
    settings[keys[-1]] = parsed


def _fields(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Recipe
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
