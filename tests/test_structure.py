"""The structure stays as documented: short signatures, tests by name, a step in few files."""

import ast
import sys
from pathlib import Path

import pytest

from scripts import structure

MODULES = list(structure.modules())


def test_every_module_has_a_test_file_of_its_name() -> None:
    assert len(MODULES) > 200
    assert structure.untested() == []


def test_a_module_without_tests_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Path("rewards/kinds/new.py")
    monkeypatch.setattr(structure, "modules", lambda: [MODULES[0], new])
    assert structure.untested() == [new]


def test_a_function_with_many_parameters_gives_its_reason() -> None:
    assert [one for one in structure.long_signatures() if not one.reason] == []


def test_a_long_signature_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
class A:
    def short(self, a, b, c, d, e, f, g, h): ...
    def long(self, a, b, c, d, *e, f, g, h, **i): ...
def said(a, b, c, d, e, f, g, h, i):
    '''Say.

    9 parameters: each is an option
    of the command line.
    '''
"""
    (tmp_path / "a.py").write_text(code)
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    monkeypatch.setattr(structure, "modules", lambda: [Path("a.py")])
    found = {(one.name, one.count, one.reason) for one in structure.long_signatures()}
    reason = "9 parameters: each is an option of the command line."
    assert found == {("long", 9, ""), ("said", 9, reason)}
    assert len(ast.parse(code).body) == 2


def test_a_reader_follows_one_step_in_few_files() -> None:
    before = sys.getprofile()
    files = structure.step_files("tiny-drtune-hps")
    assert sys.getprofile() is before
    own = [name for name in files if name.startswith("reward_tuning/")]
    assert len(own) <= structure.MAX_STEP_FILES, own
    for needed in ("gradient/engine.py", "tuning/step.py", "judges/judge.py"):
        assert f"reward_tuning/{needed}" in own
