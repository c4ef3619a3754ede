from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from onnxprune_passes.channels import KINDS
from onnxprune_passes.errors import SelectionError

from onnxprune.layer_value import split_layer
from onnxprune.recipe import KEYS, ROUNDINGS, Kind, PruneOptions, Recipe, RoundTo
from onnxprune.recipe_yaml import read_recipe
from onnxprune.resolve import options_from, resolved


def _recipe(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return read_recipe(path)


def test_nothing_given_means_half_of_the_weights_by_global_lamp() -> None:
    options = options_from("folder/net.onnx", {})
    assert (options.mode, options.sparsity, options.scope, options.score) == ("sparsity", 0.5, "global", "lamp")
    assert (options.shrink, options.encode, options.check, options.seed) == (True, "auto", 2, 0)
    assert options.output == str(Path("folder/net.pruned.onnx"))


@pytest.mark.parametrize("model", ["net.onnx", "net", "a.b.onnx"])
def test_the_default_output_stands_beside_the_model(model: str) -> None:
    assert options_from(model, {}).output == model.removesuffix(".onnx") + ".pruned.onnx"


@pytest.mark.parametrize(("mode", "value"), [("quality", 1.5), ("threshold", 0.1), ("nm", "2:4")])
def test_another_mode_leaves_sparsity_unset(mode: str, value: Any) -> None:
    options = options_from("m.onnx", {mode: value})
    assert options.mode == mode
    assert (options.sparsity, options.scope, options.score) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sparsity": 0.5, "quality": 1.0}, "exclude each other"),
        ({"quality": 1.0, "threshold": 1.0}, "exclude each other"),
        ({"sparsity": 0.0, "nm": "2:4"}, "exclude each other"),
        ({"quality": 1.0, "scope": "layer"}, "--scope belongs to --sparsity"),
        ({"threshold": 1.0, "score": "lamp"}, "--score belongs to --sparsity"),
        ({"nm": "2:4", "scope": "global"}, "--scope belongs to --sparsity"),
        ({"nm": "2:4", "layer": ["a=1"]}, "--layer has no meaning with --nm"),
        ({"sparsity": 1.0}, "--sparsity: expected float < 1.0"),
        ({"sparsity": -0.1}, "--sparsity: expected float >= 0.0"),
        ({"sparsity": float("nan")}, "--sparsity"),
        ({"quality": -1.0}, "--quality"),
        ({"quality": float("inf")}, "finite"),
        ({"threshold": float("inf")}, "finite"),
        ({"sparsity": "half"}, "--sparsity: expected float, got str"),
        ({"nm": "2-4"}, "--nm"),
        ({"nm": "0:4"}, "--nm"),
        ({"check": -1}, "--check"),
        ({"data-option": ["mean=1"]}, "--data-option has no meaning without --data"),
        ({"seed": -1}, "--seed"),
        ({"encode": "zip"}, "--encode"),
        ({"scope": "local"}, "--scope"),
        ({"shrink": 1}, "--shrink: expected bool"),
        ({"layer": ["fc1"]}, "GLOB=V"),
        ({"layer": ["=0.5"]}, "GLOB=V"),
        ({"layer": ["fc1=much"]}, "GLOB=V"),
        ({"layer": ["fc1=nan"]}, "GLOB=V"),
        ({"only": [1]}, "--only: expected str"),
    ],
)
def test_contradictions_and_values_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message.replace("[", r"\[")):
        options_from("m.onnx", given)
    with pytest.raises(SelectionError, match=message.replace("[", r"\[")):
        options_from("m.onnx", {}, given)


def test_options_made_in_python_are_checked_too() -> None:
    with pytest.raises(SelectionError, match="exclude each other"):
        resolved(PruneOptions(model="m.onnx", sparsity=0.5, quality=1.0))


def test_a_layer_is_split_at_its_last_equals_sign() -> None:
    assert (split_layer("a=b*=0.25").glob, split_layer("a=b*=0.25").value) == ("a=b*", 0.25)


