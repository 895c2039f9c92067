"""What the README and the examples show is run."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from cnnkit import Model

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_two_commands_install_and_run_and_install_and_test():
    first, second = blocks("sh")[:2]
    assert re.fullmatch(r"python -m pip install '\.\[data,plot\]' && cnnkit train .*\n", first)
    assert re.fullmatch(r"python -m pip install -e '\.\[test\]' && python -m pytest.*\n", second)


def test_the_first_command_trains_a_network_that_recognises_digits(tmp_path):
    arguments = blocks("sh")[0].strip().partition("cnnkit ")[2].split()
    command = [sys.executable, "-m", "cnnkit", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert json.loads(done.stdout)["test"]["accuracy"] > 0.95


def test_the_python_of_the_readme_prints_a_good_accuracy(capsys):
    exec(compile(blocks("python")[0], "README.md", "exec"), {})  # noqa: S102 - the README is ours
    assert float(capsys.readouterr().out) > 0.9


def test_the_python_for_own_images_classifies_saves_and_goes_on(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(blocks("python")[1], "README.md", "exec"), names)  # noqa: S102 - as above
    assert names["maps"].shape == (1, 28, 28, 32)
    assert names["run"].state.step == names["found"].state.step + 4  # 200 images in batches of 64
    assert capsys.readouterr().out.splitlines()[-1] in ("dark", "light")


def test_the_model_file_of_the_readme_is_a_model():
    (text,) = blocks("toml")
    assert Model.from_toml(text).plan().output_shape == (10,)


def test_every_command_of_the_readme_exists():
    section = README.partition("## The command line")[2].partition("```console\n")[2].partition("```")[0]
    listed = re.findall(r"^cnnkit (\w+)", section, re.MULTILINE)
    shown = subprocess.run([sys.executable, "-m", "cnnkit", "--help"], capture_output=True, text=True, check=True)
    assert len(listed) > 5
    for command in listed:
        assert re.search(rf"\b{command}\b", shown.stdout)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_of_the_readme_leads_somewhere(link):
    if "backends/" in link and not (ROOT / "backends").exists():
        pytest.skip("these tests run beside an installed wheel, without the source of the backends")
    assert (ROOT / link).exists()


def test_the_first_model_of_the_examples_recognises_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(ROOT / "examples" / "first_model.py"))
    assert names["metrics"].accuracy > 0.93
    assert (tmp_path / "first.safetensors").exists()
    assert "The first test image is a 2" in capsys.readouterr().out
