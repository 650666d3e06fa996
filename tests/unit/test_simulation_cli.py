"""`samgate simulate`: the table, the JSON, the picture, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from samgate.cli.main import main
from samgate.scheduling.policy import POLICIES
from samgate.simulation.runs import Study, run_study
from simulation_support import two_cores, workload

FLEET = {
    "name": "small",
    "devices": [
        {
            "profile": {
                "overhead_s": 0.001,
                **{name: {"each_s": 0.01} for name in ("decode", "survivors", "prepare", "finish")},
                "points": [
                    {
                        "variant": name,
                        "precision": "x",
                        "encode": {"each_s": encode},
                        "accuracy": {"box": 0.7, "point": 0.5},
                    }
                    for name, encode in (("slow", 0.2), ("fast", 0.05))
                ],
            }
        }
    ],
}
WORKLOAD = {
    "name": "short",
    "duration_s": 6,
    "warmup_s": 1,
    "arrivals": {"process": "poisson", "rate": 4},
    "images": {"requests_per_image": 2, "megapixels": 1},
    "requests": [{"name": "points", "kind": "point", "prompts": 1, "deadline_s": 1}],
}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """The command with files that exist."""
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(WORKLOAD))
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(FLEET))
    return ["simulate", "--workload", str(tmp_path / "w.yaml"), "--fleet", str(tmp_path / "f.yaml")]


def test_all_policies_at_several_loads(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, plot = tmp_path / "report.json", tmp_path / "plot.png"
    arguments = ["--policy", "all", "--load", "0.5", "2", "-o", str(report), "--plot", str(plot)]
    assert main([*command, *arguments]) == 0
    shown = capsys.readouterr().out
    assert all(policy in shown for policy in POLICIES)
    content = json.loads(report.read_text())
    assert [(run["policy"], run["load"]) for run in content["runs"]] == [
        (p, load) for p in POLICIES for load in (0.5, 2)
    ]
    asked = {"name": "short", "rate": 4.0, "duration_s": 6.0, "warmup_s": 1.0, "slo_scale": 1.0}
    assert content["workload"] == asked
    assert content["fleet"]["origin"] == "inline figures"
    assert all(0 <= run["attainment"] <= 1 for run in content["runs"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_json_on_standard_output_leaves_it_alone(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-o", "-", "--rate", "2", "--duration", "3", "--seed", "5"]) == 0
    found = capsys.readouterr()
    content = json.loads(found.out)
    assert (content["seed"], content["runs"][0]["rate"], content["workload"]["duration_s"]) == (5, 2.0, 3.0)
    assert "short on small" in found.err


def test_deadlines_can_be_scaled(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    # 50 ms of encoding don't fit into 20 ms.
    for scale, attainment in (0.02, 0.0), (5.0, 1.0):
        assert main([*command, "-o", "-", "--slo-scale", str(scale)]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["workload"]["slo_scale"] == scale
        assert content["runs"][0]["attainment"] == attainment


def test_capacity(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--capacity", "--policy", "static-fast", "-o", "-"]) == 0
    found = json.loads(capsys.readouterr().out)["capacity"]["static-fast"]
    assert 0 < found["rate"] < found["failed"]
    assert any(trial["attainment"] >= 0.99 for trial in found["trials"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--policy", "best"], "--policy: 'best' is none of all, samgate"),
        (["--capacity", "--plot", "x.png"], "--plot: draws policies"),
        (["--duration", "1"], "--duration: is 1, which leaves nothing after the warm-up of 1 s"),
        (["-o", "no/such/folder.json"], "can't be written"),
    ],
)
def test_what_makes_no_sense_is_refused(
    command: list[str], arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *arguments]) == 1
    assert problem in capsys.readouterr().err


def test_processes_share_policies_and_gateways() -> None:
    study = Study(workload(rate=12, duration_s=5), two_cores(gateways=2), ("samgate", "greedy"), (1.0,), jobs=1)
    alone: list[float] = []
    together: list[float] = []
    one = run_study(study, alone.append)
    many = run_study(Study(study.workload, study.fleet, study.policies, study.loads, jobs=2), together.append)
    for first, second in zip(one, many, strict=True):
        assert first.utilisation == pytest.approx(second.utilisation)
        assert (first.attainment, first.p99_s, first.points) == (second.attainment, second.p99_s, second.points)
    assert alone[-1] == together[-1] == 1.0
    assert alone == sorted(alone)
