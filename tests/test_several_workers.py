"""The forms of TF_CONFIG for Kubernetes and Slurm in docs/how-to/several-workers.md, run with stand-ins for the cluster."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from cnnkit_tensorflow.distributed_cluster import cluster_from

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "several-workers.md"


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def run(tmp_path):
    """A function that runs a script where `cnnkit` tells what it was called with, and other commands are what is given."""

    def run(script, **commands):
        commands["cnnkit"] = 'printf "%s\\n" "$TF_CONFIG" "$*"'
        for name, text in commands.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)
        path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
        variables = {"SLURM_JOB_NODELIST": "node[07-09]", "WORKERS": "4", "JOB_COMPLETION_INDEX": "2"}
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env=os.environ | variables | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_the_script_for_slurm_names_all_nodes_and_begins_or_goes_on(run, tmp_path):
    commands = {
        "scontrol": '[ "$*" = "show hostnames node[07-09]" ] && printf "node07\\nnode08\\nnode09\\n"',
        "srun": 'shift; SLURM_PROCID=1 exec "$@"',
    }
    config, called = run(block("bash"), **commands)
    cluster = cluster_from({"TF_CONFIG": config})
    assert [member.address for member in cluster.members] == ["node07:2222", "node08:2222", "node09:2222"]
    assert cluster.rank == 1
    assert called.startswith("train seed-tf mnist ")
    assert called.endswith("--backend tensorflow --set strategy=multi-worker")
    (tmp_path / "runs" / "mnist").mkdir(parents=True)
    (tmp_path / "runs" / "mnist" / "run.json").touch()
    assert run(block("bash"), **commands) == [config, "train --resume runs/mnist"]


def test_the_job_for_kubernetes_gives_pods_the_names_that_they_look_for(run, tmp_path):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    service, job = yaml.safe_load_all(block("yaml"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert container["command"] == ["bash", "-euc"]
    (script,) = container["args"]
    config, called = run(script.replace("/runs/", f"{tmp_path}/"))
    cluster = cluster_from({"TF_CONFIG": config})
    name, domain, port = job["metadata"]["name"], pod["subdomain"], service["spec"]["ports"][0]["port"]
    pods = [f"{name}-{index}.{domain}:{port}" for index in range(job["spec"]["completions"])]
    assert [member.address for member in cluster.members] == pods
    assert domain == service["metadata"]["name"]
    assert cluster.rank == 2
    assert container["env"] == [{"name": "WORKERS", "value": str(job["spec"]["completions"])}]
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    assert called.startswith("train seed-tf mnist ")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "run.json").touch()
    assert run(script.replace("/runs/", f"{tmp_path}/")) == [config, f"train --resume {tmp_path}/mnist"]


def test_the_two_processes_of_the_page_have_a_tf_config_each():
    (config,) = re.findall(r"TF_CONFIG='(.*?)' cnnkit", block("sh"), re.DOTALL)
    for number in ("0", "1"):
        assert cluster_from({"TF_CONFIG": config.replace("'\"$1\"'", number)}).rank == int(number)
    assert json.loads(config.replace("'\"$1\"'", "0"))["cluster"].keys() == {"worker"}
