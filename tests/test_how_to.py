"""The how-to pages are run: their commands in an empty folder, one after the other, and what they show is what comes out.

A block of `sh` is run as one script; the block of `text` behind it is its output, where `...` stands for anything. An HTML
comment before a block says what a reader is told in words: `exit code 1`, `the file X` (write it), `into X` (put the
function of the block in the place of the one of that name).
"""

import ast
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ["how-to/your-own-backend.md", "how-to/read-a-red-report.md"]


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    remark: str


def blocks_of(page):
    found = re.findall(r"^(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
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
    printed = ""
    for block in blocks:
        kind, _, name = block.remark.rpartition(" ")
        if block.language == "text":
            assert looks_like(block.text, printed), f"shown:\n{block.text}\nprinted:\n{printed}"
        elif kind == "the file":
            (folder / name).write_text(block.text, encoding="utf-8")
        elif kind == "into":
            put_into(folder / name, block.text)
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
    assert len(blocks) > 10
    try:
        follow(blocks, tmp_path, authors_machine)
    finally:  # a page that fails does not make the next one fail
        done = ["python", "-m", "pip", "uninstall", "--quiet", "--yes", "cnnkit-mine", "cnnkit-mine-too"]
        subprocess.run(done, env=authors_machine, check=True, capture_output=True)


@pytest.mark.parametrize("page", [*PAGES, "explanation/minimal-backend.md"])
def test_every_link_of_the_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not ((DOCS / page).parent / link).exists()] == []


def test_a_file_of_a_page_is_the_one_that_new_backend_writes(tmp_path):
    from cnnkit.scaffold import new_backend

    folder = new_backend("mine", tmp_path)
    blocks = blocks_of((DOCS / PAGES[0]).read_text(encoding="utf-8"))
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
    for page in ("```sh\nfalse\n```", "<!-- exit code 1 -->\n```sh\ntrue\n```", "```sh\necho a\n```\n```text\nb\n```"):
        with pytest.raises(AssertionError):
            follow(blocks_of(page), tmp_path, authors_machine)
