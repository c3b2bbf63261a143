"""A dataset to publish, with its description in Croissant 1.0 and its responsible-AI fields (RAI 1.0).

Source of the vocabulary: docs.mlcommons.org/croissant/docs/croissant-spec.html and croissant-rai-spec.html.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.negative_types import types_in
from pipeline.schema import dataset_schema
from stages import labels

FILE = "croissant.json"

TYPES = {"string": "sc:Text", "int32": "sc:Integer", "float": "sc:Float"}
"""Of Arrow -> of Croissant."""

TO_SAY = (
    "license", "url", "creator", "datePublished", "citeAs", "rai:dataBiases", "rai:dataSocialImpact",
    "rai:dataUseCases", "rai:personalSensitiveInformation", "rai:dataReleaseMaintenancePlan",
)  # fmt: skip
"""What no manifest knows: whoever publishes says it."""

CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/", "citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"}, "equivalentProperty": "cr:equivalentProperty",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace",
    "samplingRate": "cr:samplingRate", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip
"""The context that the specification gives."""


def export(dataset: Artifact, pairs: Artifact, negatives: Artifact, target: Path, about: Path | None) -> list[str]:
    """Write a folder with the dataset's Parquet files in data/, no images, and croissant.json, whole or not at all.

    Args:
        dataset: the dataset artifact; all splits are written.
        pairs: what it was made of.
        negatives: what it was made of, too.
        target: a folder that is not there yet.
        about: YAML file of what no manifest knows, keys of `TO_SAY`, name, description, version, and any other property
            of schema.org or the RAI vocabulary; it wins over what is derived here.

    Returns:
        Keys of `TO_SAY` that are still to be said.

    Raises:
        UserError: the folder is there already, or `about` is no mapping.
    """
    if target.exists():
        raise UserError("export", f"{target} is there already", "a folder that is not there", "name a new folder")
    whole = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(whole, ignore_errors=True)
    (whole / "data").mkdir(parents=True)
    parts = [path.name for path in tables.files(dataset.path)]
    for name in parts:
        shutil.copyfile(dataset.path / name, whole / "data" / name)
    found = described(dataset, pairs, negatives, target.name, parts) | _said(about)
    tables.write_text(whole / FILE, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    whole.replace(target)
    return [name for name in TO_SAY if name not in found]


def described(dataset: Artifact, pairs: Artifact, negatives: Artifact, name: str, parts: list[str]) -> dict[str, Any]:
    """The description, of what the manifests know."""
    schema = dataset_schema(tables.columns(dataset.path))
    files = [
        {
            "@type": "cr:FileObject",
            "@id": part,
            "name": part,
            "contentUrl": f"data/{part}",
            "encodingFormat": "application/x-parquet",
            "sha256": dataset.manifest.files[part],
        }
        for part in parts
    ]
    every = {
        "@type": "cr:FileSet",
        "@id": "parts",
        "name": "parts",
        "description": "The Parquet files of all splits.",
        "encodingFormat": "application/x-parquet",
        "includes": "data/*.parquet",
    }
    columns = [
        {
            "@type": "cr:Field",
            "@id": f"pairs/{field.name}",
            "name": field.name,
            "description": field.metadata[b"description"].decode(),
            "dataType": TYPES.get(str(getattr(field.type, "value_type", field.type)), "sc:Text"),
            "source": {"fileSet": {"@id": "parts"}, "extract": {"column": field.name}},
        }
        | ({"repeated": True} if str(field.type).startswith("list") else {})
        for field in schema
    ]
    rows = sum(dataset.manifest.rows.values())
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": name,
        "description": f"{rows:,} captions of images, each with negatives: captions false of the image that differ "
        f"from the true one by one change. Types: {', '.join(types_in(schema.names))}. The images are not included; "
        "image_uri names them in their own collection.",
        "version": "1.0.0",
        "keywords": ["image-text pairs", "hard negatives", "compositional understanding"],
        "distribution": [*files, every],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "pairs",
                "name": "pairs",
                "description": "One row per image and caption.",
                "key": {"@id": "pairs/pair_id"},
                "field": columns,
            }
        ],
    } | _responsible(dataset, pairs, negatives)


def _responsible(dataset: Artifact, pairs: Artifact, negatives: Artifact) -> dict[str, Any]:
    meta, asked = dataset.meta, negatives.manifest.config
    generator = negatives.meta.get("model") or asked.get("model") or asked["backend"]
    counted = ", ".join(f"{kind} {count:,}" for kind, count in meta["negatives"].items())
    read = {
        kind: f"{kind} {100 * one['precision']['value']:.0f} % of {one['precision']['n']}"
        for kind, one in labels.of(negatives).items()
        if one["precision"]["value"] is not None
    }
    splits = ", ".join(f"{split} {count:,}" for split, count in meta["splits"].items())
    leaks = [
        f"{benchmark} {rule} {count:,}" for benchmark, rules in meta["leaks"].items() for rule, count in rules.items()
    ]
    overlaps = f"{', '.join(leaks) or 'none found'} (assemble.leaks: {dataset.manifest.config['leaks']})"
    return {
        "rai:dataCollection": f"Images and captions were read from the source {pairs.manifest.config['source']!r}; "
        f"{pairs.manifest.rows.get('pairs_rejected', 0):,} were rejected with a reason. Negatives were written by "
        f"{generator} ({asked['backend']}).",
        "rai:dataCollectionType": ["Secondary Data Analysis", "Software Collection"],
        "rai:dataCollectionTimeframe": [negatives.manifest.started, negatives.manifest.finished],
        "rai:dataPreprocessingProtocol": [
            f"Every candidate was checked by rules; accepted per type: {counted}.",
            f"Split by image, copies of an image together: {splits}.",
            f"Pairs that overlap with {', '.join(meta['leaks']) or 'no benchmark, none was searched'}: {overlaps}.",
        ],
        "rai:dataAnnotationProtocol": "Negatives are not annotated by people."
        if not read
        else f"People read a sample; usable: {', '.join(read.values())}.",
        "rai:machineAnnotationTools": [str(generator)],
        "rai:dataLimitations": [
            "A negative is meant to be false of its image; no image was looked at for it, so some are true.",
            "Negatives have traits of their generator: a judge that never sees an image tells some of them apart.",
            "Captions are English.",
        ],
    }


def _said(about: Path | None) -> dict[str, Any]:
    if about is None:
        return {}
    try:
        found = yaml.safe_load(about.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise UserError("export", f"{about} cannot be read: {said}", "a YAML file", "mend --about") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError("export", f"{about} holds {type(found).__name__}", "lines of key: text", "mend --about")
    told = {key: value if isinstance(value, list | dict) else str(value) for key, value in found.items()}
    return told | {"creator": _people(told["creator"])} if "creator" in told else told


def _people(creator: Any) -> Any:
    """Names as the persons that the format asks for; an organization is written out as such."""
    if isinstance(creator, list):
        return [_people(one) for one in creator]
    return creator if isinstance(creator, dict) else {"@type": "sc:Person", "name": str(creator)}
