"""Libraries are imported while the garbage collector pauses."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reward_tuning.cli.quick_imports import quick_imports

GENERATOR = {"torch", "diffusers", "transformers", "peft", "torch._dynamo", "base_model.generator"}
JUDGE = {"torch", "open_clip", "torchvision", "transformers", "reward_tuning.judges.scoring"}
CLIP = "recipes/tiny/edges/held_out/000.mp4"

WATCHED = """
import gc, sys
from reward_tuning.cli import main

class Watch:  # a finder that finds nothing, and is asked before every import of a new module
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in wanted:
            print(name, gc.isenabled(), file=sys.__stdout__, flush=True)

wanted = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Watch)
try:
    main(sys.argv[1:])
finally:
    print("afterwards", gc.isenabled(), gc.get_freeze_count() > 100_000, flush=True)
"""


@pytest.fixture
def collector() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("collector")
def test_collector_pauses_and_exempts_what_the_modules_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_of_this_test.py").write_text("import gc\nPAUSED = not gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "module_of_this_test", raising=False)
    with quick_imports():
        import module_of_this_test  # type: ignore[import-not-found]
    assert module_of_this_test.PAUSED
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000


@pytest.mark.usefixtures("collector")
def test_without_a_new_module_nothing_is_exempt() -> None:
    with quick_imports():
        import gc as again
    assert again.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("collector")
def test_collector_goes_on_after_a_failed_import() -> None:
    with pytest.raises(ModuleNotFoundError), quick_imports():
        import no_such_module_of_this_test  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()


@pytest.mark.usefixtures("collector")
def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        # each ends with an error as soon as everything is imported
        (["generate", "--prompt", "star", "--height", "17", "--output", "{}/a.mp4"], GENERATOR),
        (["run", "tiny-drtune-hps", "generator.checkpoint={}", "output={}/run"], GENERATOR),
        (["evaluate", "{}/none"], GENERATOR),
        (["score", CLIP, "--prompt", "star", "--reward", "hps:tiny/hps.safetensors"], JUDGE),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_verbs_pause_it_for_the_libraries(
    arguments: list[str], modules: set[str], tmp_path: Path
) -> None:
    words = [word.replace("{}", str(tmp_path)) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, ",".join(modules), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == (0 if arguments[0] == "score" else 2), done.stderr
    lines = done.stdout.splitlines()
    assert {line for line in lines if line.partition(" ")[0] in modules} == {
        f"{name} False" for name in modules
    }
    assert lines[-1] == "afterwards True True"


def test_a_usual_shutdown_frees_what_was_exempt(tmp_path: Path) -> None:
    (tmp_path / "cycle.py").write_text(
        "class Cycle:\n"
        "    def __del__(self):\n"
        "        print('freed')\n"
        "one = Cycle()\n"
        "one.itself = one\n"
        "del one\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import atexit, gc\n"
        "from reward_tuning.cli.quick_imports import quick_imports\n"
        "atexit.register(lambda: print('at the end', gc.get_freeze_count()))\n"
        "with quick_imports():\n"
        "    import cycle\n"
        "gc.collect()\n"
        "print('exempt', gc.get_freeze_count() > 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["exempt True", "at the end 0", "freed"]