def test_the_command_line_wins_over_the_recipe() -> None:
    recipe = {"sparsity": 0.9, "scope": "layer", "shrink": False, "only": ["a"], "check": 7}
    options = options_from("m.onnx", {"sparsity": 0.1, "shrink": True, "only": ["b"]}, recipe)
    assert (options.sparsity, options.shrink, options.only) == (0.1, True, ("b",))
    assert (options.scope, options.check) == ("layer", 7)


def test_another_mode_on_the_command_line_replaces_all_that_belongs_to_the_recipes_mode() -> None:
    options = options_from("m.onnx", {"quality": 1.0}, {"sparsity": 0.9, "scope": "layer", "score": "magnitude"})
    assert (options.mode, options.sparsity, options.scope, options.score) == ("quality", None, None, None)


def test_layer_values_of_the_recipe_are_not_read_in_another_unit() -> None:
    with pytest.raises(SelectionError, match="layer values are meant for --sparsity"):
        options_from("m.onnx", {"quality": 1.0}, {"layer": ["fc*=0.9"]})
    options = options_from("m.onnx", {"quality": 1.0, "layer": ["fc*=2"]}, {"layer": ["fc*=0.9"]})
    assert options.layer == ("fc*=2",)


def test_what_belongs_to_sparsity_is_refused_beside_another_mode_of_the_recipe() -> None:
    with pytest.raises(SelectionError, match="--scope belongs to --sparsity"):
        options_from("m.onnx", {"scope": "layer"}, {"quality": 1.0})
    with pytest.raises(SelectionError, match="--layer has no meaning with --nm"):
        options_from("m.onnx", {"layer": ["a=1"]}, {"nm": "2:4"})


def test_a_resolved_recipe_replays(tmp_path: Path) -> None:
    first = options_from("m.onnx", {"nm": "2:4", "skip": ["fc3*"], "keep-inputs": True, "save-masks": "k.npz"})
    path = tmp_path / "replay.json"
    path.write_bytes(msgspec.json.encode(first.recipe))
    assert options_from("m.onnx", {}, read_recipe(path)) == first


def test_the_keys_are_the_long_names_of_the_options() -> None:
    assert "keep-inputs" in KEYS
    assert "save-masks" in KEYS
    assert len(KEYS) == len(Recipe.__struct_fields__)


def test_yaml_reads_numbers_as_people_write_them(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "nm: 2:4\nthreshold: 1e-3\nsparsity: .5\nquality: 1\ncheck: 0\nseed: 012\n")
    assert recipe == {"nm": "2:4", "threshold": 1e-3, "sparsity": 0.5, "quality": 1, "check": 0, "seed": 12}


def test_yaml_takes_switches_lists_and_empty_values(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "shrink: no\nonly: fc*\nskip: [a, b]\nlayer:\n  - 'fc1.*=0.9'\njson:\n")
    assert recipe == {"shrink": False, "only": ["fc*"], "skip": ["a", "b"], "layer": ["fc1.*=0.9"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sparsty: 0.5", "no key 'sparsty': did you mean 'sparsity'"),
        ("save_masks: a.npz", "did you mean 'save-masks'"),
        ("--quiet: true", "did you mean 'quiet'"),
        ("model: a.onnx", "no key 'model'"),
        ("5: a", "no key '5'"),
        ("sparsity: 0.5\nsparsity: 0.6", "'sparsity' stands twice"),
        ("- sparsity", "not a mapping"),
        ("", "not a mapping"),
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SelectionError, match=message) as caught:
        _recipe(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"nowhere\.yaml cannot be read"):
        read_recipe(tmp_path / "nowhere.yaml")


def test_unknown_keys_from_python_are_refused_too() -> None:
    with pytest.raises(SelectionError, match="did you mean 'sparsity'"):
        options_from("m.onnx", {}, {"sparsities": 0.5})


def test_what_a_recipe_may_say_is_what_the_passes_take() -> None:
    assert get_args(Kind) == KINDS
    assert get_args(RoundTo) == (*ROUNDINGS, "auto")
