import hashlib
import itertools
import random
from collections import Counter
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from base_model.tiny.scenes import ATTRIBUTES, Scene, draw_scenes, scenes

SCENE = Scene("red", "circle", "dark", "small", "left")


def words(scene: Scene) -> str:
    return "/".join((scene.colour, scene.shape, scene.background, scene.size, scene.motion))


def test_the_world_has_at_least_the_promised_words() -> None:
    least = {"colour": 6, "shape": 4, "background": 4, "size": 3, "motion": 5}
    assert {name: len(set(values)) for name, values in ATTRIBUTES.items()} == least
    assert set(ATTRIBUTES["motion"]) == {"left", "right", "up", "down", "still"}
    every = scenes()
    assert len(every) == len(set(every)) == 6 * 4 * 4 * 3 * 5


def test_places_name_a_scene() -> None:
    assert SCENE.places == (0, 0, 0, 0, 0)
    assert Scene("yellow", "star", "dark", "large", "up").places == (1, 3, 0, 2, 2)
    assert [Scene.of_places(scene.places) for scene in scenes()] == list(scenes())


def test_the_split_never_changes() -> None:
    """A changed split would test a trained generator on what it has seen."""
    listing = "\n".join(map(words, scenes("held_out")))
    digest = hashlib.sha256(listing.encode()).hexdigest()
    assert digest == "5d3c8304478a93bfb2f5d497e9887ec447e32f9cd4f261bf0ffda35920895d98"


def test_the_splits_part_the_scenes() -> None:
    train, held_out = set(scenes("train")), set(scenes("held_out"))
    assert train.isdisjoint(held_out)
    assert train | held_out == set(scenes())
    assert all(scene.split == "held_out" for scene in held_out)
    # A binomial of 1440 and 1/5 has a standard deviation of 0.0105; a byte gives 52/256.
    assert len(held_out) / 1440 == pytest.approx(52 / 256, abs=0.02)


@pytest.mark.parametrize("names", itertools.combinations(ATTRIBUTES, 2))
def test_every_pair_of_words_is_trained_on(names: tuple[str, str]) -> None:
    """What is held out is a combination of words, never a word or a pair of them."""
    counts = Counter(tuple(asdict(scene)[name] for name in names) for scene in scenes("train"))
    pairs = set(itertools.product(*(ATTRIBUTES[name] for name in names)))
    assert set(counts) == pairs
    # No pair far rarer than another: the expected share is 4/5 of 1440 over the pairs.
    assert min(counts.values()) > 0.7 * 0.8 * 1440 / len(pairs)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_unknown_word_is_told(name: str) -> None:
    with pytest.raises(ValueError, match=rf"scene {name} is 'mauve'; allowed: .*") as error:
        replace(SCENE, **{name: "mauve"})
    assert all(word in str(error.value) for word in ATTRIBUTES[name])


def test_a_word_of_another_attribute_is_unknown() -> None:
    with pytest.raises(ValueError, match="scene shape is 'red'"):
        Scene("red", "red", "dark", "small", "left")


def test_a_scene_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        SCENE.colour = "blue"  # type: ignore[misc]


def test_draws_repeat_and_stay_in_their_split() -> None:
    drawn = draw_scenes(400, random.Random(3))
    assert drawn == draw_scenes(400, random.Random(3))
    assert drawn != draw_scenes(400, random.Random(4))
    assert {scene.split for scene in drawn} == {"train"}
    assert {s.split for s in draw_scenes(50, random.Random(3), "held_out")} == {"held_out"}
    assert {s.split for s in draw_scenes(50, random.Random(3), None)} == {"train", "held_out"}
    # Uniform over 1146: 400 draws meet about 1146 (1 - e^(-400/1146)) = 338 scenes.
    assert len(set(drawn)) == pytest.approx(338, abs=25)
