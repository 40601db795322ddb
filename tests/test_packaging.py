"""What is shipped: pins, package data, arrows between the packages, and the words of the README."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from reward_tuning.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGES = ("base_model", "rewards", "reward_tuning", "recipes")
ALLOWED_IMPORTS = {
    "base_model": {"base_model"},
    "rewards": {"rewards"},
    "recipes": {"recipes"},
    "reward_tuning": {"base_model", "rewards", "reward_tuning"},
}
# Lower rooms first: a module imports from its own room and from lower ones alone.
ROOMS = {
    "base_model": (
        "errors",
        "core",
        "files",
        "networks",
        "memory",
        "loading",
        "convert",
        "conditions",
        "generator",
        "sampling",
        "training",
        "tiny",
    ),
    "rewards": ("errors", "core", "clip_towers", "qwen", "networks", "kinds", "loading"),
    "reward_tuning": (
        "errors",
        "progress",
        "section",
        "seeds",
        "files",
        "statistics",
        "gradient",
        "schema",
        "inputs",
        "lora",
        "sampling",
        "judges",
        "runs",
        "report",
        "watch",
        "tuning",
        "finetune",
        "distil",
        "pretrain",
        "evidence",
        "sharing",
        "doctor",
        "estimate",
        "api",
        "cli",
    ),
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def applies(requirement: Requirement, python: str, extra: str = "") -> bool:
    marker = requirement.marker
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
    return marker is None or marker.evaluate(environment)


def pins(python: str) -> dict[str, Version]:
    """Version of each package that constraints.txt names for a Python; fails on anything else."""
    found: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        (only,) = requirement.specifier
        assert only.operator == "==", line
        assert "*" not in only.version, line
        assert requirement.url is None, line
        assert not requirement.extras, line
        if applies(requirement, python):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} has two pins on Python {python}"
            found[name] = Version(only.version)
    return found


def declared(*, test: bool) -> list[Requirement]:
    project = SETTINGS["project"]
    lines = [*project["dependencies"], *SETTINGS["build-system"]["requires"]]
    if test:
        lines += project["optional-dependencies"]["test"]
        lines += project["optional-dependencies"]["trackers"]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_declared_dependency_is_pinned_within_its_range(python: str) -> None:
    pinned = pins(python)
    for requirement in declared(test=True):
        if applies(requirement, python):
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement}: pinned {version}"


@pytest.mark.parametrize("name", ["hpsv2", "clint", "args"])
def test_oracle_of_hps_is_pinned(name: str) -> None:
    assert all(name in pins(python) for python in PYTHONS)


def test_every_installed_dependency_of_a_dependency_is_pinned() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pinned = pins(python)
    waiting = [(r.name, tuple(r.extras)) for r in declared(test=True) if applies(r, python)]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        assert canonicalize_name(name) in pinned, f"{name} is not in constraints.txt"
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # what torch needs differs from build to build
            assert name.startswith(("nvidia-", "cuda-", "triton")), name
            continue
        for needed in map(Requirement, lines):
            if any(applies(needed, python, extra) for extra in ("", *extras)):
                waiting.append((needed.name, tuple(sorted(needed.extras))))
    assert len(seen) > 50


def test_no_address_in_what_decides_where_packages_come_from() -> None:
    files = [ROOT / name for name in ("pyproject.toml", "constraints.txt", "Makefile", ".ci/run")]
    files += [ROOT / ".pre-commit-config.yaml", ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
    files += sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
    address = re.compile(r"\w+://|git\+|--(extra-)?index-url|--find-links|\bfile:")
    for path in files:
        found = address.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found}"


def test_every_imported_package_is_declared() -> None:
    names = {canonicalize_name(r.name) for r in declared(test=False)}
    distributions = packages_distributions()
    for path in MODULES:
        for top in imported_packages(path):
            if top in PACKAGES or top in sys.stdlib_module_names:
                continue
            owners = {canonicalize_name(owner) for owner in distributions[top]}
            assert owners & names, f"{path.relative_to(ROOT)} imports {top}"


def imported_packages(path: Path) -> Iterator[str]:
    """First names of all that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = path.relative_to(ROOT).parts[0]
            yield inside if node.level else (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package: str) -> None:
    files = [path for path in MODULES if path.is_relative_to(ROOT / package)]
    assert files
    for path in files:
        ours = set(imported_packages(path)) & {*PACKAGES, "tests"}
        assert ours <= ALLOWED_IMPORTS[package], f"{path.relative_to(ROOT)} imports {ours}"


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of all that a file imports; a name may end in what the module defines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def climbing(package: str, room: str, imported: Iterable[str]) -> list[str]:
    """Those of the imported names that lie in a higher room of the package."""
    order = ROOMS[package]
    found = []
    for name in imported:
        top, _, rest = name.partition(".")
        there = rest.partition(".")[0]
        if top == package and there in order and order.index(there) > order.index(room):
            found.append(name)
    return found


