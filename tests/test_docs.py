"""README.md and docs/: each command is one that the real parser takes, each file and link exists, the reference of the
settings is what the settings say, and the cheap commands run."""

import ast
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import r2r
from r2r import cli, tables
from r2r.config import Dialect
from r2r.reproduce import SETTINGS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OTHER_PAGES = [ROOT / folder / "README.md" for folder in ("benchmarks", "demo_models", "r2r/demo")]
MADE = ROOT / "docs" / "settings.md"
PROGRAMS = ("r2r", "make", "ray", "python")
# Flags that are not ours, in running text.
FOREIGN = {"--enable-lora", "--logdir", "--help"}
# Folder that the commands which are run here write into.
TRIED = "runs/try/"


class Command(NamedTuple):
    page: Path
    words: list[str]

    def __str__(self) -> str:
        return f"{self.page.name}: {' '.join(self.words)}"


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in these languages; "" is a block without a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def commands_of(page: Path) -> list[Command]:
    """Return the commands of PROGRAMS on a page, without the variables before them. `ray job submit ... -- python
    jobs/X.py ...` is two: itself and the script."""
    lines = [line for text in blocks(page, "", "sh", "bash") for line in text.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        if not re.match(r"(?:[A-Z0-9_]+=\S+ )*(?:\S*/)?(?:r2r|make|ray|python)\s", line):
            continue
        words = shlex.split(re.sub(r"\s#\s.*", "", line))
        while "=" in words[0]:
            words = words[1:]
        found.append(Command(page, words))
        if "--" in words:
            found.append(Command(page, words[words.index("--") + 1 :]))
    return found


COMMANDS = [command for page in PAGES for command in commands_of(page)]
OTHER_COMMANDS = [command for page in OTHER_PAGES for command in commands_of(page)]


def as_r2r(words: list[str]) -> list[str]:
    """Return the words after `r2r` for `r2r ...`, `python -m r2r ...` and `python jobs/STAGE.py ...`; else nothing."""
    if words[0] == "r2r":
        return words[1:]
    if words[:3] == ["python", "-m", "r2r"]:
        return words[3:]
    if words[0] == "python" and words[1].startswith("jobs/"):
        stage = Path(words[1]).stem
        return ["run" if stage == "pipeline" else stage, *words[2:]]
    return []


def test_commands_are_found():
    programs = {command.words[0] for command in COMMANDS}
    assert programs == set(PROGRAMS)
    stages = {as_r2r(command.words)[0] for command in COMMANDS if as_r2r(command.words)}
    assert stages == set(cli.COMMANDS)


@pytest.mark.parametrize("command", [one for one in COMMANDS if as_r2r(one.words)], ids=str)
def test_the_parser_takes_a_command(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *rest = as_r2r(command.words)
    cli._parse(name, cli.COMMANDS[name], rest)


@pytest.mark.parametrize("command", COMMANDS + OTHER_COMMANDS, ids=str)
def test_what_a_command_names_is_in_the_repository(command):
    program, first, *_ = command.words
    if program == "make":
        assert re.search(rf"^{first}:", (ROOT / "Makefile").read_text(), re.MULTILINE), first
    elif program == "python" and first == "-m":
        module = ROOT / command.words[2].replace(".", "/")
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists()
    for word in command.words[1:]:
        if re.search(r"\.(?:py|yaml)$", word):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_and_targets_in_running_text_exist(page):
    code = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    known = {
        f"--{name.replace('_', '-')}"
        for command in cli.COMMANDS.values()
        for model in (command.arguments, command.settings)
        for name in model.model_fields
    }
    known |= {f"--server.{name.replace('_', '-')}" for name in Dialect.model_fields}
    known |= {f"--{section}.{flag[2:]}" for section in cli.COMMANDS for flag in known}
    known |= {flag.replace("--", "--no-", 1) for flag in known}
    for text in code:
        for flag in re.findall(r"(?<!\S)--[\w.-]+", text):
            assert flag.replace("_", "-") in known | FOREIGN, text
        for target in re.findall(r"^make (\w+)", text):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), text


@pytest.mark.parametrize("page", PAGES + OTHER_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_call_what_there_is(page):
    for number, text in enumerate(blocks(page, "python")):
        for node in ast.walk(ast.parse(text, f"{page.name}:{number}")):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.startswith("r2r."):
                function = getattr(r2r, called.removeprefix("r2r."))
                named = {word.arg: word.value for word in node.keywords}
                inspect.signature(function).bind(*node.args, **named)
                if called.endswith("Settings"):
                    function(**{name: ast.literal_eval(value) for name, value in named.items()})


def test_every_column_is_explained():
    sections = re.split(r"^(?=\*\*\w)", (ROOT / "docs" / "tables.md").read_text(), flags=re.MULTILINE)
    # No stage writes a corpus.
    for name, schema in {name: one for name, one in tables.SCHEMAS.items() if name != "corpus"}.items():
        (section,) = [one for one in sections if f"**{name}**" in one.partition("\n")[0]]
        explained = ", ".join(re.findall(r"^\| ([a-z_0-9, ]+) \|", section, re.MULTILINE)).split(", ")
        assert set(schema.names) <= set(explained), name


def test_each_stage_is_a_function():
    functions = {"index": "build_index", "queries": "make_queries", "judge": "judge_reasons"}
    written = (ROOT / "docs" / "python.md").read_text()
    for name, settings in SETTINGS.items():
        function = functions.get(name, name)
        assert inspect.isfunction(getattr(r2r, function)) and getattr(r2r, settings.__name__) is settings
        assert f"r2r.{function}(" in written and f"r2r.{settings.__name__}(" in written


def test_each_benchmark_finds_what_it_imports(tmp_path):
    """All in one process, for speed, each as if it was started as a program."""
    program = """
import runpy, sys
from pathlib import Path
paths, folder = list(sys.path), Path(sys.argv[1])
for script in sorted(folder.glob("*.py")):
    sys.path[:] = [str(folder), *paths]
    runpy.run_path(str(script))
    for name in list(sys.modules):
        if name.partition(".")[0] in ("benchmarks", "demo_models", "tests"):
            del sys.modules[name]
    print(script.name)
"""
    command = [sys.executable, "-c", program, ROOT / "benchmarks"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(file.name for file in (ROOT / "benchmarks").glob("*.py"))


def test_the_reference_of_settings_is_up_to_date():
    made = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))["text"]()
    assert MADE.read_text() == made, "run: python docs/make_settings.py"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def is_cheap(command: Command) -> bool:
    """Return whether a command needs no model, and nothing but the built-in world and what earlier ones wrote."""
    name, *rest = as_r2r(command.words) or [""]
    plans = {"--dry-run", "--show-prompt"} & set(rest)
    own = all(TRIED in word or "/" not in word for word in rest)
    return own and (bool(plans) or name in ("index", "retrieve", "evaluate", "reproduce"))


@pytest.mark.slow
def test_cheap_commands_run_in_order(ray_local, tmp_path, monkeypatch, capfd):
    """Those that only print a plan come last: they read what the others wrote."""
    monkeypatch.chdir(tmp_path)
    cheap = [as_r2r(command.words) for command in COMMANDS if is_cheap(command)]
    order = ["index", "retrieve", "evaluate", "reproduce", "queries", "annotate", "run"]
    assert {words[0] for words in cheap} == set(order)
    for words in sorted(cheap, key=lambda words: order.index(words[0])):
        assert cli.main(words) == 0, (words, capfd.readouterr().err)
    printed = capfd.readouterr().out
    for said in (
        "bm25",
        "retrieve: the same output",
        "Query: ",
        "annotate: nothing was asked",
        "queries: nothing was asked",
        "stages would run; nothing was done",
    ):
        assert said in printed


@pytest.mark.parametrize(
    "page", [*PAGES, *OTHER_PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_each_row_of_a_table_has_as_many_cells_as_its_head(page):
    lines = page.read_text().splitlines()
    wrong = [
        f"line {number}: {line}"
        for number, (above, line) in enumerate(pairwise(lines), start=2)
        if above.startswith("|") and line.startswith("|") and cells(above) != cells(line)
    ]
    assert wrong == []


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1
