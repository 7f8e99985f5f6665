"""Simulate, label, train, call and evaluate: what each command writes is what the next one reads."""

import csv
import json
import subprocess
import tomllib

import pytest
import tomli_w

from engines.bundles.bundle import DEFAULT_BUNDLE, load_bundle
from tests.support.processes import SEQD

CYCLES = 20
TILE = "s_1_1101"
SETTINGS = {
    "steps": 2,
    "batch": 1,
    "patch_px": 48,
    "warmup_steps": 1,
    "learning_rate": 1e-4,
    "validate_every": 1,
    "validation_patches": 2,
    "quality_runs": 1,
    "seed": 3,
    "quality_px": 64,
    "device": "cpu",
}


def seqd(*arguments):
    done = subprocess.run([*SEQD, *map(str, arguments)], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_from_simulation_to_figures(tmp_path):
    run, bundle, config = tmp_path / "images", tmp_path / "bundle", tmp_path / "seqd.toml"

    said = seqd(
        "calib", "simulate", run, "--run", "PASS", "--cycles", CYCLES, "--size", 96, "--density", 120, "--seed", 3
    )
    assert "1 tiles × 20 cycles, 120 K clusters/mm²" in said
    truth = rows(run / "Truth" / f"{TILE}.csv")
    assert len(truth) == pytest.approx(120e-3 * (96 * 0.375) ** 2, rel=0.25)
    assert len(list(run.glob("Images/L001/C*.1/*.tif"))) == 4 * CYCLES

    seqd("calib", "label", run, "--reference", run / "Truth" / "reference.fasta")
    labels = rows(run / "Labels" / f"{TILE}.csv")
    summary = json.loads((run / "Labels" / f"{TILE}.json").read_text())
    assert len(labels) > 0.75 * len(truth)
    assert len(labels) == round(summary["clusters"] * summary["aligned_share"])
    assert summary["shuffled_share"] < 0.02
    assert {row["corrected"] for row in labels} <= {row["read"] for row in truth}

    (tmp_path / "train.toml").write_text(tomli_w.dumps(SETTINGS))
    options = ["--settings", tmp_path / "train.toml", "--start", DEFAULT_BUNDLE, "--labelled", run]
    seqd("calib", "train", bundle, "--checkpoint", tmp_path / "tuned.pt", "--name", "tuned", *options)
    trained = tomllib.loads((bundle / "model.toml").read_text())["training"]
    assert trained["start"] == load_bundle(DEFAULT_BUNDLE).hash
    assert trained["labelled"][0].startswith("PASS 1_1101 ")
    assert [int(row["step"]) for row in rows(tmp_path / "tuned.csv")] == [0, 1, 2]
    assert trained["best_step"] <= trained["steps"] == 2

    config.write_text(tomli_w.dumps({"engine": {"bundle": str(bundle)}}))
    seqd("call", run, "--output", tmp_path / "runs", "--config", config)
    provenance = (tmp_path / "runs" / "PASS" / "provenance.json").read_text()
    assert load_bundle(bundle).hash in provenance

    fastq, report, figures = tmp_path / "runs" / "PASS" / "fastq", tmp_path / "report.html", tmp_path / "figures.json"
    seqd("calib", "evaluate", run, "--classical", "--calls", f"tuned={fastq}", "--report", report, "--json", figures)
    callers = json.loads(figures.read_text())["runs"][0]["callers"]
    for name in ("classical", "tuned"):
        whole = callers[name]["all"]
        assert whole["clusters"] == len(truth)
        assert whole["found"] > 0.85
        assert whole["yielded"] > 0.75
        assert whole["real"] > 0.95
        assert name in report.read_text()
