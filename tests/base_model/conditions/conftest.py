import pytest

from base_model.generator import Generator, load_generator
from tests.base_model.conditions.small_conditions import NAMES
from tests.goldens import write_checkpoint


@pytest.fixture(scope="session")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Generator]:
    return {
        kind: load_generator(
            write_checkpoint(tmp_path_factory.mktemp(kind), name), text_encoder=False
        )
        for kind, name in NAMES.items()
    }
