import subprocess

import pytest

from tests.support.processes import SEQD


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*SEQD, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["call", "{tmp}/nowhere", "--output", "{tmp}/out"], 3, "cannot read RunInfo.xml: No such file or directory"),
        (["run", "--config", "{tmp}/nowhere.toml"], 2, "nowhere.toml: No such file or directory"),
        (["camera", "{tmp}/nowhere"], 3, "cannot read RunInfo.xml"),
        (["status", "--control", "ipc://{tmp}/none", "--timeout", "0.3"], 9, "no answer within 0.3 s"),
        (["tail", "--control", "ipc://{tmp}/none", "--calls", "ipc://{tmp}/calls"], 9, "is `seqd run` running?"),
        (["calib", "evaluate", "{tmp}", "{tmp}"], 3, "cannot read RunInfo.xml"),
        (["calib", "simulate", "{tmp}/sim", "--reads", "9T", "--cycles", "9"], 2, "leave one of them out"),
        (["calib", "simulate", "{tmp}/sim", "--reads", "9X"], 2, "read structure '9X': not cycles and T or B"),
        (["calib", "simulate", "{tmp}/sim", "--reads", "0T"], 2, "not 1 to 16 reads of 1 to 5000 cycles"),
        (["calib", "simulate", "{tmp}/sim", "--reads", "5000T5000T"], 2, "10000 cycles, at most 5000 are allowed"),
        (["export", "summary", "{tmp}", "--json", "--csv"], 2, "--json, --csv: one of them at a time"),
        (["calib", "simulate", "{tmp}/sim", "--reads", "8B"], 2, "0 template reads cannot be simulated, only 1 or 2"),
        (
            ["calib", "simulate", "{tmp}/sim", "--reads", "9T2B", "--barcode", "AN"],
            2,
            "barcode 'AN': it must have 2 letters A, C, G, T",
        ),
        (["calib", "simulate", "{tmp}/sim", "--reads", "8B9T"], 2, "begin with a template read"),
        (["calib", "simulate", "{tmp}/sim", "--barcode", "AC"], 2, "barcode 'AC': no index is read"),
        (["calib", "simulate", "{tmp}/sim", "--run", "a:b:[/]"], 2, "run a:b:[/]: run: String should match"),
        (["calib", "simulate", "{tmp}/sim", "--run", "a/b"], 2, "run a/b: run: String should match"),
        (["calib", "simulate", "{tmp}/sim", "--conditions", "{tmp}/none.json"], 3, "No such file or directory"),
    ],
)
def test_expected_failures_are_one_line_and_an_exit_code(arguments, code, message, tmp_path):
    done = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == code
    assert done.stderr.startswith("seqd: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_missing_bundle_ends_the_daemon_with_its_code(tmp_path):
    config = tmp_path / "seqd.toml"
    config.write_text(f'[engine]\nbundle = "{tmp_path}/nothing"\n')
    done = run("run", "--config", str(config))
    assert done.returncode == 4
    assert "cannot read model.toml" in done.stderr


def test_help_lists_every_command_and_the_exit_codes():
    done = run("--help")
    assert done.returncode == 0
    for word in ("run", "camera", "call", "tail", "status", "demo", "calib", "Exit codes"):
        assert word in done.stdout


def test_simulation_refuses_to_replace_a_run(tmp_path):
    arguments = ["calib", "simulate", str(tmp_path / "sim"), "--cycles", "1", "--size", "32"]
    assert run(*arguments).returncode == 0
    again = run(*arguments)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert run(*arguments, "--overwrite").returncode == 0
