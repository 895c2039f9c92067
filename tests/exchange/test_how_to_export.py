"""docs/how-to/export-and-import.md is followed as it stands, as far as what is installed goes."""

import importlib.util
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "how-to" / "export-and-import.md"

spec = importlib.util.spec_from_file_location("followed_docs", TESTS / "test_docs.py")
how_to = importlib.util.module_from_spec(spec)
spec.loader.exec_module(how_to)


def test_the_page_can_be_followed_and_shows_what_happens(tmp_path, authors_machine):
    found = importlib.util.find_spec("tensorflow")
    tensorflow = found is not None and found.origin is not None
    blocks = [
        block
        for block in how_to.blocks_of(PAGE.read_text(encoding="utf-8"))
        if block.language != "toml" and (tensorflow or "--format savedmodel" not in block.text)
    ]
    assert [block.language for block in blocks].count("sh") >= 4
    how_to.follow(blocks, tmp_path, authors_machine)
    if tensorflow:
        run = how_to.Block("sh", "python with_keras.py\npython with_tensorflow.py", "")
        how_to.follow([run], tmp_path, authors_machine)


def test_every_layer_that_is_read_is_on_the_page():
    from cnnkit.exchange.from_keras import _LAYERS

    text = PAGE.read_text(encoding="utf-8")
    globals_ = {"GlobalMaxPooling2D", "GlobalAveragePooling2D", "InputLayer"}
    assert [name for name in _LAYERS if f"`{name}`" not in text and name not in globals_] == []


def test_every_link_of_the_page_leads_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
