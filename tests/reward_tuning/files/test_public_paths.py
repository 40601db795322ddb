from reward_tuning.files.public_paths import without_folders


def test_the_last_part_of_a_path_stays() -> None:
    found = {
        "checkpoint": "/data/models/7b",
        "rewards": [{"checkpoint": "C:\\Users\\me\\hps.safetensors", "weight": 1.0}],
        "prompts": ["~/mine.txt", "tiny/train.jsonl", "alibaba-pai/EasyAnimateV5.1-7b-zh"],
        "seed": None,
    }
    assert without_folders(found) == {
        "checkpoint": "7b",
        "rewards": [{"checkpoint": "hps.safetensors", "weight": 1.0}],
        "prompts": ["mine.txt", "tiny/train.jsonl", "alibaba-pai/EasyAnimateV5.1-7b-zh"],
        "seed": None,
    }
