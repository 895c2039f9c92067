"""The pages are run: their blocks in an empty folder, one after the other, and what they show is what comes out.

A block of `sh` is run as one script, the blocks of `python` of a page share their names, and a block of `text` is what the
block before it prints, where `...` stands for anything. An HTML comment before a block says what a reader is told in words:
`exit code 1`, `the file X` (write it), `into X` (put the function of the block in the place of the one of that name),
`not run: WHY`.
"""

import ast
import contextlib
import io
import os
import re
import subprocess
import unittest.mock
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ELSEWHERE = {
    "explanation/minimal-backend.md": "test_examples_minimal.py",
    "how-to/export-and-import.md": "exchange/test_how_to_export.py",
    "how-to/several-workers.md": "test_several_workers.py",
}
"""Pages with a test of their own, since they show what one machine, or one with these packages, cannot run."""


def name_of(path):
    return path.relative_to(DOCS).as_posix()


EVERY_PAGE = sorted(name_of(path) for path in DOCS.rglob("*.md") if not name_of(path).startswith("_"))
PAGES = [
    page
    for page in EVERY_PAGE
    if page not in ELSEWHERE and re.search(r"^```\w", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
]
OWN_BACKEND = "how-to/your-own-backend.md"


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    remark: str


def blocks_of(page):
    found = re.findall(r"^(?:<!-- ((?:(?!-->).)*) -->\n)?```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [Block(language, text, remark) for remark, language, text in found]


def words(text):
    """Text without what depends on the width of a screen."""
    return " ".join(text.split())


def looks_like(shown, printed):
    pattern = r".*?".join(re.escape(words(part)) for part in shown.split("..."))
    return re.search(pattern.replace(r"\ .*?", ".*?").replace(r".*?\ ", ".*?"), words(printed), re.DOTALL) is not None


def put_into(path, text):
    """Put the function that `text` defines in the place of the one of that name in the file."""
    (new,) = ast.parse(text).body
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (old,) = (node for node in ast.parse("".join(lines)).body if getattr(node, "name", None) == new.name)
    lines[old.lineno - 1 : old.end_lineno] = [text]
    path.write_text("".join(lines), encoding="utf-8")


def follow(blocks, folder, environment):
    printed, names = "", {"__name__": "__page__"}
    for block in blocks:
        kind, _, name = block.remark.rpartition(" ")
        if block.remark.startswith("not run: "):
            continue
        if block.language == "text":
            assert looks_like(block.text, printed), f"shown:\n{block.text}\nprinted:\n{printed}"
        elif kind == "the file":
            (folder / name).write_text(block.text, encoding="utf-8")
        elif kind == "into":
            put_into(folder / name, block.text)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.chdir(folder):
                exec(compile(block.text, "a block of the page", "exec"), names)  # noqa: S102 - the page is ours
            printed = output.getvalue()
        else:
            assert block.language == "sh", f"nobody knows what to do with\n{block.text}"
            expected = int(name) if kind == "exit code" else 0
            script = ["bash", "-e", "-c", block.text]
            done = subprocess.run(
                script, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
            )
            printed = done.stdout
            assert done.returncode == expected, f"{block.text}{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_the_page_can_be_followed_and_shows_what_happens(page, tmp_path, authors_machine):
    blocks = blocks_of((DOCS / page).read_text(encoding="utf-8"))
    try:
        with unittest.mock.patch.dict(os.environ):  # what a page sets is for that page
            follow(blocks, tmp_path, authors_machine)
    finally:  # a page that fails does not make the next one fail
        if any("pip install" in block.text for block in blocks):
            done = ["python", "-m", "pip", "uninstall", "--quiet", "--yes", "cnnkit-mine", "cnnkit-mine-too"]
            subprocess.run(done, env=authors_machine, check=True, capture_output=True)


def test_no_page_with_a_test_of_its_own_has_gone():
    assert ELSEWHERE.keys() <= set(EVERY_PAGE)
    assert [test for test in ELSEWHERE.values() if not (Path(__file__).parent / test).exists()] == []


@pytest.mark.parametrize("page", [*(f"docs/{page}" for page in EVERY_PAGE), "README.md", "CONTRIBUTING.md"])
def test_every_block_has_a_language_and_what_is_not_run_a_reason(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.findall(r"^(?:<!-- (.*?) -->\n)?(`{3,}|:{3,})(.*)\n", text, re.MULTILINE)
    openings = fences[::2]
    assert [language for _, _, language in openings if not re.fullmatch(r"\w+|\{[\w:-]+\}.*", language)] == []
    assert [
        remark for remark, _, _ in openings if remark.startswith("not run") and len(remark) < len("not run: why") + 5
    ] == []


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_link_of_the_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text(encoding="utf-8"))
    if not (ROOT / "backends").exists():  # these tests run beside an installed wheel
        links = [link for link in links if not re.search(r"\.\./(backends|cnnkit)/", link)]
    assert [link for link in links if not ((DOCS / page).parent / link).exists()] == []


def test_a_file_of_a_page_is_the_one_that_new_backend_writes(tmp_path):
    from cnnkit.scaffold import new_backend

    folder = new_backend("mine", tmp_path)
    blocks = blocks_of((DOCS / OWN_BACKEND).read_text(encoding="utf-8"))
    shown = [block for block in blocks if block.remark.startswith("the file cnnkit-mine/")]
    assert shown
    for block in shown:
        assert (tmp_path / block.remark.removeprefix("the file ")).read_text(encoding="utf-8") == block.text
    assert folder.is_dir()


# --------------------------------------------------------------------------------------------- the tests of the tests


@pytest.mark.parametrize(
    ("shown", "fits"),
    [("a b\nc d", True), ("a ... d", True), ("...\nc", True), ("a c", False), ("a ... e", False), ("c ... a", False)],
)
def test_shown_output_fits_only_what_is_printed(shown, fits):
    assert looks_like(shown, "a  b\nc\nd\n") == fits


def test_a_command_that_ends_otherwise_or_prints_something_else_is_seen(tmp_path, authors_machine):
    for page in (
        "```sh\nfalse\n```",
        "<!-- exit code 1 -->\n```sh\ntrue\n```",
        "```sh\necho a\n```\n```text\nb\n```",
        "```python\nprint(1)\n```\n```text\n2\n```",
    ):
        with pytest.raises(AssertionError):
            follow(blocks_of(page), tmp_path, authors_machine)


def test_the_python_of_a_page_shares_its_names_and_its_folder(tmp_path, authors_machine):
    page = "```sh\necho 3 > there\n```\n```python\nimport pathlib\n\nn = int(pathlib.Path('there').read_text())\n```\n```python\nprint(n)\n```\n```text\n3\n```"
    follow(blocks_of(page), tmp_path, authors_machine)


def test_the_remark_of_a_block_is_the_comment_right_before_it():
    page = "<!-- table 1 -->\n| a |\n<!-- end -->\n\n<!-- not run: hours -->\n```sh\ntrue\n```\n"
    assert blocks_of(page) == [Block("sh", "true\n", "not run: hours")]
