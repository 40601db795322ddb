"""No module runs code from files, starts a shell, unpacks archives or listens to the network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reward_tuning.files import yaml_text

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path
    for name in ("base_model", "rewards", "reward_tuning")
    for path in (ROOT / name).rglob("*.py")
)

UNPICKLERS = ("pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib")
PICKLE_ERRORS = ("pickle.UnpicklingError", "pickle.PickleError")
RUN_TEXT = ("eval", "exec", "compile", "__import__", "runpy.run_path", "code.interact")
SHELLS = (
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "pty.spawn",
)
YAML = ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all")
ARCHIVES = ("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile")
AUTO = ("AutoTokenizer", "AutoModel", "AutoConfig", "AutoProcessor", "AutoModelForCausalLM")

ALLOWED = {
    ("rewards/kinds/python_file.py", "runs a file"): (
        "a judge of kind `python` is a file of the user's; docs/security.md says what it may do"
    ),
    ("reward_tuning/files/yaml_text.py", "yaml"): (
        "its loader is a SafeLoader, which a test below checks"
    ),
    ("reward_tuning/cli/less_memory.py", "replaces itself"): (
        "this Python with this package's own command, and the words that the user gave"
    ),
    ("reward_tuning/sharing/card.py", "markup"): (
        "Markdown: every text from outside goes through its filter `text`, which has its own tests"
    ),
}
"""What is allowed where, and why."""


def full_names(tree: ast.AST) -> dict[str, str]:
    """Names in a module, and what they were imported as."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def called(node: ast.expr, names: dict[str, str]) -> str:
    """Full name of what is called: `torch.load`, `?.extractall`."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{called(node.value, names)}.{node.attr}"
    return "?"


def keyword(call: ast.Call, name: str) -> Any:
    """Value of a keyword: a constant, `...` for anything else, None if it is not given."""
    for one in call.keywords:
        if one.arg == name:
            return one.value.value if isinstance(one.value, ast.Constant) else ...
    return None


def fault(call: ast.Call, names: dict[str, str]) -> str | None:
    """Rule that a call breaks."""
    name = called(call.func, names)
    module, _, method = name.rpartition(".")
    owner = module.rpartition(".")[2]
    rules = {
        "unpickles": module in UNPICKLERS and name not in PICKLE_ERRORS,
        "torch.load": name == "torch.load" and keyword(call, "weights_only") is not True,
        "torch.hub": name.startswith("torch.hub."),
        "numpy pickle": keyword(call, "allow_pickle") not in (None, False),
        "remote code": keyword(call, "trust_remote_code") not in (None, False)
        or (owner in AUTO and keyword(call, "trust_remote_code") is not False),
        "runs text": name in RUN_TEXT,
        "runs a file": method in ("exec_module", "load_module", "spec_from_file_location"),
        "shell": name in SHELLS or keyword(call, "shell") not in (None, False),
        "replaces itself": name.startswith(("os.exec", "os.spawn")),
        "yaml": name in YAML,
        "archive": name in ARCHIVES or method in ("extractall", "extract"),
        "temporary name": name == "tempfile.mktemp",
        "certificates": keyword(call, "verify") is False or "unverified" in method,
        "markup": keyword(call, "autoescape") is False,
        "listens": any(
            isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::")
            for node in ast.walk(call)
        ),
    }
    return next((rule for rule, broken in rules.items() if broken), None)


def faults(text: str) -> Iterator[tuple[str, int]]:
    """Broken rules of a module with their lines."""
    tree = ast.parse(text)
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (rule := fault(node, names)):
            yield rule, node.lineno


def test_no_module_does_what_only_an_attacker_needs() -> None:
    assert len(MODULES) > 400
    used = set()
    for path in MODULES:
        where = path.relative_to(ROOT).as_posix()
        for rule, line in faults(path.read_text(encoding="utf-8")):
            assert (where, rule) in ALLOWED, f"{where}:{line}: {rule}"
            used.add((where, rule))
    assert used == set(ALLOWED)  # what is no longer needed is no longer allowed


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import pickle\npickle.load(f)", "unpickles"),
        ("import pickle as p\np.Unpickler(f)", "unpickles"),
        ("from pickle import loads\nloads(b)", "unpickles"),
        ("import torch\ntorch.load(f)", "torch.load"),
        ("import torch\ntorch.load(f, weights_only=False)", "torch.load"),
        ("import torch\ntorch.load(f, weights_only=safe)", "torch.load"),
        ("from torch import load as read\nread(f)", "torch.load"),
        ("import torch\ntorch.hub.load('a/b', 'c')", "torch.hub"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "numpy pickle"),
        ("from transformers import AutoModel\nAutoModel.from_pretrained(f)", "remote code"),
        ("build(f, trust_remote_code=True)", "remote code"),
        ("build(f, trust_remote_code=flag)", "remote code"),
        ("eval('1')", "runs text"),
        ("exec(text)", "runs text"),
        ("spec.loader.exec_module(module)", "runs a file"),
        ("import os\nos.system('ls')", "shell"),
        ("from os import popen\npopen('ls')", "shell"),
        ("import os\nos.execv('/bin/sh', [])", "replaces itself"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "shell"),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "yaml"),
        ("import zipfile\nzipfile.ZipFile(f)", "archive"),
        ("archive.extractall(folder)", "archive"),
        ("import tempfile\ntempfile.mktemp()", "temporary name"),
        ("import requests\nrequests.get(url, verify=False)", "certificates"),
        ("Environment(autoescape=False)", "markup"),
        ("server.bind(('0.0.0.0', 80))", "listens"),
    ],
)
def test_each_rule_finds_what_it_forbids(code: str, rule: str) -> None:
    assert [found for found, _ in faults(code)] == [rule]


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(f, weights_only=True)",
        "import re\nre.compile('a')",
        "model.eval()",
        "import ast\nast.literal_eval(text)",
        "import subprocess\nsubprocess.run(['ls'])",
        "import yaml\nyaml.safe_load(text)",
        "from transformers import AutoModel as A\nA.from_pretrained(f, trust_remote_code=False)",
        "server.bind(('127.0.0.1', 80))",
    ],
)
def test_harmless_relatives_are_let_through(code: str) -> None:
    assert list(faults(code)) == []


def test_the_loader_of_recipes_makes_plain_data_alone(tmp_path: Path) -> None:
    assert issubclass(yaml_text._Loader, yaml.SafeLoader)
    mark = tmp_path / "ran"
    for tag in ("python/object/apply:pathlib.Path.touch", "python/object/new:pathlib.Path"):
        with pytest.raises(ValueError, match="tag"):
            yaml_text.read_yaml(f"output: !!{tag} [{mark}]")
    assert not mark.exists()
