import json
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.assets import DATA
from pipeline.config import to_yaml
from pipeline.errors import UserError
from stages import road


@pytest.mark.parametrize("path", sorted(road.RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_says_what_it_is_for(path: Path) -> None:
    loaded = road.load(path.stem)
    assert len(loaded.description) > 20
    assert road.validated(yaml.safe_load(to_yaml(loaded))) == loaded


def test_overrides_reach_any_depth_and_are_typed() -> None:
    loaded = road.load("demo", ["train.lr=2e-3", "train.objective.igc=0.5", "ingest.world.pictures=20"])
    assert (loaded.train.lr, loaded.train.objective.igc, loaded.ingest.world.pictures) == (2e-3, 0.5, 20)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lrr=1", r"recipe: train\.lrr is wrong \(given 1\); expected one of .*lr, .*; fix: "),
        ("tarin.lr=1", r"recipe: tarin is wrong; expected one of description, ingest, generate"),
        ("train.lr=-1", r"recipe: train\.lr is wrong \(given -1\); expected greater than 0"),
        ("train.objective.igcc=1", r"recipe: train\.objective\.igcc is wrong .* expected one of base, distill"),
        ("train.lr=.inf", r"recipe: train\.lr is wrong \(given inf\); expected a finite number"),
        ("train.objective.igc=.inf", r"recipe: train\.objective\.igc is wrong .* finite number"),
        ("train.betas=[0.9, 1.5]", r"recipe: train\.betas\.1 is wrong \(given 1\.5\); expected less"),
        ("train.device=banana", r"recipe: train\.device is wrong"),
        ("train.processes=9999", r"recipe: train is wrong; expected batch 64 must divide by processes 9999"),
        (
            "ingest={val_share: .9, test_share: .9}",
            r"recipe: ingest is wrong; expected val_share and test_share below 1",
        ),
        ("train.lr", "override 'train.lr' is wrong; expected section.field=value"),
        ("train.lr.x=1", r"goes below lr|train\.lr is wrong"),
    ],
)
def test_a_wrong_override_names_the_field(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        road.load("demo", [override])


def test_paths_are_made_absolute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a recipe from its own folder, those of overrides from the current one; names stay names."""
    for folder in ("recipes/clip", "here/gpt", "here/english", "here/benchmarks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "recipes" / "w.pt").write_bytes(b"")
    (tmp_path / "recipes" / "mine.yaml").write_text(
        "ingest: {root: photos}\n"
        "train: {model: clip, pretrained: ./w.pt, negative_images: mined}\n"
        "assemble: {tokenizer: data/starting_clip}\n"
        "generate: {prompts: english}\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = ["evaluate.root=benchmarks", "generate.model=gpt", "report.comparison=~/c.json"]
    loaded = road.load("../recipes/mine.yaml", overrides)
    found = {
        "ingest.root": loaded.ingest.root,
        "train.model": loaded.train.model,
        "train.pretrained": loaded.train.pretrained,
        "evaluate.root": loaded.evaluate.root,
        "generate.model": loaded.generate.model,
        "report.comparison": loaded.report.comparison,
    }
    assert {name: Path(str(value)).resolve() for name, value in found.items()} == {
        "ingest.root": tmp_path / "recipes" / "photos",
        "train.model": tmp_path / "recipes" / "clip",
        "train.pretrained": tmp_path / "recipes" / "w.pt",
        "evaluate.root": tmp_path / "here" / "benchmarks",
        "generate.model": tmp_path / "here" / "gpt",
        "report.comparison": tmp_path / "c.json",
    }
    assert all(Path(str(value)).is_absolute() for value in found.values())
    names = (loaded.assemble.tokenizer, loaded.generate.prompts, loaded.train.negative_images)
    assert names == ("data/starting_clip", "english", "mined")
    served = road.load("../recipes/mine.yaml", ["generate.backend=openai", "generate.model=gpt"])
    assert served.generate.model == "gpt", "the server's name"
    assert road.load("demo", ["train.pretrained=openai"]).train.pretrained == "openai"


def test_a_run_is_current_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "photos" / "images").mkdir(parents=True)
    rows = ["image,caption"]
    for index in range(12):
        Image.new("RGB", (20, 20), (index * 20, 0, 0)).save(tmp_path / f"here/photos/images/{index}.png")
        rows.append(f"{index}.png,a red square number {index}")
    (tmp_path / "here" / "photos" / "captions.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path / "here")
    settings = ["ingest.root=photos", "ingest.format.captions=captions.csv"]
    road.Run.open("mine", settings, recipe="photos", home=tmp_path / "home").make("ingest")
    monkeypatch.chdir(tmp_path)
    again = road.Run.open("mine", home=tmp_path / "home")
    assert again.status()[0].state == "current" and again.make("ingest").reused


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "train.batch=64",
            r"train: a batch of 64 needs as many .* and (\d+) are to train on; .* fix: --set train.batch=\1",
        ),
        (
            "train.select=best",
            r"train: select is best, and no image is in split val; .* fix: --set train.select=last, ",
        ),
        (
            "train.batch=64 train.select=best",
            r"as many .* and select is best, .* fix: --set train.batch=\d+ --set train.select=last, or more images",
        ),
        ("ingest.test_share=0", "evaluate: there is nothing to measure: no benchmark, and no image in split test"),
    ],
)
def test_too_few_images_are_said_before_negatives_are_paid_for(
    tmp_path: Path, tiny_recipe: Path, override: str, says: str
) -> None:
    run = road.Run.open("tiny", override.split(), recipe=str(tiny_recipe), home=tmp_path)
    with run.at_work(list(run.stages)):
        run.make("ingest")
        with pytest.raises(UserError, match=says):
            run.make("generate")
    assert not (tmp_path / "store" / "negatives").exists()
    assert run.make("generate").artifact, "negatives alone need none of it"


def test_a_damaged_model_is_said_before_anything_is_made(tmp_path: Path, tiny_recipe: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{" + b" " * 20)
    run = road.Run.open(
        "tiny", [f"train.pretrained={tmp_path / 'w.safetensors'}"], recipe=str(tiny_recipe), home=tmp_path
    )
    with pytest.raises(UserError, match="it is cut short or damaged"), run.at_work(list(run.stages)):
        run.make("ingest")
    assert not (tmp_path / "store").exists()
    with run.at_work(["ingest"]):
        assert run.make("ingest").artifact, "pairs alone need no model"


def test_paraphrases_that_will_be_missing_are_said_before_negatives_are_paid_for(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    captions = (tiny_recipe.parent / "captions.csv").read_text().splitlines()
    (tmp_path / "images").symlink_to(tiny_recipe.parent / "images")
    (tmp_path / "captions.csv").write_text("\n".join([captions[0], *captions[1::2]]))
    asks = ["train.objective.align=0.5"]
    run = road.Run.open("one", [*asks, f"ingest.root={tmp_path}"], recipe=str(tiny_recipe), home=tmp_path / "home")
    with run.at_work(list(run.stages)):
        run.make("ingest")
        with pytest.raises(UserError, match=r"needs paraphrases, and there will be none .*rewrites, captions"):
            run.make("generate")
    two = road.Run.open("two", asks, recipe=str(tiny_recipe), home=tmp_path / "home")
    with two.at_work(list(two.stages)):
        two.make("ingest")
        assert two.make("generate").artifact, "the images have two captions each"


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read 'dmeo' .*; expected one of .*demo"):
        road.load("dmeo")
    (tmp_path / "r.yaml").write_text("- just\n- a list\n")
    with pytest.raises(UserError, match="holds a list"):
        road.load(str(tmp_path / "r.yaml"))
    (tmp_path / "r.yaml").write_text("train: {lr: 0.1")
    with pytest.raises(UserError, match=r"r\.yaml is not YAML"):
        road.load(str(tmp_path / "r.yaml"))


@given(st.text(max_size=30))
def test_no_override_ever_ends_in_a_traceback(text: str) -> None:
    try:
        road.load("demo", [text])
    except UserError as error:
        assert "\n" not in str(error)


def test_schema_describes_every_field() -> None:
    schema = json.loads(road.schema())
    for name, section in {"Recipe": schema, **schema["$defs"]}.items():
        for field, facts in section.get("properties", {}).items():
            assert facts.get("description"), f"{name}.{field}"


def bomb(line: str) -> str:
    """Eight lines, each ten times the one before."""
    lines = [f"a0: &a0 {line.format('') if '<<' not in line else '{x: 1}'}"]
    lines += [f"a{n}: &a{n} " + line.format(", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 9)]
    return "\n".join(lines)


def test_aliases_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: &a {b: 1}\nc: *a\nd: {<<: *a}\n")
    assert road.read(tmp_path, "p", "x") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train:\n  lr: 1.0e-3\n  lr: 2.0e-3\n", "'lr' stands twice .* line 3"),
        (bomb("[{}]"), "aliases stand for more than"),
        (bomb("{{<<: [{}]}}"), "a0"),  # a key that all of them have is there once
        ("generate: {engine: &a {x: *a}}\n", "holds itself"),
        ("train: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("train: {lr: 2001-99-99}\n", "month must be in"),
        ("train: !!timestamp x\n", "is not YAML"),
        ("[" * 3000, "nested too deeply"),
        ("train: {lr: " + "9" * 5000 + "}\n", "is not YAML"),
    ],
)
def test_a_hostile_recipe_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        road.load(str(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    "override",
    [
        "generate.base_url=http://me:secret@127.0.0.1/v1",
        "generate.base_url=http://127.0.0.1/v1?key=secret",
        "generate.engine={trust_remote_code: true}",
        "generate.engine={hf_token: secret}",
        "generate.engine={worker_cls: evil.module.Worker}",
        "generate.engine={structured_outputs_config: {reasoning_parser_plugin: /tmp/evil.py}}",
    ],
)
def test_a_recipe_holds_no_secret_and_names_no_code(override: str) -> None:
    with pytest.raises(UserError, match=r"generate\.(base_url|engine) is wrong") as error:
        road.load("demo", [override])
    assert "me:secret@" not in str(error.value)


def test_an_engine_takes_what_is_data() -> None:
    told = "generate.engine={tensor_parallel_size: 4, dtype: bfloat16, speculative_config: {model: a/b-1.0, method: x}}"
    assert road.load("demo", [told]).generate.engine["tensor_parallel_size"] == 4


@given(st.text(max_size=60))
def test_no_recipe_file_ever_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        road.load(str(path))
    except UserError as error:
        assert str(error).isprintable()


def test_a_model_whose_tokens_are_others_is_refused_before_anything_is_made(tmp_path: Path, tiny_recipe: Path) -> None:
    (tmp_path / "model").mkdir()
    config = json.loads((DATA / "clip_tiny" / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["context_length"] = 32
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps(config))
    run = road.Run.open("x", [f"train.model={tmp_path / 'model'}"], recipe=str(tiny_recipe), home=tmp_path / "home")
    with pytest.raises(UserError, match=r"train: assemble\.tokenizer is .*; expected one tokenizer .*; fix: --set"):
        run.check(list(road.STAGES))
    road.Run.open("x", recipe=str(tiny_recipe), home=tmp_path / "home").check(list(road.STAGES))


def test_a_report_is_told_the_run_and_what_its_recipe_says(tmp_path: Path, tiny_recipe: Path) -> None:
    told = road.Run.open("mine", recipe=str(tiny_recipe), home=tmp_path).recipe.report
    assert (told.run, told.description) == ("mine", "twelve pictures, for tests")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["generate.types=[]"], r"train: none of train\.types .* is among generate\.types \(none\); expected a type"),
        (
            ["generate.types=[swap_nouns]", "train.types=[replace_nouns]"],
            r"train: none of train\.types \(replace_nouns\)",
        ),
        (["train.wandb=x"], r"train: wandb is not installed; .* -e '\.\[wandb\]'"),
        (["train.objective.units=0.5"], r"train: a term .* needs units .*; fix: --set generate\.types=\[.*, units\]"),
        (
            ["train.objective.pgc=0.1", "train.paraphrases=[rewrites]"],
            r"train: a term of train\.objective needs paraphrases, and there will be none \(train\.paraphrases: "
            r"rewrites; generate\.paraphrases: false\); .*; fix: --set generate\.paraphrases=true",
        ),
        (
            ["train.objective.local=0.2", "train.model=ViT-B-16-SigLIP", "assemble.tokenizer=ViT-B-16-SigLIP"],
            r"train: ViT-B-16-SigLIP does not give the patches and tokens that local looks at; .*; "
            r"fix: --set train\.objective\.local=0, or another train\.model",
        ),
        (["train.device=cuda"], r"train: device is cuda, and there is no GPU; .*; fix: train\.device=auto"),
    ],
)
def test_what_a_stage_would_miss_is_refused_before_the_first_one(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], says: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = road.Run.open("x", overrides, recipe=str(tiny_recipe), home=tmp_path / "home")
    with pytest.raises(UserError, match=says):
        run.check(list(road.STAGES))
    run.check(["ingest"])


def test_plain_clip_needs_no_types(tmp_path: Path, tiny_recipe: Path) -> None:
    plain = ["generate.types=[]", "train.negatives_per_caption=0"]
    road.Run.open("x", plain, recipe=str(tiny_recipe), home=tmp_path / "home").check(list(road.STAGES))