@pytest.mark.parametrize("package", ROOMS)
def test_every_module_has_a_room(package: str) -> None:
    there = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    there |= {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert there == set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_imports_lead_to_the_same_room_or_a_lower_one(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        inside = path.relative_to(ROOT / package)
        if inside.parts == ("__init__.py",):  # what the package offers, from all of its rooms
            continue
        up = climbing(package, inside.with_suffix("").parts[0], imported_modules(path))
        assert not up, f"{path.relative_to(ROOT)} imports {up} from a higher room"


def test_an_import_from_a_higher_room_is_found() -> None:
    names = ["torch.Tensor", "reward_tuning.runs.loop.run_loop", "reward_tuning.lora.adapter"]
    assert climbing("reward_tuning", "judges", names) == ["reward_tuning.runs.loop.run_loop"]
    assert climbing("reward_tuning", "tuning", names) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves traces in its tree
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    built = subprocess.run(
        [*command, "--no-index", "--wheel-dir", tmp_path, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
        (licence,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
        assert b"Apache License" in archive.read(licence)
    expected = {
        path.relative_to(source).as_posix()
        for name in PACKAGES
        for path in (source / name).rglob("*")
        if path.is_file()
    }
    assert shipped == expected
    for needed in ("base_model/py.typed", "recipes/tiny-drtune-hps.yaml"):
        assert needed in shipped


def test_shipped_weights_are_small() -> None:
    sizes = [path.stat().st_size for path in ROOT.glob("*/weights/**/*") if path.is_file()]
    assert sum(sizes) <= 48e6


def markdown(name: str) -> str:
    """Text of a document without its comments."""
    return re.sub(r"<!--.*?-->", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)


def shown_commands(name: str) -> list[list[str]]:
    """Words of each `reward-tuning ...` in a document's blocks of commands."""
    blocks = re.findall(r"```sh\n(.*?)```", markdown(name), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    without_comments = (line.partition(" #")[0].split() for line in lines)
    return [words[1:] for words in without_comments if words and words[0] == "reward-tuning"]


@pytest.mark.parametrize("name", ["README.md", "docs/command-line.md", "docs/rewards.md"])
def test_shown_commands_exist(name: str) -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands = shown_commands(name)
    assert len(commands) >= 5
    for verb, *words in commands:
        options = {text for parameter in verbs[verb].params for text in parameter.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= options, f"{verb} {given - options}"
    for verb in verbs if name == "docs/command-line.md" else ():
        assert f"reward-tuning {verb}" in markdown(name), f"{verb} is not in {name}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_targets_named_in_documents_exist(name: str) -> None:
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"^make ([a-z]+)|`make ([a-z]+)", markdown(name), flags=re.MULTILINE)
    assert named
    assert {first or second for first, second in named} <= set(targets)


def test_recipes_named_in_the_documents_exist() -> None:
    text = markdown("README.md") + markdown("docs/recipes.md")
    named = set(re.findall(r"(?<![\w/])(?:tiny|easyanimate-v5\.1)-[\w-]+-[\w-]+", text))
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert named <= recipes
    listed = markdown("docs/recipes.md")
    assert recipes <= set(re.findall(r"`([\w.-]+)`", listed))  # tiny-demo too
    finetune = set(re.findall(r"`finetune/([\w.-]+)`", listed))
    assert finetune == {path.stem for path in (ROOT / "recipes" / "finetune").glob("*.yaml")}
    distil = set(re.findall(r"`distil/([\w.-]+)`", listed))
    assert distil == {path.stem for path in (ROOT / "recipes" / "distil").glob("*.yaml")}


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_somewhere(path: Path) -> None:
    text = markdown(str(path.relative_to(ROOT)))
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / target).exists(), target


def test_ci_calls_make_test() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "exec make test-all </dev/null" in script.read_text()
